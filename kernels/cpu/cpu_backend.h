#pragma once

#include <saccade/kernels/backend.h>
#include <saccade/kernels/cpu/conv_plan.h>
#include <saccade/kernels/cpu/isa.h>

#include <concepts>

namespace saccade::kernels {

/// The CPU: oneDNN for convolutions and matrix products (NHWC throughout), our own kernels for the rest and for the
/// convolutions that oneDNN is slow at. What is more than one kernel is defined in one file a family in this folder.
class CpuBackend final : public Calls::with<ComputesBy, CpuBackend, Backend> {
 public:
  Device device() const override { return Device::cpu; }
  void to_host(size_t bytes, const void* x, void* host) override {
    compute(Copy{static_cast<int64_t>(bytes), x, host});
  }
  void from_host(size_t bytes, const void* host, void* y) override { to_host(bytes, host, y); }
  void synchronize() override {}

  size_t scratch(const auto&) const { return 0; }
  template <std::derived_from<OnConvolution> Call>
  size_t scratch(const Call& call) const {
    return cpu::conv_plan(call.conv, call.segments, call.pass).workspace;
  }
  size_t scratch(const MatrixProduct&) const;
  size_t scratch(const BatchNormMoments&) const;
  size_t scratch(const BatchNormBackwardSums&) const;
  size_t scratch(const SinkhornRows&) const;

  template <class Call>
  void compute(const Call& call) {
    if constexpr (requires { call.function; })
      cpu::require_floating(call.dtype, name_of(call.function));
    else if constexpr (requires { call.dtype; })
      cpu::require_floating(call.dtype, call.name);
    cpu::run_kernel(call);
  }
  template <std::derived_from<OnImages> Call>
  void compute(const Call& call) {
    cpu::require_floating(call.dtype, call.name);
    cpu::run_kernel(call, call.segments.data(), static_cast<int64_t>(call.segments.size()));
  }
  void compute(const Fill&);
  void compute(const Copy&);
  void compute(const Cast&);
  void compute(const Scale&);
  void compute(const Conv2dForward&);
  void compute(const Conv2dBackwardData&);
  void compute(const Conv2dBackwardWeight&);
  void compute(const MatrixProduct&);
  void compute(const BatchNormMoments&);
  void compute(const BatchNormMerge&);
  void compute(const BatchNormApply&);
  void compute(const BatchNormInference&);
  void compute(const BatchNormBackwardSums&);
  void compute(const BatchNormBackwardMap&);
  void compute(const MaxPool&);
  void compute(const MaxPoolGradient&);
  void compute(const SinkhornRows&);
  void compute(const SinkhornColumns&);
  void compute(const SgdUpdate&);
  void compute(const AdamWUpdate&);
  void compute(const Unscale&);
  void compute(const MovingAverage&);
  void compute(const CropsToBatch&);
};

}  // namespace saccade::kernels
