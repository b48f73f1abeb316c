#pragma once

#include <saccade/kernels/backend.h>

namespace saccade::kernels {

/// The CPU: oneDNN for convolutions and matrix products (NHWC throughout), our own kernels for the rest and for the
/// convolutions that oneDNN is slow at. Its methods are defined in one file a kernel family in this folder.
class CpuBackend final : public Backend {
 public:
  Device device() const override;
  void to_host(size_t bytes, const void* x, void* host) override;
  void from_host(size_t bytes, const void* host, void* y) override;
  void synchronize() override {}

  using Backend::workspace;
  size_t workspace(const Conv2dForward&) const override;
  size_t workspace(const Conv2dBackwardData&) const override;
  size_t workspace(const Conv2dBackwardWeight&) const override;
  size_t workspace(const MatrixProduct&) const override;
  size_t workspace(const BatchNormMoments&) const override;
  size_t workspace(const BatchNormBackwardSums&) const override;
  size_t workspace(const SinkhornRows&) const override;

  void run(const Fill&) override;
  void run(const Copy&) override;
  void run(const Cast&) override;
  void run(const Map&) override;
  void run(const MapGradient&) override;
  void run(const Combine&) override;
  void run(const Scale&) override;
  void run(const ScaleBy&) override;
  void run(const ColumnSum&) override;
  void run(const Sum&) override;
  void run(const L2Normalize&) override;
  void run(const L2NormalizeGradient&) override;
  void run(const LogSumExp&) override;
  void run(const LogSumExpGradient&) override;
  void run(const Conv2dForward&) override;
  void run(const Conv2dBackwardData&) override;
  void run(const Conv2dBackwardWeight&) override;
  void run(const MatrixProduct&) override;
  void run(const BatchNormMoments&) override;
  void run(const BatchNormMerge&) override;
  void run(const BatchNormApply&) override;
  void run(const BatchNormInference&) override;
  void run(const BatchNormBackwardSums&) override;
  void run(const BatchNormBackwardMap&) override;
  void run(const GlobalAvgPool&) override;
  void run(const GlobalAvgPoolGradient&) override;
  void run(const ChannelScale&) override;
  void run(const ChannelScaleFactorGradient&) override;
  void run(const ChannelScaleInputGradient&) override;
  void run(const MaxPool&) override;
  void run(const MaxPoolGradient&) override;
  void run(const SinkhornRows&) override;
  void run(const SinkhornColumns&) override;
  void run(const SinkhornAssign&) override;
  void run(const SwappedPredictionLoss&) override;
  void run(const CrossEntropy&) override;
  void run(const SgdUpdate&) override;
  void run(const AdamWUpdate&) override;
  void run(const Unscale&) override;
  void run(const MovingAverage&) override;
  void run(const CropsToBatch&) override;
};

}  // namespace saccade::kernels
