// Pooling and per-image channel scaling on the CPU against their definitions in doubles.
#include <saccade/kernels/error.h>

#include "arrays.h"

namespace saccade::kernels {
namespace {

constexpr DType floating[] = {DType::f32, DType::f16, DType::bf16};
constexpr int64_t widths[] = {1, 3, 7, 13, 48, 64, 104, 440};

double tolerance(DType dtype) { return dtype == DType::f32 ? 2e-6 : rounding(dtype); }

/// Calls body(row, image, pixels of that image) for all rows.
template <class Body>
void for_rows(const Segments& segments, Body body) {
  int64_t row = 0, image = 0;
  for (const Segment& s : segments) {
    for (int64_t n = 0; n < s.n; ++n, ++image) {
      for (int64_t p = 0; p < s.h * s.w; ++p) body(row++, image, s.h * s.w);
    }
  }
}

TEST(Pooling, GlobalAverageAndItsGradientMatchOverTwoResolutions) {
  const Segments segments = {{2, 5, 7}, {3, 2, 2}};
  for (const DType dtype : floating) {
    for (const int64_t channels : widths) {
      const int64_t rows = total_rows(segments), images = total_images(segments);
      Array x = array(dtype, normal(rows * channels, 1, 0.3)), pooled = unwritten(dtype, images * channels);
      Array dpooled = array(dtype, normal(images * channels, 2)), dx = unwritten(dtype, rows * channels);
      std::vector<double> want(images * channels, 0.), want_dx(rows * channels);
      for_rows(segments, [&](int64_t row, int64_t image, int64_t pixels) {
        for (int64_t c = 0; c < channels; ++c) {
          want[image * channels + c] += x[row * channels + c] / double(pixels);
          want_dx[row * channels + c] = dpooled[image * channels + c] / double(pixels);
        }
      });
      backend(Device::cpu).run(GlobalAvgPool{segments, channels, dtype, x.data(), pooled.data()});
      backend(Device::cpu).run(GlobalAvgPoolGradient{segments, channels, dtype, dpooled.data(), dx.data()});
      pooled.refresh(), dx.refresh();
      expect_near(pooled, want, tolerance(dtype), 1e-6, "pooled");
      expect_near(dx, want_dx, tolerance(dtype), 1e-7, "dx");
    }
  }
}

TEST(Pooling, ChannelScaleAndItsGradientsMatchOverTwoResolutions) {
  const Segments segments = {{2, 5, 7}, {3, 2, 2}};
  for (const DType dtype : floating) {
    for (const int64_t channels : widths) {
      const int64_t rows = total_rows(segments), images = total_images(segments);
      Array x = array(dtype, normal(rows * channels, 1)), scale = array(dtype, normal(images * channels, 2));
      Array dy = array(dtype, normal(rows * channels, 3)), dpooled = array(dtype, normal(images * channels, 4));
      Array y = unwritten(dtype, rows * channels), dscale = unwritten(dtype, images * channels), dx = y;
      std::vector<double> want_y(rows * channels), want_dx = want_y, want_plain = want_y,
                                                   want_dscale(images * channels, 0.);
      for_rows(segments, [&](int64_t row, int64_t image, int64_t pixels) {
        for (int64_t c = 0; c < channels; ++c) {
          const int64_t at = row * channels + c, of = image * channels + c;
          want_y[at] = x[at] * scale[of];
          want_plain[at] = dy[at] * scale[of];
          want_dx[at] = want_plain[at] + dpooled[of] / double(pixels);
          want_dscale[of] += dy[at] * x[at];
        }
      });
      Backend& cpu = backend(Device::cpu);
      cpu.run(ChannelScale{segments, channels, dtype, x.data(), scale.data(), y.data()});
      cpu.run(ChannelScaleFactorGradient{segments, channels, dtype, x.data(), dy.data(), dscale.data()});
      cpu.run(ChannelScaleInputGradient{segments, channels, dtype, dy.data(), scale.data(), nullptr, dx.data()});
      y.refresh(), dscale.refresh(), dx.refresh();
      expect_near(y, want_y, tolerance(dtype), 1e-7, "y");
      expect_near(dscale, want_dscale, tolerance(dtype), 1e-5, "dscale");
      expect_near(dx, want_plain, tolerance(dtype), 1e-7, "dx");
      cpu.run(ChannelScaleInputGradient{segments, channels, dtype, dy.data(), scale.data(), dpooled.data(), dy.data()});
      dy.refresh();
      expect_near(dy, want_dx, tolerance(dtype), 1e-6, "dx over dy");
    }
  }
}

TEST(Pooling, ThreadsDoNotChangeABit) {
  const Segments segments = {{7, 12, 12}, {5, 6, 6}};
  const int64_t channels = 56, rows = total_rows(segments), images = total_images(segments);
  Array x = array(DType::f32, normal(rows * channels, 1)), dy = array(DType::f32, normal(rows * channels, 2));
  Array one = unwritten(DType::f32, images * channels), two = one;
  with_threads(1, [&] {
    backend(Device::cpu)
        .run(ChannelScaleFactorGradient{segments, channels, DType::f32, x.data(), dy.data(), one.data()});
  });
  with_threads(2, [&] {
    backend(Device::cpu)
        .run(ChannelScaleFactorGradient{segments, channels, DType::f32, x.data(), dy.data(), two.data()});
  });
  EXPECT_EQ(one.bytes, two.bytes);
}

struct Window {
  int64_t kernel, stride, padding;
};
class MaxPoolWindows : public testing::TestWithParam<Window> {};

TEST_P(MaxPoolWindows, MatchesItsDefinitionAndRoutesTheGradientToTheMaximum) {
  const Window w = GetParam();
  const Segments segments = {{2, 9, 11}, {1, 5, 5}};
  for (const DType dtype : floating) {
    for (const int64_t channels : {1, 3, 16, 37}) {
      const Conv2d window{channels, channels, w.kernel, w.stride, w.padding, channels, dtype};
      int64_t out_rows = 0;
      for (const Segment& s : segments) out_rows += window.output(s).rows();
      // Below zero throughout: a padding of zeros would win.
      Array x = array(dtype, normal(total_rows(segments) * channels, 1, -9)), y = unwritten(dtype, out_rows * channels);
      Array dy = array(dtype, normal(out_rows * channels, 2)), dx = unwritten(dtype, total_rows(segments) * channels);
      std::vector<double> want, want_dx(x.values.size(), 0.);
      std::vector<uint8_t> argmax(out_rows * channels, 255), want_argmax;
      int64_t first = 0;
      for (const Segment& s : segments) {
        const Segment out = window.output(s);
        for (int64_t i = 0; i < out.rows() * channels; ++i) {
          const int64_t c = i % channels, ox = i / channels % out.w, oy = i / channels / out.w % out.h;
          const int64_t n = i / channels / out.w / out.h;
          double best = -INFINITY;
          int64_t from = -1;
          uint8_t position = 0;
          for (int64_t k = 0; k < w.kernel * w.kernel; ++k) {
            const int64_t iy = oy * w.stride - w.padding + k / w.kernel, ix = ox * w.stride - w.padding + k % w.kernel;
            if (iy < 0 || iy >= s.h || ix < 0 || ix >= s.w) continue;
            const int64_t at = (first + (n * s.h + iy) * s.w + ix) * channels + c;
            if (x[at] > best) best = x[at], from = at, position = static_cast<uint8_t>(k);
          }
          want_dx[from] += dy[static_cast<int64_t>(want.size())];
          want.push_back(best);
          want_argmax.push_back(position);
        }
        first += s.rows();
      }
      backend(Device::cpu).run(MaxPool{window, segments, x.data(), y.data(), argmax.data()});
      backend(Device::cpu).run(MaxPoolGradient{window, segments, dy.data(), argmax.data(), dx.data()});
      y.refresh(), dx.refresh();
      expect_near(y, want, 0, 0, "y");
      EXPECT_EQ(argmax, want_argmax);
      expect_near(dx, want_dx, tolerance(dtype), 1e-6, "dx");
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Windows, MaxPoolWindows,
                         testing::Values(Window{3, 2, 1}, Window{2, 2, 0}, Window{3, 1, 1}, Window{3, 3, 0},
                                         Window{5, 2, 2}),
                         [](const auto& info) {
                           return "k" + std::to_string(info.param.kernel) + "s" + std::to_string(info.param.stride) +
                                  "p" + std::to_string(info.param.padding);
                         });

TEST(Pooling, AWindowThatCannotBeIsRefusedByEveryDevice) {
  const Segments segments = {{1, 40, 40}};
  for (const Device device : {Device::cpu, Device::meta})
    for (const auto& [kernel, padding] : {std::pair{17, 0}, {2, 2}, {3, 2}, {0, 0}}) {
      const Conv2d window{1, 1, kernel, 1, padding, 1, DType::f32};
      EXPECT_THROW(backend(device).run(MaxPool{window, segments}), Error) << kernel << ", " << padding;
      EXPECT_THROW(backend(device).run(MaxPoolGradient{window, segments}), Error) << kernel << ", " << padding;
    }
}

}  // namespace
}  // namespace saccade::kernels
