#include <saccade/kernels/meta/meta_backend.h>

// What each call would cost: `moved` sums the operands read once and the results written once. An optional operand
// counts where its pointer is given; rehearsals pass real, if unreadable, addresses or null exactly where a real run
// does not.
namespace saccade::kernels {
namespace {

void moved(double bytes) { meta_cost().bytes_moved += bytes; }

double bytes_of(DType dtype, int64_t elements) {
  return static_cast<double>(size_of(dtype)) * static_cast<double>(elements);
}
double floats(int64_t elements) { return bytes_of(DType::f32, elements); }
double given(const void* pointer) { return pointer != nullptr ? 1. : 0.; }

/// All three passes of a convolution read two of images in, images out and weights, and write the third.
void convolution(const Conv2d& conv, std::span<const Segment> in, DType weights) {
  int64_t elements = 0;
  for (const Segment& s : in) {
    elements += s.rows() * conv.in_channels + conv.output(s).rows() * conv.out_channels;
    meta_cost().flops += conv.flops(s);
  }
  moved(bytes_of(conv.dtype, elements) + bytes_of(weights, conv.weight_elements()));
}

void max_pool(const Conv2d& window, std::span<const Segment> in) {
  for (const Segment& s : in) {
    const int64_t out = window.output(s).rows();
    moved(bytes_of(window.dtype, (s.rows() + out) * window.in_channels));
    moved(static_cast<double>(out * window.in_channels));  // argmax
  }
}

/// `operands` image-sized arrays and one of a value per image and channel for each of `pooled`.
void images(std::span<const Segment> segments, int64_t channels, DType dtype, double operands, double pooled) {
  moved(operands * bytes_of(dtype, total_rows(segments) * channels) +
        pooled * bytes_of(dtype, total_images(segments) * channels));
}

}  // namespace

Device MetaBackend::device() const { return Device::meta; }

size_t MetaBackend::conv2d_workspace(const Conv2d& conv, std::span<const Segment> in, ConvPass pass) const {
  return rehearsed_.conv2d_workspace(conv, in, pass);
}

void MetaBackend::conv2d_forward(const Conv2d& conv, std::span<const Segment> in, const void*, const void*, void*,
                                 void*) {
  convolution(conv, in, conv.dtype);
}

void MetaBackend::conv2d_backward_data(const Conv2d& conv, std::span<const Segment> in, const void*, const void*, void*,
                                       void*) {
  convolution(conv, in, conv.dtype);
}

void MetaBackend::conv2d_backward_weight(const Conv2d& conv, std::span<const Segment> in, const void*, const void*,
                                         float*, void*) {
  convolution(conv, in, DType::f32);
}

size_t MetaBackend::matmul_workspace(const MatMul& spec) const { return rehearsed_.matmul_workspace(spec); }

void MetaBackend::matmul(const MatMul& spec, const void*, const void*, const void* bias, void*, void*) {
  meta_cost().flops += spec.flops();
  const double passes_over_c = spec.beta == 0.f ? 1. : 2.;
  moved(bytes_of(spec.dtype, spec.m * spec.k + spec.k * spec.n) +
        passes_over_c * bytes_of(spec.out_dtype, spec.m * spec.n) + given(bias) * bytes_of(spec.out_dtype, spec.n));
}

size_t MetaBackend::batch_norm_workspace(const BatchNorm& spec, std::span<const Segment> segments) const {
  return rehearsed_.batch_norm_workspace(spec, segments);
}

void MetaBackend::batch_norm_forward(const BatchNorm& spec, std::span<const Segment> segments, const void*,
                                     const void* residual, const float*, const float*, float*, float*,
                                     float* running_mean, float*, void*, void*) {
  const auto count = static_cast<int64_t>(segments.size());
  moved((2 + given(residual)) * bytes_of(spec.dtype, total_rows(segments) * spec.channels));
  moved(floats((2 + 2 * count) * spec.channels) + given(running_mean) * floats(4 * spec.channels));
}

void MetaBackend::batch_norm_apply(const BatchNorm& spec, std::span<const Segment> segments, const void*, const float*,
                                   const float*, const float*, const float*, void*) {
  const auto count = static_cast<int64_t>(segments.size());
  moved(2 * bytes_of(spec.dtype, total_rows(segments) * spec.channels) + floats((2 + 2 * count) * spec.channels));
}

void MetaBackend::batch_norm_inference(const BatchNorm& spec, int64_t rows, const void*, const void* residual,
                                       const float*, const float*, const float*, const float*, void*) {
  moved((2 + given(residual)) * bytes_of(spec.dtype, rows * spec.channels) + floats(4 * spec.channels));
}

void MetaBackend::batch_norm_backward(const BatchNorm& spec, std::span<const Segment> segments, const void*,
                                      const void* y, const void*, const float*, const float*, const float*,
                                      const float*, void*, void* dresidual, float*, float*, void*) {
  const auto count = static_cast<int64_t>(segments.size());
  moved((3 + given(y) + given(dresidual)) * bytes_of(spec.dtype, total_rows(segments) * spec.channels));
  moved(floats((4 + 2 * count) * spec.channels));
}

void MetaBackend::global_avg_pool_forward(std::span<const Segment> segments, int64_t channels, DType dtype, const void*,
                                          void*) {
  images(segments, channels, dtype, 1, 1);
}

void MetaBackend::global_avg_pool_backward(std::span<const Segment> segments, int64_t channels, DType dtype,
                                           const void*, void*) {
  images(segments, channels, dtype, 1, 1);
}

void MetaBackend::channel_scale_forward(std::span<const Segment> segments, int64_t channels, DType dtype, const void*,
                                        const void*, void*) {
  images(segments, channels, dtype, 2, 1);
}

void MetaBackend::channel_scale_backward_scale(std::span<const Segment> segments, int64_t channels, DType dtype,
                                               const void*, const void*, void*) {
  images(segments, channels, dtype, 2, 1);
}

void MetaBackend::channel_scale_backward_input(std::span<const Segment> segments, int64_t channels, DType dtype,
                                               const void*, const void*, const void* dpooled, void*) {
  images(segments, channels, dtype, 2, 1 + given(dpooled));
}

void MetaBackend::max_pool_forward(const Conv2d& window, std::span<const Segment> in, const void*, void*, uint8_t*) {
  max_pool(window, in);
}

void MetaBackend::max_pool_backward(const Conv2d& window, std::span<const Segment> in, const void*, const uint8_t*,
                                    void*) {
  max_pool(window, in);
}

void MetaBackend::fill(DType dtype, int64_t n, float, void*) { moved(bytes_of(dtype, n)); }

void MetaBackend::copy(size_t bytes, const void*, void*) { moved(2. * static_cast<double>(bytes)); }

void MetaBackend::cast(DType from, DType to, int64_t n, const void*, void*) {
  moved(bytes_of(from, n) + bytes_of(to, n));
}

void MetaBackend::add(DType dtype, int64_t n, const void*, const void*, void*) { moved(bytes_of(dtype, 3 * n)); }

void MetaBackend::scale(DType dtype, int64_t n, const void*, float, void*) { moved(bytes_of(dtype, 2 * n)); }

void MetaBackend::scale_by(DType dtype, int64_t n, const void*, const float*, void*) {
  moved(bytes_of(dtype, 2 * n) + floats(1));
}

void MetaBackend::multiply(DType dtype, int64_t n, const void*, const void*, void*) { moved(bytes_of(dtype, 3 * n)); }

void MetaBackend::relu_forward(DType dtype, int64_t n, const void*, void*) { moved(bytes_of(dtype, 2 * n)); }

void MetaBackend::relu_backward(DType dtype, int64_t n, const void*, const void*, void*) {
  moved(bytes_of(dtype, 3 * n));
}

void MetaBackend::sigmoid_forward(DType dtype, int64_t n, const void*, void*) { moved(bytes_of(dtype, 2 * n)); }

void MetaBackend::sigmoid_backward(DType dtype, int64_t n, const void*, const void*, void*) {
  moved(bytes_of(dtype, 3 * n));
}

void MetaBackend::column_sum(DType dtype, int64_t rows, int64_t channels, const void*, float*) {
  moved(bytes_of(dtype, rows * channels) + floats(channels));
}

void MetaBackend::sum(DType dtype, int64_t n, const void*, float*) { moved(bytes_of(dtype, n) + floats(1)); }

void MetaBackend::l2_normalize_forward(DType dtype, int64_t rows, int64_t channels, float, const void*, void*, float*) {
  moved(bytes_of(dtype, 2 * rows * channels) + floats(rows));
}

void MetaBackend::l2_normalize_backward(DType dtype, int64_t rows, int64_t channels, float, const void*, const float*,
                                        const void*, void*) {
  moved(bytes_of(dtype, 3 * rows * channels) + floats(rows));
}

size_t MetaBackend::sinkhorn_workspace(const Sinkhorn& spec) const { return rehearsed_.sinkhorn_workspace(spec); }

void MetaBackend::sinkhorn_potentials(const Sinkhorn& spec, const float*, float*, void*) {
  moved(floats((spec.rows + 1) * spec.prototypes));
}

void MetaBackend::sinkhorn_assign(const Sinkhorn& spec, const float*, const float*, float*) {
  moved(floats((2 * spec.rows + 1) * spec.prototypes));
}

void MetaBackend::swapped_prediction(const SwappedPrediction& spec, const float*, const float*, float*, float*) {
  moved(floats((2 * spec.crops + spec.assigning) * spec.batch * spec.prototypes + 1));
}

void MetaBackend::cross_entropy(int64_t rows, int64_t classes, const float*, const int32_t*, float*, float*) {
  moved(floats(rows * (2 * classes + 1) + 1));
}

void MetaBackend::sgd(const Sgd&, std::span<const ParameterSlot> slots) {
  for (const ParameterSlot& s : slots) moved(floats((3 + 2 * (s.state1 != nullptr)) * s.elements));
}

void MetaBackend::adamw(const AdamW&, std::span<const ParameterSlot> slots) {
  for (const ParameterSlot& s : slots) moved(floats(7 * s.elements));
}

void MetaBackend::unscale(float, std::span<const GradientSlot> slots, float*) {
  for (const GradientSlot& s : slots) moved(floats(2 * s.elements));
  moved(floats(1));
}

}  // namespace saccade::kernels
