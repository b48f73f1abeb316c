#include <saccade/kernels/cpu/cpu_backend.h>
#include <saccade/kernels/cpu/isa.h>
#include <saccade/kernels/error.h>

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

void CpuBackend::run(const CropsToBatch& call) {
  cpu::require_floating(call.dtype, call.name);
  if (call.channels < 1 || call.channels > 4)
    throw Error("crops_to_batch: expected 1 to 4 channels, got " + std::to_string(call.channels));
  if (call.dtype == DType::f32)
    numbers(call, static_cast<float*>(call.y));
  else if (call.dtype == DType::f16)
    numbers(call, static_cast<Half*>(call.y));
  else
    numbers(call, static_cast<BFloat16*>(call.y));
}

}  // namespace saccade::kernels
