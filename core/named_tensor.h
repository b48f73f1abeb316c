#pragma once

#include <saccade/core/tensor.h>

#include <string>

namespace saccade {

/// A tensor and what it is called: what modules list and files hold.
struct NamedTensor {
  std::string name;  ///< dotted path, as in "trunk.block1-1.f.a.weight"
  Tensor tensor;
};

}  // namespace saccade
