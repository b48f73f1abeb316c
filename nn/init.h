#pragma once

#include <saccade/core/tensor.h>

#include <cstdint>
#include <string>

namespace saccade::nn {

/// Where a parameter's first values come from: random numbers that depend on the seed and the parameter's path alone,
/// not on the order in which modules are built, nor on threads. Tensors are made on the current DeviceScope's device
/// under Tag::parameters; on meta nothing is drawn.
struct Init {
  uint64_t seed = 0;
  std::string path = {};

  /// The same seed one level down the module tree.
  Init operator/(const std::string& name) const { return {seed, path.empty() ? name : path + "." + name}; }

  /// N(0, std), the numbers of the path `this / name`.
  Tensor normal(const std::string& name, Shape shape, double std) const;
  /// U(-bound, bound)
  Tensor uniform(const std::string& name, Shape shape, double bound) const;
  static Tensor constant(Shape shape, float value);
};

}  // namespace saccade::nn
