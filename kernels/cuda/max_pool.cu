// Max pooling. Windows overlap: forward reads a pixel once for each window that holds it (9/4 times for 3 x 3, stride
// 2), mostly from the caches, since neighbours run side by side; backward gathers, so that no two threads write one
// place, and reads dy and argmax likewise. Used by the stems of ResNets (64 channels), where every vector is whole;
// other numbers of channels go element by element.

#include <saccade/kernels/cuda/vectors.h>
#include <saccade/kernels/segments.h>

namespace saccade::kernels::cuda {
namespace {

constexpr int threads = 256;

/// Sides of one segment and of what comes of it.
struct Window {
  int kernel, stride, padding;
  int height, width, out_height, out_width;
  int64_t channels;
};

template <class T, int V>
SACCADE_KERNEL(threads)
max_pool(Window w, int64_t vectors, const T* x, T* y, uint8_t* argmax) {
  const int64_t index = block_x() * threads + thread_x();
  if (index >= vectors) return;
  const int64_t each = w.channels / V, c = index % each * V, pixel = index / each;
  const int ox = static_cast<int>(pixel % w.out_width), oy = static_cast<int>(pixel / w.out_width % w.out_height);
  const int64_t image = pixel / w.out_width / w.out_height;
  const int top = oy * w.stride - w.padding, left = ox * w.stride - w.padding;
  Floats<V> best{};
  Vec<uint8_t, V> where{};
  bool first = true;
  for (int ky = 0; ky < w.kernel; ++ky) {
    for (int kx = 0; kx < w.kernel; ++kx) {
      const int iy = top + ky, ix = left + kx;
      if (iy < 0 || iy >= w.height || ix < 0 || ix >= w.width) continue;
      const T* from = x + ((image * w.height + iy) * w.width + ix) * w.channels + c;
      const Floats<V> v = widen(load(reinterpret_cast<const Vec<T, V>*>(from)));
      SACCADE_UNROLL
      for (int j = 0; j < V; ++j) {
        if (first || v.at[j] > best.at[j] || v.at[j] != v.at[j]) {  // NaN is passed on
          best.at[j] = v.at[j];
          where.at[j] = static_cast<uint8_t>(ky * w.kernel + kx);
        }
      }
      first = false;
    }
  }
  store(reinterpret_cast<Vec<T, V>*>(y + pixel * w.channels + c), narrow<T>(best));
  store(reinterpret_cast<Vec<uint8_t, V>*>(argmax + pixel * w.channels + c), where);
}

template <class T, int V>
SACCADE_KERNEL(threads)
max_pool_gradient(Window w, int64_t vectors, const T* dy, const uint8_t* argmax, T* dx) {
  const int64_t index = block_x() * threads + thread_x();
  if (index >= vectors) return;
  const int64_t each = w.channels / V, c = index % each * V, pixel = index / each;
  const int x = static_cast<int>(pixel % w.width) + w.padding;
  const int y = static_cast<int>(pixel / w.width % w.height) + w.padding;
  const int64_t image = pixel / w.width / w.height;
  const int first_oy = y < w.kernel ? 0 : (y - w.kernel) / w.stride + 1;
  const int first_ox = x < w.kernel ? 0 : (x - w.kernel) / w.stride + 1;
  Floats<V> sum{};
  for (int oy = first_oy; oy < w.out_height && oy * w.stride <= y; ++oy) {
    for (int ox = first_ox; ox < w.out_width && ox * w.stride <= x; ++ox) {
      const int64_t at = ((image * w.out_height + oy) * w.out_width + ox) * w.channels + c;
      const int here = (y - oy * w.stride) * w.kernel + x - ox * w.stride;
      const Vec<uint8_t, V> where = load(reinterpret_cast<const Vec<uint8_t, V>*>(argmax + at));
      const Floats<V> v = widen(load(reinterpret_cast<const Vec<T, V>*>(dy + at)));
      SACCADE_UNROLL
      for (int j = 0; j < V; ++j) sum.at[j] += where.at[j] == here ? v.at[j] : 0.f;
    }
  }
  store(reinterpret_cast<Vec<T, V>*>(dx + pixel * w.channels + c), narrow<T>(sum));
}

/// Calls body<T, V>(Window, segment, its output, elements of the input before it, elements of the output before it) for
/// each segment, V elements at once where `in` and `out` allow it.
template <class Call, class Body>
void for_segments(const Call& c, const void* in, const void* out, Body body) {
  if (const std::string refusal = c.refusal(); !refusal.empty()) throw Error(refusal);
  const Conv2d& window = c.window;
  with_storage(window.dtype, "max_pool", [&]<class T>(Type<T>) {
    constexpr int V = vector_of<T>;
    const bool in_vectors =
        window.in_channels % V == 0 && aligned(in, out) && reinterpret_cast<uintptr_t>(c.argmax) % 8 == 0;
    int64_t in_before = 0, out_before = 0;
    for (const Segment& s : c.segments) {
      const Segment o = window.output(s);
      const Window w{static_cast<int>(window.kernel),
                     static_cast<int>(window.stride),
                     static_cast<int>(window.padding),
                     static_cast<int>(s.h),
                     static_cast<int>(s.w),
                     static_cast<int>(o.h),
                     static_cast<int>(o.w),
                     window.in_channels};
      if (s.rows() > 0)
        in_vectors ? body.template operator()<T, V>(w, s, o, in_before, out_before)
                   : body.template operator()<T, 1>(w, s, o, in_before, out_before);
      in_before += s.rows() * window.in_channels;
      out_before += o.rows() * window.in_channels;
    }
  });
}

}  // namespace

void run(Stream stream, const MaxPool& c) {
  for_segments(
      c, c.x, c.y,
      [&]<class T, int V>(const Window& w, const Segment&, const Segment& out, int64_t in_before, int64_t out_before) {
        const int64_t vectors = out.rows() * w.channels / V;
        launch<max_pool<T, V>>(stream, {blocks(divide_up(vectors, threads))}, {threads}, 0, w, vectors,
                               static_cast<const T*>(c.x) + in_before, static_cast<T*>(c.y) + out_before,
                               c.argmax + out_before);
      });
}

void run(Stream stream, const MaxPoolGradient& c) {
  for_segments(
      c, c.dx, c.dy,
      [&]<class T, int V>(const Window& w, const Segment& s, const Segment&, int64_t in_before, int64_t out_before) {
        const int64_t vectors = s.rows() * w.channels / V;
        launch<max_pool_gradient<T, V>>(stream, {blocks(divide_up(vectors, threads))}, {threads}, 0, w, vectors,
                                        static_cast<const T*>(c.dy) + out_before, c.argmax + out_before,
                                        static_cast<T*>(c.dx) + in_before);
      });
}

}  // namespace saccade::kernels::cuda
