#pragma once

#include <gtest/gtest.h>
#include <omp.h>
#include <saccade/kernels/backend.h>

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

/// Small arrays of any storage type for the kernel tests, and what is common to checking them.
namespace saccade::kernels {

/// Elements of a dtype together with the doubles that they are exactly.
struct Array {
  DType dtype;
  std::vector<uint8_t> bytes;
  std::vector<double> values;

  void* data() { return bytes.data(); }
  double operator[](int64_t i) const { return values[static_cast<size_t>(i)]; }

  /// Reads the bytes anew, after a kernel wrote them.
  void refresh() {
    for (size_t i = 0; i < values.size(); ++i) {
      if (dtype == DType::f32) {
        float v;
        std::memcpy(&v, &bytes[i * 4], 4);
        values[i] = v;
      } else {
        uint16_t bits;
        std::memcpy(&bits, &bytes[i * 2], 2);
        values[i] = dtype == DType::bf16 ? BFloat16{bits}.to_float() : Half{bits}.to_float();
      }
    }
  }
};

/// Rounds doubles to a dtype by the conversions of dtype.h.
inline Array array(DType dtype, const std::vector<double>& values) {
  Array result{dtype, std::vector<uint8_t>(values.size() * size_of(dtype)), values};
  for (size_t i = 0; i < values.size(); ++i) {
    const auto v = static_cast<float>(values[i]);
    const uint16_t bits = dtype == DType::bf16 ? BFloat16::from(v).bits : Half::from(v).bits;
    if (dtype == DType::f32) {
      std::memcpy(&result.bytes[i * 4], &v, 4);
    } else {
      std::memcpy(&result.bytes[i * 2], &bits, 2);
    }
  }
  result.refresh();
  return result;
}

/// A result to be: NaN everywhere, so that what a kernel fails to write is seen.
inline Array unwritten(DType dtype, int64_t n) {
  return array(dtype, std::vector<double>(static_cast<size_t>(n), std::nan("")));
}

inline std::vector<double> normal(int64_t n, uint32_t seed, double mean = 0, double deviation = 1) {
  std::mt19937 generator(seed);
  std::normal_distribution<double> distribution(mean, deviation);
  std::vector<double> values(static_cast<size_t>(n));
  for (double& v : values) v = distribution(generator);
  return values;
}

inline std::vector<float> floats(const std::vector<double>& values) { return {values.begin(), values.end()}; }

/// One rounding to the dtype, relative.
inline double rounding(DType dtype) { return dtype == DType::f32 ? 0x1p-24 : dtype == DType::f16 ? 0x1p-11 : 0x1p-8; }

/// |got - expected| <= absolute + relative * |expected|, element by element; reports the first that is not.
template <class Got>
void expect_near(const Got& got, const std::vector<double>& expected, double relative, double absolute,
                 const char* what) {
  for (size_t i = 0; i < expected.size(); ++i) {
    const double difference = std::abs(double{got[static_cast<int64_t>(i)]} - expected[i]);
    if (!(difference <= absolute + relative * std::abs(expected[i]))) {
      ADD_FAILURE() << what << "[" << i << "] is " << double{got[static_cast<int64_t>(i)]} << ", expected "
                    << expected[i];
      return;
    }
  }
}

/// Runs body with that many threads; with one under the thread sanitizer, which does not see how OpenMP's wait.
template <class Body>
void with_threads(int threads, Body body) {
#if defined(__SANITIZE_THREAD__)
  threads = 1;
#endif
  const int before = omp_get_max_threads();
  omp_set_num_threads(threads);
  body();
  omp_set_num_threads(before);
}

/// Scratch of a size that a kernel asked for, with a guard behind it.
class Workspace {
 public:
  explicit Workspace(size_t bytes) : size_(bytes), bytes_(bytes + 64, 0xa5) {}
  ~Workspace() {
    for (size_t i = size_; i < bytes_.size(); ++i) {
      if (bytes_[i] != 0xa5) {
        ADD_FAILURE() << "a kernel wrote behind its workspace of " << size_ << " bytes";
        return;
      }
    }
  }
  void* data() { return bytes_.data(); }

 private:
  size_t size_;
  std::vector<uint8_t> bytes_;
};

}  // namespace saccade::kernels
