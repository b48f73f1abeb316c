#include <saccade/kernels/cpu/simd/vector.h>
#include <saccade/kernels/pooling.h>

// Global average pooling, per-image channel scaling (squeeze-excite) and max pooling. All are maps over images, which
// are independent of each other and shared out among the threads.
namespace saccade::kernels::cpu::SACCADE_ISA {
namespace {

struct Image {
  int64_t row, pixels;
};

Image locate(const Segment* segments, int64_t index) {
  int64_t row = 0;
  for (;; ++segments) {
    const int64_t pixels = segments->h * segments->w;
    if (index < segments->n) return {row + index * pixels, pixels};
    index -= segments->n;
    row += segments->n * pixels;
  }
}

/// Calls body(T{}, image, first row, pixels) for all images, on all threads where there is enough to do; T is the
/// storage type.
template <class Body>
SACCADE_INLINE void for_images(const OnImages& on, const Segment* segments, int64_t count, Body body) {
  const int64_t channels = on.channels;
  int64_t images = 0, rows = 0;
  for (int64_t s = 0; s < count; ++s) images += segments[s].n, rows += segments[s].n * segments[s].h * segments[s].w;
  with_storage(on.dtype, [=](auto type) {
#pragma omp parallel for schedule(static) if (rows * channels > 16384)
    for (int64_t i = 0; i < images; ++i) {
      const Image image = locate(segments, i);
      body(type, i, image.row, image.pixels);
    }
  });
}

/// Sums of term(element, lanes) over the pixels of an image, for each channel. Rows are walked whole and four at a
/// time, so that memory is read in order and each running sum is loaded once for four terms.
template <class Term, class Write>
SACCADE_INLINE void sum_pixels(int64_t pixels, int64_t channels, Term term, Write write) {
  constexpr int64_t most = 512;
  float sums[most];
  for (int64_t first = 0; first < channels; first += most) {
    const int64_t count = channels - first < most ? channels - first : most;
    for (int64_t c = 0; c < count; c += width) store(sums + c, F{});
    int64_t p = 0;
    for (; p + 4 <= pixels; p += 4) {
      for_vectors(count, [&](int64_t c, auto lanes) {
        const int64_t at = p * channels + first + c;
        const F two = term(at, lanes) + term(at + channels, lanes);
        store(sums + c, load(sums + c) + (two + (term(at + 2 * channels, lanes) + term(at + 3 * channels, lanes))));
      });
    }
    for (; p < pixels; ++p) {
      for_vectors(count, [&](int64_t c, auto lanes) {
        store(sums + c, load(sums + c) + term(p * channels + first + c, lanes));
      });
    }
    for_vectors(count, [&](int64_t c, auto lanes) { write(first + c, load(sums + c), lanes); });
  }
}

void run(const GlobalAvgPool& call, const Segment* segments, int64_t count) {
  const auto body = [channels = call.channels, x = call.x, pooled = call.pooled]<class T>(T, int64_t image, int64_t row,
                                                                                          int64_t pixels) {
    const T* from = static_cast<const T*>(x) + row * channels;
    T* to = static_cast<T*>(pooled) + image * channels;
    const float factor = 1.f / static_cast<float>(pixels);
    sum_pixels(
        pixels, channels, [=](int64_t at, auto lanes) { return load(from + at, lanes); },
        [=](int64_t c, F sum, auto lanes) { store(to + c, sum * factor, lanes); });
  };
  for_images(call, segments, count, body);
}

void run(const GlobalAvgPoolGradient& call, const Segment* segments, int64_t count) {
  const auto body = [channels = call.channels, dpooled = call.dpooled, dx = call.dx]<class T>(
                        T, int64_t image, int64_t row, int64_t pixels) {
    const T* from = static_cast<const T*>(dpooled) + image * channels;
    T* to = static_cast<T*>(dx) + row * channels;
    const float factor = 1.f / static_cast<float>(pixels);
    for (int64_t p = 0; p < pixels; ++p) {
      for_vectors(channels,
                  [=](int64_t c, auto lanes) { store(to + p * channels + c, load(from + c, lanes) * factor, lanes); });
    }
  };
  for_images(call, segments, count, body);
}

void run(const ChannelScale& call, const Segment* segments, int64_t count) {
  const auto body = [channels = call.channels, x = call.x, scale = call.scale, y = call.y]<class T>(
                        T, int64_t image, int64_t row, int64_t pixels) {
    const T* factors = static_cast<const T*>(scale) + image * channels;
    const T* from = static_cast<const T*>(x) + row * channels;
    T* to = static_cast<T*>(y) + row * channels;
    for (int64_t p = 0; p < pixels; ++p) {
      for_vectors(channels, [=](int64_t c, auto lanes) {
        store(to + p * channels + c, load(from + p * channels + c, lanes) * load(factors + c, lanes), lanes);
      });
    }
  };
  for_images(call, segments, count, body);
}

void run(const ChannelScaleFactorGradient& call, const Segment* segments, int64_t count) {
  const auto body = [channels = call.channels, x = call.x, dy = call.dy, dscale = call.dscale]<class T>(
                        T, int64_t image, int64_t row, int64_t pixels) {
    const T *value = static_cast<const T*>(x) + row * channels, *gradient = static_cast<const T*>(dy) + row * channels;
    T* to = static_cast<T*>(dscale) + image * channels;
    sum_pixels(
        pixels, channels, [=](int64_t at, auto lanes) { return load(value + at, lanes) * load(gradient + at, lanes); },
        [=](int64_t c, F sum, auto lanes) { store(to + c, sum, lanes); });
  };
  for_images(call, segments, count, body);
}

void run(const ChannelScaleInputGradient& call, const Segment* segments, int64_t count) {
  const auto body = [channels = call.channels, dy = call.dy, scale = call.scale, dpooled = call.dpooled,
                     dx = call.dx]<class T>(T, int64_t image, int64_t row, int64_t pixels) {
    const T* factors = static_cast<const T*>(scale) + image * channels;
    const T* pooled = dpooled == nullptr ? nullptr : static_cast<const T*>(dpooled) + image * channels;
    const T* from = static_cast<const T*>(dy) + row * channels;
    T* to = static_cast<T*>(dx) + row * channels;
    const float share = 1.f / static_cast<float>(pixels);
    for (int64_t p = 0; p < pixels; ++p) {
      for_vectors(channels, [=](int64_t c, auto lanes) {
        F v = load(from + p * channels + c, lanes) * load(factors + c, lanes);
        if (pooled != nullptr) v += load(pooled + c, lanes) * share;
        store(to + p * channels + c, v, lanes);
      });
    }
  };
  for_images(call, segments, count, body);
}

SACCADE_INLINE void store_bytes(uint8_t* p, I value, Full) {
  const U8 bytes = __builtin_convertvector(value, U8);
  __builtin_memcpy(p, &bytes, sizeof bytes);
}
SACCADE_INLINE void store_bytes(uint8_t* p, I value, Part part) {
  for (int i = 0; i < part.n; ++i) p[i] = static_cast<uint8_t>(value[i]);
}
SACCADE_INLINE I load_bytes(const uint8_t* p, Full) {
  U8 bytes;
  __builtin_memcpy(&bytes, p, sizeof bytes);
  return __builtin_convertvector(bytes, I);
}
SACCADE_INLINE I load_bytes(const uint8_t* p, Part part) {
  I value = {};
  for (int i = 0; i < part.n; ++i) value[i] = p[i];
  return value;
}

/// One segment `in`, whose output is `out`, with so many elements of each before it.
void run(const MaxPool& call, Segment in, Segment out, int64_t in_before, int64_t out_before) {
  const Conv2d& window = call.window;
  const int64_t channels = window.in_channels, kernel = window.kernel, stride = window.stride, pad = window.padding;
  const int64_t height = in.h, wide = in.w, out_height = out.h, out_wide = out.w;
  uint8_t* const argmax = call.argmax + out_before;
  with_storage(window.dtype, [=, x = call.x, y = call.y](auto type) {
    using T = decltype(type);
    const int64_t lines = out.n * out_height;
#pragma omp parallel for schedule(static) if (lines * out_wide * channels > 4096)
    for (int64_t line = 0; line < lines; ++line) {
      const T* image = static_cast<const T*>(x) + in_before + line / out_height * height * wide * channels;
      const int64_t top = line % out_height * stride - pad;
      const int64_t ky_begin = top < 0 ? -top : 0, ky_end = top + kernel > height ? height - top : kernel;
      for (int64_t ox = 0; ox < out_wide; ++ox) {
        const int64_t left = ox * stride - pad;
        const int64_t kx_begin = left < 0 ? -left : 0, kx_end = left + kernel > wide ? wide - left : kernel;
        const int64_t to = (line * out_wide + ox) * channels;
        for_vectors(channels, [=](int64_t c, auto lanes) {
          F best = load(image + ((top + ky_begin) * wide + left + kx_begin) * channels + c, lanes);
          I where = I{} + static_cast<int32_t>(ky_begin * kernel + kx_begin);
          for (int64_t ky = ky_begin; ky < ky_end; ++ky) {
            for (int64_t kx = kx_begin; kx < kx_end; ++kx) {
              const F v = load(image + ((top + ky) * wide + left + kx) * channels + c, lanes);
              const I better = (v > best) | (v != v);  // NaN is passed on
              best = better ? v : best;
              where = better ? I{} + static_cast<int32_t>(ky * kernel + kx) : where;
            }
          }
          store(static_cast<T*>(y) + out_before + to + c, best, lanes);
          store_bytes(argmax + to + c, where, lanes);
        });
      }
    }
  });
}

/// Each input pixel gathers from the windows that hold it: no two threads write the same place.
void run(const MaxPoolGradient& call, Segment in, Segment out, int64_t in_before, int64_t out_before) {
  const Conv2d& window = call.window;
  const int64_t channels = window.in_channels, kernel = window.kernel, stride = window.stride, pad = window.padding;
  const int64_t height = in.h, wide = in.w, out_height = out.h, out_wide = out.w;
  const uint8_t* const argmax = call.argmax + out_before;
  with_storage(window.dtype, [=, gradient = call.dy, dx = call.dx](auto type) {
    using T = decltype(type);
    const T* const dy = static_cast<const T*>(gradient) + out_before;
    const int64_t lines = in.n * height;
#pragma omp parallel for schedule(static) if (lines * wide * channels > 4096)
    for (int64_t line = 0; line < lines; ++line) {
      const int64_t image = line / height, y = line % height + pad;
      const int64_t oy_begin = y < kernel ? 0 : (y - kernel) / stride + 1;
      const int64_t oy_end = y / stride < out_height ? y / stride + 1 : out_height;
      for (int64_t ix = 0; ix < wide; ++ix) {
        const int64_t x = ix + pad;
        const int64_t ox_begin = x < kernel ? 0 : (x - kernel) / stride + 1;
        const int64_t ox_end = x / stride < out_wide ? x / stride + 1 : out_wide;
        for_vectors(channels, [=](int64_t c, auto lanes) {
          F sum = {};
          for (int64_t oy = oy_begin; oy < oy_end; ++oy) {
            for (int64_t ox = ox_begin; ox < ox_end; ++ox) {
              const int64_t from = ((image * out_height + oy) * out_wide + ox) * channels + c;
              const int32_t here = static_cast<int32_t>((y - oy * stride) * kernel + x - ox * stride);
              sum += load_bytes(argmax + from, lanes) == here ? load(dy + from, lanes) : F{};
            }
          }
          store(static_cast<T*>(dx) + in_before + (line * wide + ix) * channels + c, sum, lanes);
        });
      }
    }
  });
}

}  // namespace

template <class Call, class... With>
void compute(const Call& call, With... with) {
  run(call, with...);
}
template void compute(const GlobalAvgPool&, const Segment*, int64_t);
template void compute(const GlobalAvgPoolGradient&, const Segment*, int64_t);
template void compute(const ChannelScale&, const Segment*, int64_t);
template void compute(const ChannelScaleFactorGradient&, const Segment*, int64_t);
template void compute(const ChannelScaleInputGradient&, const Segment*, int64_t);
template void compute(const MaxPool&, Segment, Segment, int64_t, int64_t);
template void compute(const MaxPoolGradient&, Segment, Segment, int64_t, int64_t);

}  // namespace saccade::kernels::cpu::SACCADE_ISA
