#pragma once

#include <functional>
#include <vector>

namespace saccade::ssl {

struct LbfgsOptions {
  int max_iterations = 150;
  int history = 10;
  double gradient_tolerance = 1e-4;  ///< stop when |g| falls below this share of the first one
  double decrease_tolerance = 1e-6;  ///< or when a step lowers the value by less than this share of it
};

/// Minimises `value` from x on: L-BFGS with backtracking (Nocedal & Wright, algorithms 7.4 and 3.1). `value(x, g)`
/// returns f(x) and writes its gradient. Returns the least value found, with x there. Deterministic.
double minimize_lbfgs(const std::function<double(const std::vector<float>& x, std::vector<float>& gradient)>& value,
                      std::vector<float>& x, LbfgsOptions options = {});

}  // namespace saccade::ssl
