#pragma once

#include <saccade/core/tensor.h>
#include <support/reference.h>

#include <functional>
#include <ostream>
#include <string>
#include <vector>

namespace saccade::testing {

/// One input of an op case: its shape (or segments and channels), and whether its gradient is checked.
struct Input {
  Shape shape;
  Segments segments;  ///< not empty: images, and `shape` is (rows, channels)
  bool differentiable = true;
  float low = -1.f, high = 1.f;  ///< uniform values
};

/// A row of the op table. `op` runs the library; `reference` computes the same in double precision from the same
/// values. Everything else (gradcheck, meta against real, threads, instruction sets) follows from these two.
struct OpCase {
  std::string name;
  std::vector<Input> inputs;
  std::function<Tensor(const std::vector<Tensor>&)> op;
  std::function<reference::Values(const std::vector<reference::Values>&)> reference;
  double tolerance = 1e-5;           ///< of values, relative to the largest
  double gradient_tolerance = 2e-4;  ///< likewise, of gradients against central differences of the reference
  friend void PrintTo(const OpCase& c, std::ostream* out) { *out << c.name; }
};

/// All ops, each in the shapes that matter: dense, grouped, strided, ragged, odd.
const std::vector<OpCase>& op_table();

/// The inputs of a case, filled by Philox from the case's name: on the current device.
std::vector<Tensor> make_inputs(const OpCase& op_case);
reference::Values to_double(const Tensor& tensor);
/// Fixed weights for a scalar functional of a case's output, so that every output element matters to the gradient.
Tensor functional_of(const OpCase& op_case, const Tensor& output);

}  // namespace saccade::testing
