#include <saccade/kernels/cpu/cpu_backend.h>
#include <saccade/kernels/cpu/isa.h>
#include <saccade/kernels/error.h>

namespace saccade::kernels {
namespace {

void write(float value, float& to) { to = value; }
void write(float value, Half& to) { to = Half::from(value); }
void write(float value, BFloat16& to) { to = BFloat16::from(value); }

template <class T>
void numbers(int64_t pixels, int64_t channels, const uint8_t* bytes, const PixelScale& scale, T* y) {
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < pixels; ++i)
    for (int64_t c = 0; c < channels; ++c)
      write(static_cast<float>(bytes[i * channels + c]) * scale.factor[c] + scale.offset[c], y[i * channels + c]);
}

}  // namespace

void CpuBackend::crops_to_batch(std::span<const Segment> crops, int64_t channels, const uint8_t* bytes,
                                const PixelScale& scale, DType dtype, void* y) {
  cpu::require_floating(dtype, "crops_to_batch");
  if (channels < 1 || channels > 4)
    throw Error("crops_to_batch: expected 1 to 4 channels, got " + std::to_string(channels));
  const int64_t pixels = total_rows(crops);
  if (dtype == DType::f32)
    numbers(pixels, channels, bytes, scale, static_cast<float*>(y));
  else if (dtype == DType::f16)
    numbers(pixels, channels, bytes, scale, static_cast<Half*>(y));
  else
    numbers(pixels, channels, bytes, scale, static_cast<BFloat16*>(y));
}

}  // namespace saccade::kernels
