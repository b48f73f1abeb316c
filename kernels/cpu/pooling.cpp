#include <saccade/kernels/cpu/cpu_backend.h>
#include <saccade/kernels/cpu/isa.h>
#include <saccade/kernels/error.h>

namespace saccade::kernels {

using namespace cpu;

namespace {

const PoolingKernels& table() { return for_this_processor(baseline::pooling, avx2::pooling, avx512::pooling); }

int64_t count(std::span<const Segment> segments) { return static_cast<int64_t>(segments.size()); }

void require_max_pool(const Conv2d& window) {
  require_floating(window.dtype, "max_pool");
  if (window.kernel > 15) {
    throw Error("max_pool: expected a window of at most 15 x 15 (its positions are kept in a byte), got " +
                std::to_string(window.kernel));
  }
  if (2 * window.padding > window.kernel) {
    throw Error(
        "max_pool: expected a padding of at most half the window, so that no window lies outside the image, got " +
        std::to_string(window.padding) + " for a window of " + std::to_string(window.kernel));
  }
}

}  // namespace

void CpuBackend::global_avg_pool_forward(std::span<const Segment> segments, int64_t channels, DType dtype,
                                         const void* x, void* pooled) {
  require_floating(dtype, "global_avg_pool");
  table().average_forward(segments.data(), count(segments), channels, dtype, x, pooled);
}

void CpuBackend::global_avg_pool_backward(std::span<const Segment> segments, int64_t channels, DType dtype,
                                          const void* dpooled, void* dx) {
  require_floating(dtype, "global_avg_pool");
  table().average_backward(segments.data(), count(segments), channels, dtype, dpooled, dx);
}

void CpuBackend::channel_scale_forward(std::span<const Segment> segments, int64_t channels, DType dtype, const void* x,
                                       const void* scale, void* y) {
  require_floating(dtype, "channel_scale");
  table().scale_forward(segments.data(), count(segments), channels, dtype, x, scale, y);
}

void CpuBackend::channel_scale_backward_scale(std::span<const Segment> segments, int64_t channels, DType dtype,
                                              const void* x, const void* dy, void* dscale) {
  require_floating(dtype, "channel_scale");
  table().scale_backward_scale(segments.data(), count(segments), channels, dtype, x, dy, dscale);
}

void CpuBackend::channel_scale_backward_input(std::span<const Segment> segments, int64_t channels, DType dtype,
                                              const void* dy, const void* scale, const void* dpooled, void* dx) {
  require_floating(dtype, "channel_scale");
  table().scale_backward_input(segments.data(), count(segments), channels, dtype, dy, scale, dpooled, dx);
}

void CpuBackend::max_pool_forward(const Conv2d& window, std::span<const Segment> in, const void* x, void* y,
                                  uint8_t* argmax) {
  require_max_pool(window);
  const auto bytes = static_cast<int64_t>(size_of(window.dtype)) * window.in_channels;
  for (const Segment& s : in) {
    const Segment out = window.output(s);
    table().max_forward(window, s, out, x, y, argmax);
    x = static_cast<const char*>(x) + s.rows() * bytes;
    y = static_cast<char*>(y) + out.rows() * bytes;
    argmax += out.rows() * window.in_channels;
  }
}

void CpuBackend::max_pool_backward(const Conv2d& window, std::span<const Segment> in, const void* dy,
                                   const uint8_t* argmax, void* dx) {
  require_max_pool(window);
  const auto bytes = static_cast<int64_t>(size_of(window.dtype)) * window.in_channels;
  for (const Segment& s : in) {
    const Segment out = window.output(s);
    table().max_backward(window, s, out, dy, argmax, dx);
    dx = static_cast<char*>(dx) + s.rows() * bytes;
    dy = static_cast<const char*>(dy) + out.rows() * bytes;
    argmax += out.rows() * window.in_channels;
  }
}

}  // namespace saccade::kernels
