#pragma once

#include <saccade/kernels/cuda/launch.h>
#include <support/simt/simt.h>

#include <cstring>

#include "../kernels/arrays.h"
#include "../kernels/in_parts.h"

/// The kernels in the emulator beside the CPU backend: the same arguments, the same results within rounding.
namespace saccade::kernels::cuda {

constexpr DType floating[] = {DType::f32, DType::f16, DType::bf16};
constexpr Stream stream = nullptr;  ///< the emulator runs at once

struct OnCuda {
  void operator()(const auto& call) const { run(stream, call); }
};

inline Backend& cpu() { return backend(Device::cpu); }

/// Two results of one computation in f32, stored in `got.dtype`: sums in another order may round otherwise.
/// @param scale  size of the terms that the results are differences of
inline void expect_same(Array& got, Array& want, const char* what, double scale = 1) {
  got.refresh(), want.refresh();
  const double relative = got.dtype == DType::f32 ? 1e-6 : 2 * rounding(got.dtype);
  expect_near(got, want.values, relative, 2e-6 * scale, what);
}

inline void expect_same(const std::vector<float>& got, const std::vector<float>& want, const char* what,
                        double scale = 1) {
  expect_near(got, {want.begin(), want.end()}, 2e-6, 2e-6 * scale, what);
}

/// The same elements at an address that is no multiple of 16, as a slice of a tensor may have.
class Misaligned {
 public:
  explicit Misaligned(const Array& array)
      : dtype_(array.dtype), bytes_(array.bytes.size() + 16), size_(array.bytes.size()) {
    std::memcpy(data(), array.bytes.data(), size_);
  }
  void* data() { return bytes_.data() + size_of(dtype_); }
  std::vector<uint8_t> bytes() { return {bytes_.begin() + size_of(dtype_), bytes_.begin() + size_of(dtype_) + size_}; }

 private:
  DType dtype_;
  std::vector<uint8_t> bytes_;
  size_t size_;
};

}  // namespace saccade::kernels::cuda
