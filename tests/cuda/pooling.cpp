// Pooling and channel scaling in the emulator against the CPU backend.
#include <saccade/kernels/error.h>

#include "compare.h"

namespace saccade::kernels::cuda {
namespace {

constexpr int64_t channel_counts[] = {1, 3, 13, 48, 104, 440, 746, 1492, 4103};
const Segments segments = {{2, 5, 7}, {3, 2, 2}};

TEST(CudaPooling, AveragesAndTheirGradientsEqualTheCpu) {
  for (const DType dtype : floating) {
    for (const int64_t channels : channel_counts) {
      const int64_t rows = total_rows(segments), images = total_images(segments);
      Array x = array(dtype, normal(rows * channels, 1, 0.3)), dpooled = array(dtype, normal(images * channels, 2));
      Array want = unwritten(dtype, images * channels), got = want, want_dx = unwritten(dtype, rows * channels),
            dx = want_dx;
      cpu().run(GlobalAvgPool{segments, channels, dtype, x.data(), want.data()});
      run(stream, GlobalAvgPool{segments, channels, dtype, x.data(), got.data()});
      expect_same(got, want, "pooled");
      cpu().run(GlobalAvgPoolGradient{segments, channels, dtype, dpooled.data(), want_dx.data()});
      run(stream, GlobalAvgPoolGradient{segments, channels, dtype, dpooled.data(), dx.data()});
      expect_same(dx, want_dx, "dx");
    }
  }
}

TEST(CudaPooling, ChannelScaleAndItsGradientsEqualTheCpu) {
  for (const DType dtype : floating) {
    for (const int64_t channels : channel_counts) {
      const int64_t rows = total_rows(segments), images = total_images(segments);
      Array x = array(dtype, normal(rows * channels, 1)), scale = array(dtype, normal(images * channels, 2));
      Array dy = array(dtype, normal(rows * channels, 3)), dpooled = array(dtype, normal(images * channels, 4));
      Array want = unwritten(dtype, rows * channels), got = want;
      cpu().run(ChannelScale{segments, channels, dtype, x.data(), scale.data(), want.data()});
      run(stream, ChannelScale{segments, channels, dtype, x.data(), scale.data(), got.data()});
      expect_same(got, want, "y");
      Array want_scale = unwritten(dtype, images * channels), got_scale = want_scale;
      cpu().run(ChannelScaleFactorGradient{segments, channels, dtype, x.data(), dy.data(), want_scale.data()});
      run(stream, ChannelScaleFactorGradient{segments, channels, dtype, x.data(), dy.data(), got_scale.data()});
      expect_same(got_scale, want_scale, "dscale", 10);
      for (void* added : {static_cast<void*>(nullptr), dpooled.data()}) {
        cpu().run(ChannelScaleInputGradient{segments, channels, dtype, dy.data(), scale.data(), added, want.data()});
        run(stream, ChannelScaleInputGradient{segments, channels, dtype, dy.data(), scale.data(), added, got.data()});
        expect_same(got, want, "dx", 2);
      }
      run(stream,
          ChannelScaleInputGradient{segments, channels, dtype, dy.data(), scale.data(), dpooled.data(), dy.data()});
      EXPECT_EQ(dy.bytes, got.bytes) << "dx over dy";
    }
  }
}

TEST(CudaPooling, SlicesThatBeginAnywhereGiveTheSameBits) {
  for (const DType dtype : floating) {
    const int64_t channels = 40, rows = total_rows(segments), images = total_images(segments);
    Array x = array(dtype, normal(rows * channels, 1)), scale = array(dtype, normal(images * channels, 2));
    Array y = unwritten(dtype, rows * channels), pooled = unwritten(dtype, images * channels);
    Misaligned its_x(x), its_y(y), its_pooled(pooled);
    run(stream, ChannelScale{segments, channels, dtype, x.data(), scale.data(), y.data()});
    run(stream, ChannelScale{segments, channels, dtype, its_x.data(), scale.data(), its_y.data()});
    EXPECT_EQ(its_y.bytes(), y.bytes);
    run(stream, GlobalAvgPool{segments, channels, dtype, x.data(), pooled.data()});
    run(stream, GlobalAvgPool{segments, channels, dtype, its_x.data(), its_pooled.data()});
    EXPECT_EQ(its_pooled.bytes(), pooled.bytes);
  }
}

TEST(CudaPooling, MaxPoolEqualsTheCpu) {
  const Segments in = {{2, 9, 11}, {1, 5, 5}};
  for (const auto& [kernel, stride, padding] : {std::tuple{3, 2, 1}, {2, 2, 0}, {3, 1, 1}, {3, 3, 0}, {5, 2, 2}}) {
    for (const DType dtype : floating) {
      for (const int64_t channels : {1, 16, 37, 64}) {
        const Conv2d window{channels, channels, kernel, stride, padding, channels, dtype};
        int64_t out_rows = 0;
        for (const Segment& s : in) out_rows += window.output(s).rows();
        Array x = array(dtype, normal(total_rows(in) * channels, 1, -9)), want = unwritten(dtype, out_rows * channels);
        Array dy = array(dtype, normal(out_rows * channels, 2)), want_dx = unwritten(dtype, total_rows(in) * channels);
        Array got = want, dx = want_dx;
        std::vector<uint8_t> want_argmax(static_cast<size_t>(out_rows * channels), 255), argmax = want_argmax;
        cpu().run(MaxPool{window, in, x.data(), want.data(), want_argmax.data()});
        run(stream, MaxPool{window, in, x.data(), got.data(), argmax.data()});
        EXPECT_EQ(got.bytes, want.bytes);
        EXPECT_EQ(argmax, want_argmax);
        cpu().run(MaxPoolGradient{window, in, dy.data(), argmax.data(), want_dx.data()});
        run(stream, MaxPoolGradient{window, in, dy.data(), argmax.data(), dx.data()});
        expect_same(dx, want_dx, "dx", 4);
      }
    }
  }
}

TEST(CudaPooling, WhatCannotBeIsRefused) {
  const Segments large = {{1, 40, 40}};
  EXPECT_THROW(run(stream, MaxPool{{{1, 1, 17, 1, 0, 1, DType::f32}, large}}), Error);
  EXPECT_THROW(run(stream, MaxPool{{{1, 1, 3, 1, 2, 1, DType::f32}, large}}), Error);
  EXPECT_THROW(run(stream, MaxPool{{{1, 1, 2, 1, 0, 1, DType::i32}, large}}), Error);
  const Segments many(17, Segment{1, 1, 1});
  EXPECT_THROW(run(stream, GlobalAvgPool{many, 4, DType::f32, nullptr, nullptr}), Error);
}

}  // namespace
}  // namespace saccade::kernels::cuda
