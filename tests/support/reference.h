#pragma once

#include <saccade/kernels/assignment.h>
#include <saccade/kernels/conv.h>
#include <saccade/kernels/segments.h>

#include <cstdint>
#include <vector>

/// Plain double-precision loops: the independent truth that the op table holds every backend against. They follow the
/// formulas as printed, with no regard to speed, and share no code with the library beyond the shape structs.
namespace saccade::reference {

using Values = std::vector<double>;

Values conv2d(const kernels::Conv2d& conv, const Segments& in, const Values& x, const Values& w);
Values linear(int64_t rows, int64_t in, int64_t out, const Values& x, const Values& w, const Values& bias);
/// Batch statistics per segment; residual may be empty.
Values batch_norm(const Segments& segments, int64_t channels, double eps, bool relu, const Values& x,
                  const Values& gamma, const Values& beta, const Values& residual);
Values batch_norm_inference(int64_t channels, double eps, bool relu, const Values& x, const Values& gamma,
                            const Values& beta, const Values& mean, const Values& var, const Values& residual);
Values global_avg_pool(const Segments& segments, int64_t channels, const Values& x);
Values squeeze_excite(const Segments& segments, int64_t channels, int64_t reduced, const Values& x, const Values& w1,
                      const Values& b1, const Values& w2, const Values& b2);
Values max_pool2d(const kernels::Conv2d& window, const Segments& in, const Values& x);
Values l2_normalize(int64_t channels, double eps, const Values& x);
/// The textbook scaling of exp(S / eps), as the SwAV authors wrote it.
Values sinkhorn(const kernels::Sinkhorn& problem, const Values& scores);
Values swapped_prediction(const kernels::SwappedPrediction& problem, const Values& scores, const Values& q);
Values cross_entropy(int64_t classes, const Values& logits, const std::vector<int32_t>& labels);

}  // namespace saccade::reference
