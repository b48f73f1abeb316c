#include <saccade/kernels/cpu/cpu_backend.h>
#include <saccade/kernels/error.h>

#include <type_traits>

namespace saccade::kernels {
namespace {

void write(float value, float& to) { to = value; }
void write(float value, Half& to) { to = Half::from(value); }
void write(float value, BFloat16& to) { to = BFloat16::from(value); }

template <class T>
void numbers(const CropsToBatch& call, T* y) {
  const int64_t pixels = total_rows(call.segments), channels = call.channels;
  const uint8_t* bytes = call.bytes;
  const PixelScale scale = call.scale;
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < pixels; ++i)
    for (int64_t c = 0; c < channels; ++c)
      write(static_cast<float>(bytes[i * channels + c]) * scale.factor[c] + scale.offset[c], y[i * channels + c]);
}

}  // namespace

void CpuBackend::compute(const CropsToBatch& call) {
  cpu::require_floating(call.dtype, call.name);
  if (call.channels < 1 || call.channels > 4)
    throw Error("crops_to_batch: expected 1 to 4 channels, got " + std::to_string(call.channels));
  with_type(call.dtype, [&]<class T>(Type<T>) {
    if constexpr (!std::is_integral_v<T>) numbers(call, static_cast<T*>(call.y));
  });
}

}  // namespace saccade::kernels
