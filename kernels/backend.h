#pragma once

#include <saccade/kernels/assignment.h>
#include <saccade/kernels/batch_norm.h>
#include <saccade/kernels/conv.h>
#include <saccade/kernels/device.h>
#include <saccade/kernels/elementwise.h>
#include <saccade/kernels/matmul.h>
#include <saccade/kernels/optimizer.h>
#include <saccade/kernels/pixels.h>
#include <saccade/kernels/pooling.h>
#include <saccade/kernels/processor.h>
#include <saccade/kernels/rows.h>

namespace saccade::kernels {

/// All calls there are.
using Calls =
    CallList<Fill, Copy, Cast, Map, MapGradient, Combine, Scale, ColumnSum, Sum, L2Normalize, L2NormalizeGradient,
             LogSumExp, LogSumExpGradient, Conv2dForward, Conv2dBackwardData, Conv2dBackwardWeight, MatrixProduct,
             BatchNormMoments, BatchNormMerge, BatchNormApply, BatchNormInference, BatchNormBackwardSums,
             BatchNormBackwardMap, GlobalAvgPool, GlobalAvgPoolGradient, ChannelScale, ChannelScaleFactorGradient,
             ChannelScaleInputGradient, MaxPool, MaxPoolGradient, SinkhornRows, SinkhornColumns, SinkhornAssign,
             SwappedPredictionLoss, CrossEntropy, SgdUpdate, AdamWUpdate, Unscale, MovingAverage, CropsToBatch>;

/// A device: run(call) computes each of the calls, workspace(call) says how many bytes of scratch it wants for it.
/// Every result is a pure function of the call and the number of threads. Nothing here allocates device memory. A dtype
/// or shape that a device cannot do is a saccade::Error with a sentence.
class Backend : public Calls::with<Computes> {
 public:
  virtual Device device() const = 0;
  /// To and from memory of the host. What was asked of the backend before is done first, and the copy with the call.
  virtual void to_host(size_t bytes, const void* x, void* host) = 0;
  virtual void from_host(size_t bytes, const void* host, void* y) = 0;
  /// Waits until all that was asked of the backend is done.
  virtual void synchronize() = 0;
};

/// What calls on the meta backend have cost so far: the sum over a rehearsed program.
struct Cost {
  double flops = 0;        ///< arithmetic of convolutions and matrix products, 2 a multiply-accumulate
  double bytes_moved = 0;  ///< each operand read once, each result written once
};

/// The backend of a device: one object a process. Device::cuda throws Error where there is none (cuda_device.h).
Backend& backend(Device device);

/// The meta backend's running total, of this thread.
Cost& meta_cost();

}  // namespace saccade::kernels
