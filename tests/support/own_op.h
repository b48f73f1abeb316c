#pragma once

#include <saccade/core/tensor.h>
#include <support/op_table.h>

namespace saccade::testing {

/// x * sigmoid(x) elementwise (SiLU, Elfwing et al. 2018): an op that lives outside the library.
Tensor silu(const Tensor& x);

/// Its row of the op table.
OpCase silu_case();

}  // namespace saccade::testing
