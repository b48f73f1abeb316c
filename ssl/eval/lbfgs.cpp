#include <saccade/ssl/eval/lbfgs.h>

#include <cmath>
#include <deque>

namespace saccade::ssl {

namespace {

double dot(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += double{a[i]} * double{b[i]};
  return sum;
}

void add_scaled(std::vector<float>& y, double factor, const std::vector<float>& x) {
  for (size_t i = 0; i < y.size(); ++i) y[i] += static_cast<float>(factor * double{x[i]});
}

struct Pair {
  std::vector<float> step, change;  ///< x_{t+1} - x_t and g_{t+1} - g_t
  double rho = 0;                   ///< 1 / (step . change)
};

/// -H g by the two-loop recursion.
std::vector<float> direction(const std::deque<Pair>& history, const std::vector<float>& gradient) {
  std::vector<float> d(gradient.size());
  for (size_t i = 0; i < d.size(); ++i) d[i] = -gradient[i];
  std::vector<double> alpha(history.size());
  for (size_t i = history.size(); i-- > 0;) {
    alpha[i] = history[i].rho * dot(history[i].step, d);
    add_scaled(d, -alpha[i], history[i].change);
  }
  if (!history.empty()) {
    const Pair& last = history.back();
    const double gamma = 1.0 / (last.rho * dot(last.change, last.change));
    for (float& v : d) v = static_cast<float>(gamma * double{v});
  }
  for (size_t i = 0; i < history.size(); ++i)
    add_scaled(d, alpha[i] - history[i].rho * dot(history[i].change, d), history[i].step);
  return d;
}

}  // namespace

double minimize_lbfgs(const std::function<double(const std::vector<float>&, std::vector<float>&)>& value,
                      std::vector<float>& x, LbfgsOptions options) {
  std::vector<float> gradient(x.size()), trial(x.size()), trial_gradient(x.size());
  std::deque<Pair> history;
  double f = value(x, gradient);
  const double first_norm = std::sqrt(dot(gradient, gradient));
  for (int iteration = 0; iteration < options.max_iterations; ++iteration) {
    const double norm = std::sqrt(dot(gradient, gradient));
    if (!(norm > options.gradient_tolerance * first_norm)) break;
    std::vector<float> d = direction(history, gradient);
    double slope = dot(d, gradient);
    if (!(slope < 0)) {  // rounding spoilt the curvature: begin anew from the steepest descent
      history.clear();
      d = direction(history, gradient);
      slope = -norm * norm;
    }
    double rate = history.empty() ? 1.0 / norm : 1.0, next = f;
    bool lower = false;
    for (int halving = 0; halving < 30 && !lower; ++halving, rate *= 0.5) {
      trial = x;
      add_scaled(trial, rate, d);
      next = value(trial, trial_gradient);
      lower = next <= f + 1e-4 * rate * slope;
    }
    if (!lower) break;
    Pair pair{.step = trial, .change = trial_gradient};
    add_scaled(pair.step, -1.0, x);
    add_scaled(pair.change, -1.0, gradient);
    const double curvature = dot(pair.step, pair.change);
    if (curvature > 1e-12 * dot(pair.change, pair.change)) {
      pair.rho = 1.0 / curvature;
      history.push_back(std::move(pair));
      if (history.size() > static_cast<size_t>(options.history)) history.pop_front();
    }
    const double decrease = f - next;
    x.swap(trial);
    gradient.swap(trial_gradient);
    f = next;
    if (decrease < options.decrease_tolerance * std::abs(f)) break;
  }
  return f;
}

}  // namespace saccade::ssl
