#pragma once

#include <saccade/kernels/assignment.h>
#include <saccade/kernels/batch_norm.h>
#include <saccade/kernels/conv.h>
#include <saccade/kernels/device.h>
#include <saccade/kernels/matmul.h>
#include <saccade/kernels/segments.h>

#include <functional>
#include <span>
#include <string_view>

/// @file
/// What the meta backend tells whoever listens: each call of a rehearsed program, with what it would take to time it.

namespace saccade::kernels {

/// Which device the meta backend rehearses, of this process: its calls ask for that one's workspaces. The CPU at first.
void rehearse(Device device);
/// As the other, for a device that is not here: what convolutions need of it is the function's to say, the rest is as
/// on the CPU.
void rehearse(std::function<size_t(const Conv2d&, std::span<const Segment>, ConvPass)> conv2d_workspace);

/// Kinds of calls. The first group is told apart call by call; of the second only the traffic counts.
enum class CallKind : uint8_t {
  conv_forward,
  conv_backward_data,
  conv_backward_weight,
  matmul,
  batch_norm_forward,
  batch_norm_apply,  ///< inference too
  batch_norm_backward,
  pool_forward,  ///< global average
  pool_backward,
  channel_scale_forward,
  channel_scale_backward_scale,
  channel_scale_backward_input,
  sinkhorn,
  swapped_prediction,
  elementwise,  ///< all maps and rows of a few passes that have no kind of their own
  cast,
  reduction,
  sgd,
  larc,
  adamw,
};
inline constexpr size_t kCallKinds = 20;
std::string_view name_of(CallKind kind);

/// One call on the meta backend. Beside kind, dtype and costs only the members that the kind names are set.
struct Call {
  CallKind kind = CallKind::elementwise;
  DType dtype = DType::f32;  ///< of the data; of the momentum, for sgd and larc
  double flops = 0;          ///< as in Cost
  double bytes = 0;
  Conv2d conv = {};                           ///< of conv_*
  MatMul matmul = {};                         ///< of matmul
  BatchNorm norm = {};                        ///< of batch_norm_*; of pool_* and channel_scale_* the channels
  bool residual = false;                      ///< of batch_norm_*
  std::span<const Segment> segments = {};     ///< of conv_*, batch_norm_*, pool_*, channel_scale_*; valid for the call
  Sinkhorn assignment = {};                   ///< of sinkhorn
  SwappedPrediction swapped_prediction = {};  ///< of swapped_prediction
};

/// Hears of each call on the meta backend from the thread that installed it.
class MetaListener {
 public:
  virtual void on_call(const Call& call) = 0;

 protected:
  ~MetaListener() = default;
};

/// `listener` hears of this thread's calls while the scope lives; of nested scopes the innermost does.
class MetaListenScope {
 public:
  explicit MetaListenScope(MetaListener& listener);
  ~MetaListenScope();
  MetaListenScope(const MetaListenScope&) = delete;
  MetaListenScope& operator=(const MetaListenScope&) = delete;

 private:
  MetaListener* previous_;
};

}  // namespace saccade::kernels
