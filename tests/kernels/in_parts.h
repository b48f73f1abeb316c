#pragma once

#include <saccade/kernels/backend.h>

/// Ops that are several calls, as core/ops makes them, on whatever takes a call.
namespace saccade::kernels {

struct OnCpu {
  void operator()(const auto& call) const { backend(Device::cpu).run(call); }
};

template <class Run>
void batch_norm_forward(Run run, const BatchNorm& norm, const Segments& segments, const void* x, const void* residual,
                        const float* gamma, const float* beta, float* mean, float* rstd, float* running_mean,
                        float* running_var, void* y, void* workspace) {
  const BatchNormMoments moments{norm, segments, x, mean, workspace};
  run(moments);
  run(BatchNormMerge{norm, segments, 1, mean, moments.squares(), mean, rstd, running_mean, running_var});
  run(BatchNormApply{norm, segments, x, residual, gamma, beta, mean, rstd, y});
}

template <class Run>
void batch_norm_backward(Run run, const BatchNorm& norm, const Segments& segments, const void* x, const void* y,
                         const void* dy, const float* gamma, const float* beta, const float* mean, const float* rstd,
                         void* dx, void* dresidual, float* dgamma, float* dbeta, void* workspace) {
  const BatchNormBackwardSums sums{norm, segments, x, y, dy, gamma, beta, mean, rstd, dgamma, dbeta, workspace};
  run(sums);
  run(BatchNormBackwardMap{norm, segments, x, y, dy, gamma, beta, mean, rstd, sums.factors(), dx, dresidual});
}

template <class Run>
void sinkhorn_potentials(Run run, const Sinkhorn& spec, const float* scores, float* potentials, void* workspace) {
  for (int i = 0; i < spec.iterations; ++i) {
    run(SinkhornRows{spec, i, scores, potentials, workspace});
    run(SinkhornColumns{spec, i, scores, potentials, nullptr, workspace});
  }
}

}  // namespace saccade::kernels
