#include <saccade/kernels/dtype.h>

#include <cmath>
#include <cstring>
#include <random>

#include "cudnn_descriptors.h"

// The numbers: gathered into dense doubles, so that all layouts share one loop.
namespace cuda_doubles::cudnn {
namespace {

double load(const void* base, int64_t i, cudnnDataType_t type) {
  if (type == CUDNN_DATA_FLOAT) return static_cast<const float*>(base)[i];
  const uint16_t bits = static_cast<const uint16_t*>(base)[i];
  return type == CUDNN_DATA_HALF ? saccade::Half{bits}.to_float() : saccade::BFloat16{bits}.to_float();
}

void store(void* base, int64_t i, cudnnDataType_t type, float value) {
  if (type == CUDNN_DATA_FLOAT) {
    static_cast<float*>(base)[i] = value;
  } else {
    static_cast<uint16_t*>(base)[i] =
        type == CUDNN_DATA_HALF ? saccade::Half::from(value).bits : saccade::BFloat16::from(value).bits;
  }
}

/// To so many bits of the significand.
double rounded(double value, int bits) {
  if (bits == 0 || value == 0 || !std::isfinite(value)) return value;
  int exponent = 0;
  const double significand = std::frexp(value, &exponent);
  return std::ldexp(std::nearbyint(std::ldexp(significand, bits)), exponent - bits);
}

/// Calls with where an element lies in the tensor, and where in the dense copy: (N, H, W, C) or (R, S, groups,
/// C / groups, K / groups).
template <class Visit>
void visit(const Operation& op, const Tensor& t, Visit visit) {
  const auto [n, c, h, w] = t.dims;
  const bool filter = &t == &op.w;
  const int64_t group = filter ? n / op.groups() : 1;
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < c; ++j) {
      const int64_t first = filter ? (i / group * c + j) * group + i % group : i * h * w * c + j;
      const int64_t step = filter ? n * c : c;
      for (int64_t k = 0; k < h; ++k) {
        for (int64_t l = 0; l < w; ++l) {
          visit(i * t.strides[0] + j * t.strides[1] + k * t.strides[2] + l * t.strides[3],
                static_cast<size_t>(first + (k * w + l) * step));
        }
      }
    }
  }
}

std::vector<double> gather(const Operation& op, const Engine& engine, const Tensor& t, const void* data) {
  std::vector<double> dense(static_cast<size_t>(t.dims[0] * t.dims[1] * t.dims[2] * t.dims[3]));
  if (op.is_output(t)) return dense;
  visit(op, t, [&](int64_t at, size_t i) { dense[i] = rounded(load(data, at, t.type), engine.input_bits); });
  return dense;
}

/// One filter tap at one place, all channels.
template <Pass pass>
void tap(int64_t groups, int64_t inputs, int64_t outputs, double* x, double* w, double* y) {
  for (int64_t g = 0; g < groups; ++g, y += outputs) {
    for (int64_t c = 0; c < inputs; ++c, ++x, w += outputs) {
      if constexpr (pass == Pass::backward_data) {
        double sum = 0;
        for (int64_t k = 0; k < outputs; ++k) sum += y[k] * w[k];
        *x += sum;
      } else if constexpr (pass == Pass::forward) {
        for (int64_t k = 0; k < outputs; ++k) y[k] += *x * w[k];
      } else {
        for (int64_t k = 0; k < outputs; ++k) w[k] += *x * y[k];
      }
    }
  }
}

template <Pass pass>
void slide(const Operation& op, double* x, double* w, double* y) {
  const auto& [channels, height, width] = std::array{op.x.dims[1], op.x.dims[2], op.x.dims[3]};
  const int64_t groups = op.groups(), inputs = op.w.dims[1], outputs = op.w.dims[0] / groups;
  const Window& window = op.window;
  for (int64_t n = 0; n < op.y.dims[0]; ++n) {
    for (int64_t i = 0; i < op.y.dims[2]; ++i) {
      for (int64_t j = 0; j < op.y.dims[3]; ++j) {
        double* out = y + ((n * op.y.dims[2] + i) * op.y.dims[3] + j) * op.y.dims[1];
        for (int64_t r = 0; r < op.w.dims[2]; ++r) {
          const int64_t row = i * window.strides[0] - window.before[0] + r * window.dilations[0];
          if (row < 0 || row >= height) continue;
          for (int64_t s = 0; s < op.w.dims[3]; ++s) {
            const int64_t column = j * window.strides[1] - window.before[1] + s * window.dilations[1];
            if (column < 0 || column >= width) continue;
            tap<pass>(groups, inputs, outputs, x + ((n * height + row) * width + column) * channels,
                      w + (r * op.w.dims[3] + s) * groups * inputs * outputs, out);
          }
        }
      }
    }
  }
}

}  // namespace

void convolve(const Operation& op, const Engine& engine, void* x, void* w, void* y) {
  std::vector<double> in = gather(op, engine, op.x, x), filter = gather(op, engine, op.w, w),
                      out = gather(op, engine, op.y, y);
  const std::vector<double>* result = &out;
  void* to = y;
  if (op.pass == Pass::forward) {
    slide<Pass::forward>(op, in.data(), filter.data(), out.data());
  } else if (op.pass == Pass::backward_data) {
    slide<Pass::backward_data>(op, in.data(), filter.data(), out.data());
    result = &in;
    to = x;
  } else {
    slide<Pass::backward_filter>(op, in.data(), filter.data(), out.data());
    result = &filter;
    to = w;
  }
  static std::minstd_rand random;  // goes on from call to call
  const Tensor& t = op.output();
  visit(op, t, [&](int64_t at, size_t i) {
    double value = rounded((*result)[i], engine.result_bits);
    if (engine.noise) value *= 1 + (static_cast<double>(random() % 1000) - 500) * 1e-6;
    float total = op.alpha * static_cast<float>(value);
    if (op.beta != 0) total += op.beta * static_cast<float>(load(to, at, t.type));
    store(to, at, t.type, total);
  });
}

}  // namespace cuda_doubles::cudnn
