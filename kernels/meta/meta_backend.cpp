#include <saccade/kernels/meta/meta_backend.h>
#include <saccade/kernels/rehearsal.h>

#include <utility>

// What each call would cost: bytes are the operands read once and the results written once. An optional operand counts
// where its pointer is given; rehearsals pass real, if unreadable, addresses or null exactly where a real run does not.
namespace saccade::kernels {
namespace {

thread_local MetaListener* listener = nullptr;

void report(const Call& call) {
  meta_cost().flops += call.flops;
  meta_cost().bytes_moved += call.bytes;
  if (listener != nullptr) listener->on_call(call);
}

/// A call of which only the traffic counts.
void moved(double bytes, DType dtype, CallKind kind = CallKind::elementwise) {
  report({.kind = kind, .dtype = dtype, .bytes = bytes});
}

double bytes_of(DType dtype, int64_t elements) {
  return static_cast<double>(size_of(dtype)) * static_cast<double>(elements);
}
double floats(int64_t elements) { return bytes_of(DType::f32, elements); }
double given(const void* pointer) { return pointer != nullptr ? 1. : 0.; }

/// All three passes of a convolution read two of images in, images out and weights, and write the third.
void convolution(CallKind pass, const Conv2d& conv, std::span<const Segment> in, DType weights) {
  int64_t elements = 0;
  double flops = 0;
  for (const Segment& s : in) {
    elements += s.rows() * conv.in_channels + conv.output(s).rows() * conv.out_channels;
    flops += conv.flops(s);
  }
  report({.kind = pass,
          .dtype = conv.dtype,
          .flops = flops,
          .bytes = bytes_of(conv.dtype, elements) + bytes_of(weights, conv.weight_elements()),
          .conv = conv,
          .segments = in});
}

/// `maps` image-sized arrays and so many f32 values a channel.
void batch_norm(CallKind pass, const BatchNorm& spec, std::span<const Segment> segments, bool residual, double maps,
                double vectors) {
  report({.kind = pass,
          .dtype = spec.dtype,
          .bytes = maps * bytes_of(spec.dtype, total_rows(segments) * spec.channels) + vectors * floats(spec.channels),
          .norm = spec,
          .residual = residual,
          .segments = segments});
}

void max_pool(const Conv2d& window, std::span<const Segment> in) {
  double bytes = 0;
  for (const Segment& s : in) {
    const int64_t out = window.output(s).rows();
    bytes += bytes_of(window.dtype, (s.rows() + out) * window.in_channels);
    bytes += static_cast<double>(out * window.in_channels);  // argmax
  }
  moved(bytes, window.dtype);
}

/// `operands` image-sized arrays and one of a value per image and channel for each of `pooled`.
void images(CallKind kind, std::span<const Segment> segments, int64_t channels, DType dtype, double operands,
            double pooled) {
  report({.kind = kind,
          .dtype = dtype,
          .bytes = operands * bytes_of(dtype, total_rows(segments) * channels) +
                   pooled * bytes_of(dtype, total_images(segments) * channels),
          .norm = {.channels = channels, .dtype = dtype},
          .segments = segments});
}

}  // namespace

std::string_view name_of(CallKind kind) {
  static constexpr std::string_view names[kCallKinds] = {"conv_forward",
                                                         "conv_backward_data",
                                                         "conv_backward_weight",
                                                         "matmul",
                                                         "batch_norm_forward",
                                                         "batch_norm_apply",
                                                         "batch_norm_backward",
                                                         "pool_forward",
                                                         "pool_backward",
                                                         "channel_scale_forward",
                                                         "channel_scale_backward_scale",
                                                         "channel_scale_backward_input",
                                                         "sinkhorn",
                                                         "swapped_prediction",
                                                         "elementwise",
                                                         "cast",
                                                         "reduction",
                                                         "sgd",
                                                         "larc",
                                                         "adamw"};
  return names[static_cast<size_t>(kind)];
}

MetaListenScope::MetaListenScope(MetaListener& to) : previous_(std::exchange(listener, &to)) {}
MetaListenScope::~MetaListenScope() { listener = previous_; }

Device MetaBackend::device() const { return Device::meta; }

size_t MetaBackend::conv2d_workspace(const Conv2d& conv, std::span<const Segment> in, ConvPass pass) const {
  return conv2d_workspace_ ? conv2d_workspace_(conv, in, pass) : rehearsed_->conv2d_workspace(conv, in, pass);
}

void MetaBackend::conv2d_forward(const Conv2d& conv, std::span<const Segment> in, const void*, const void*, void*,
                                 void*) {
  convolution(CallKind::conv_forward, conv, in, conv.dtype);
}

void MetaBackend::conv2d_backward_data(const Conv2d& conv, std::span<const Segment> in, const void*, const void*, void*,
                                       void*) {
  convolution(CallKind::conv_backward_data, conv, in, conv.dtype);
}

void MetaBackend::conv2d_backward_weight(const Conv2d& conv, std::span<const Segment> in, const void*, const void*,
                                         float*, void*) {
  convolution(CallKind::conv_backward_weight, conv, in, DType::f32);
}

size_t MetaBackend::matmul_workspace(const MatMul& spec) const { return rehearsed_->matmul_workspace(spec); }

void MetaBackend::matmul(const MatMul& spec, const void*, const void*, const void* bias, void*, void*) {
  const double passes_over_c = spec.beta == 0.f ? 1. : 2.;
  report({.kind = CallKind::matmul,
          .dtype = spec.dtype,
          .flops = spec.flops(),
          .bytes = bytes_of(spec.dtype, spec.m * spec.k + spec.k * spec.n) +
                   passes_over_c * bytes_of(spec.out_dtype, spec.m * spec.n) +
                   given(bias) * bytes_of(spec.out_dtype, spec.n),
          .matmul = spec});
}

size_t MetaBackend::batch_norm_workspace(const BatchNorm& spec, std::span<const Segment> segments) const {
  return rehearsed_->batch_norm_workspace(spec, segments);
}

void MetaBackend::batch_norm_forward(const BatchNorm& spec, std::span<const Segment> segments, const void*,
                                     const void* residual, const float*, const float*, float*, float*,
                                     float* running_mean, float*, void*, void*) {
  batch_norm(CallKind::batch_norm_forward, spec, segments, residual != nullptr, 2 + given(residual),
             2 + 2 * static_cast<double>(segments.size()) + 4 * given(running_mean));
}

void MetaBackend::batch_norm_apply(const BatchNorm& spec, std::span<const Segment> segments, const void*, const float*,
                                   const float*, const float*, const float*, void*) {
  batch_norm(CallKind::batch_norm_apply, spec, segments, false, 2, 2 + 2 * static_cast<double>(segments.size()));
}

void MetaBackend::batch_norm_inference(const BatchNorm& spec, int64_t rows, const void*, const void* residual,
                                       const float*, const float*, const float*, const float*, void*) {
  const Segment all{rows, 1, 1};
  batch_norm(CallKind::batch_norm_apply, spec, {&all, 1}, residual != nullptr, 2 + given(residual), 4);
}

void MetaBackend::batch_norm_backward(const BatchNorm& spec, std::span<const Segment> segments, const void*,
                                      const void* y, const void*, const float*, const float*, const float*,
                                      const float*, void*, void* dresidual, float*, float*, void*) {
  batch_norm(CallKind::batch_norm_backward, spec, segments, dresidual != nullptr, 3 + given(y) + given(dresidual),
             4 + 2 * static_cast<double>(segments.size()));
}

void MetaBackend::global_avg_pool_forward(std::span<const Segment> segments, int64_t channels, DType dtype, const void*,
                                          void*) {
  images(CallKind::pool_forward, segments, channels, dtype, 1, 1);
}

void MetaBackend::global_avg_pool_backward(std::span<const Segment> segments, int64_t channels, DType dtype,
                                           const void*, void*) {
  images(CallKind::pool_backward, segments, channels, dtype, 1, 1);
}

void MetaBackend::channel_scale_forward(std::span<const Segment> segments, int64_t channels, DType dtype, const void*,
                                        const void*, void*) {
  images(CallKind::channel_scale_forward, segments, channels, dtype, 2, 1);
}

void MetaBackend::channel_scale_backward_scale(std::span<const Segment> segments, int64_t channels, DType dtype,
                                               const void*, const void*, void*) {
  images(CallKind::channel_scale_backward_scale, segments, channels, dtype, 2, 1);
}

void MetaBackend::channel_scale_backward_input(std::span<const Segment> segments, int64_t channels, DType dtype,
                                               const void*, const void*, const void* dpooled, void*) {
  images(CallKind::channel_scale_backward_input, segments, channels, dtype, 2, 1 + given(dpooled));
}

void MetaBackend::max_pool_forward(const Conv2d& window, std::span<const Segment> in, const void*, void*, uint8_t*) {
  max_pool(window, in);
}

void MetaBackend::max_pool_backward(const Conv2d& window, std::span<const Segment> in, const void*, const uint8_t*,
                                    void*) {
  max_pool(window, in);
}

void MetaBackend::fill(DType dtype, int64_t n, float, void*) { moved(bytes_of(dtype, n), dtype); }

void MetaBackend::copy(size_t bytes, const void*, void*) { moved(2. * static_cast<double>(bytes), DType::u8); }
void MetaBackend::to_host(size_t, const void*, void*) {}
void MetaBackend::from_host(size_t, const void*, void*) {}

void MetaBackend::cast(DType from, DType to, int64_t n, const void*, void*) {
  moved(bytes_of(from, n) + bytes_of(to, n), from == DType::f32 ? to : from, CallKind::cast);
}

void MetaBackend::add(DType dtype, int64_t n, const void*, const void*, void*) { moved(bytes_of(dtype, 3 * n), dtype); }

void MetaBackend::scale(DType dtype, int64_t n, const void*, float, void*) { moved(bytes_of(dtype, 2 * n), dtype); }

void MetaBackend::scale_by(DType dtype, int64_t n, const void*, const float*, void*) {
  moved(bytes_of(dtype, 2 * n) + floats(1), dtype);
}

void MetaBackend::multiply(DType dtype, int64_t n, const void*, const void*, void*) {
  moved(bytes_of(dtype, 3 * n), dtype);
}

void MetaBackend::relu_forward(DType dtype, int64_t n, const void*, void*) { moved(bytes_of(dtype, 2 * n), dtype); }

void MetaBackend::relu_backward(DType dtype, int64_t n, const void*, const void*, void*) {
  moved(bytes_of(dtype, 3 * n), dtype);
}

void MetaBackend::sigmoid_forward(DType dtype, int64_t n, const void*, void*) { moved(bytes_of(dtype, 2 * n), dtype); }

void MetaBackend::sigmoid_backward(DType dtype, int64_t n, const void*, const void*, void*) {
  moved(bytes_of(dtype, 3 * n), dtype);
}

void MetaBackend::column_sum(DType dtype, int64_t rows, int64_t channels, const void*, float*) {
  moved(bytes_of(dtype, rows * channels) + floats(channels), dtype, CallKind::reduction);
}

void MetaBackend::sum(DType dtype, int64_t n, const void*, float*) {
  moved(bytes_of(dtype, n) + floats(1), dtype, CallKind::reduction);
}

void MetaBackend::l2_normalize_forward(DType dtype, int64_t rows, int64_t channels, float, const void*, void*, float*) {
  moved(bytes_of(dtype, 2 * rows * channels) + floats(rows), dtype);
}

void MetaBackend::l2_normalize_backward(DType dtype, int64_t rows, int64_t channels, float, const void*, const float*,
                                        const void*, void*) {
  moved(bytes_of(dtype, 3 * rows * channels) + floats(rows), dtype);
}

size_t MetaBackend::sinkhorn_workspace(const Sinkhorn& spec) const { return rehearsed_->sinkhorn_workspace(spec); }

void MetaBackend::sinkhorn_potentials(const Sinkhorn& spec, const float*, float*, void*) {
  report({.kind = CallKind::sinkhorn, .bytes = floats((spec.rows + 1) * spec.prototypes), .assignment = spec});
}

void MetaBackend::sinkhorn_assign(const Sinkhorn& spec, const float*, const float*, float*) {
  moved(floats((2 * spec.rows + 1) * spec.prototypes), DType::f32);
}

void MetaBackend::swapped_prediction(const SwappedPrediction& spec, const float*, const float*, float*, float*) {
  report({.kind = CallKind::swapped_prediction,
          .bytes = floats((2 * spec.crops + spec.assigning) * spec.batch * spec.prototypes + 1),
          .swapped_prediction = spec});
}

void MetaBackend::cross_entropy(int64_t rows, int64_t classes, const float*, const int32_t*, float*, float*) {
  moved(floats(rows * (2 * classes + 1) + 1), DType::f32);
}

void MetaBackend::sgd(const Sgd& spec, std::span<const ParameterSlot> slots) {
  double bytes = 0;
  for (const ParameterSlot& s : slots)
    bytes += floats(3 * s.elements) + 2 * given(s.state1) * bytes_of(spec.momentum_dtype, s.elements);
  moved(bytes, spec.momentum_dtype, spec.trust > 0 ? CallKind::larc : CallKind::sgd);
}

void MetaBackend::adamw(const AdamW&, std::span<const ParameterSlot> slots) {
  double bytes = 0;
  for (const ParameterSlot& s : slots) bytes += floats(7 * s.elements);
  moved(bytes, DType::f32, CallKind::adamw);
}

void MetaBackend::unscale(float, std::span<const GradientSlot> slots, float*) {
  double bytes = floats(1);
  for (const GradientSlot& s : slots) bytes += floats(2 * s.elements);
  moved(bytes, DType::f32);
}

void MetaBackend::crops_to_batch(std::span<const Segment> crops, int64_t channels, const uint8_t*, const PixelScale&,
                                 DType dtype, void*) {
  const int64_t n = total_rows(crops) * channels;
  moved(bytes_of(DType::u8, n) + bytes_of(dtype, n), dtype);
}

}  // namespace saccade::kernels
