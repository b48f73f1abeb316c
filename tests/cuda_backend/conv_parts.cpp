// Convolutions whose plans would take too much workspace, in parts of fewer images.
#include <gtest/gtest.h>
#include <saccade/core/tensor.h>
#include <saccade/kernels/cuda/conv_cudnn.h>
#include <saccade/kernels/cuda/runtime.h>

#include <vector>

#include "device_under_test.h"

namespace saccade::testing {
namespace {

using kernels::Conv2d;
using kernels::ConvPass;
using kernels::cuda::CudnnConvolutions;

Tensor filled(Shape shape, DType dtype, uint64_t seed) {
  std::vector<float> values(static_cast<size_t>(Tensor::empty(shape).numel()));
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>((i * 37 + seed * 11) % 64) / 32.f - 1.f;
  return Tensor::from(values, shape).to(dtype).to(Device::cuda);
}

struct Result {
  Tensor y, dx, dw;  ///< on the CPU, f32
  size_t parts = 0;
};

Result run(CudnnConvolutions& convolutions, const Conv2d& conv, const Segments& in) {
  const DeviceScope scope(Device::cuda);
  Segments out;
  for (const Segment& s : in) out.push_back(conv.output(s));
  const Shape images{total_rows(in), conv.in_channels}, outputs{total_rows(out), conv.out_channels},
      weights{conv.out_channels, conv.weight_elements() / conv.out_channels};
  const Tensor x = filled(images, conv.dtype, 1), w = filled(weights, conv.dtype, 2),
               dy = filled(outputs, conv.dtype, 3);
  Tensor y = Tensor::empty(outputs, conv.dtype), dx = Tensor::empty(images, conv.dtype), dw = Tensor::empty(weights);
  const auto workspace = [&](ConvPass pass) {
    return Tensor::empty({static_cast<int64_t>(convolutions.workspace(conv, in, pass)) + 256}, DType::u8);
  };
  const auto aligned = [](const Tensor& t) {
    return reinterpret_cast<void*>((reinterpret_cast<uintptr_t>(t.raw()) + 255) / 256 * 256);
  };
  const Tensor a = workspace(ConvPass::forward), b = workspace(ConvPass::backward_data),
               c = workspace(ConvPass::backward_weight);
  convolutions.forward(conv, in, x.raw(), w.raw(), y.raw(), aligned(a));
  convolutions.backward_data(conv, in, dy.raw(), w.raw(), dx.raw(), aligned(b));
  convolutions.backward_weight(conv, in, x.raw(), dy.raw(), static_cast<float*>(dw.raw()), aligned(c));
  const auto here = [](const Tensor& t) { return t.to(Device::cpu).to(DType::f32); };
  return {here(y), here(dx), here(dw), convolutions.parts(conv, in, ConvPass::backward_weight).size()};
}

class ConvParts : public ::testing::TestWithParam<DType> {};

TEST_P(ConvParts, GiveWhatTheWholeGives) {
  kernels::cuda::Runtime& runtime = kernels::cuda::runtime();
  const Conv2d conv{
      .in_channels = 6, .out_channels = 10, .kernel = 3, .stride = 2, .padding = 1, .groups = 2, .dtype = GetParam()};
  const Segments in{{21, 8, 8}, {5, 4, 4}};
  CudnnConvolutions whole(runtime.cudnn, runtime.compute.get());
  CudnnConvolutions cut(runtime.cudnn, runtime.compute.get(), whole.workspace(conv, {{{8, 8, 8}}}, ConvPass::forward));
  const Result expected = run(whole, conv, in), got = run(cut, conv, in);
  EXPECT_EQ(expected.parts, 2u);
  EXPECT_GT(got.parts, 3u);
  for (int64_t i = 0; i < expected.y.numel(); ++i) ASSERT_EQ(got.y.data<float>()[i], expected.y.data<float>()[i]) << i;
  for (int64_t i = 0; i < expected.dx.numel(); ++i)
    ASSERT_EQ(got.dx.data<float>()[i], expected.dx.data<float>()[i]) << i;
  // Rounded to the type once a part.
  const double rounding = GetParam() == DType::f32 ? 1e-5 : GetParam() == DType::f16 ? 0.05 : 0.4;
  for (int64_t i = 0; i < expected.dw.numel(); ++i)
    ASSERT_NEAR(got.dw.data<float>()[i], expected.dw.data<float>()[i], rounding) << i;
  EXPECT_EQ(complaint(), "");
}

INSTANTIATE_TEST_SUITE_P(Types, ConvParts, ::testing::Values(DType::f32, DType::f16, DType::bf16),
                         [](const auto& info) { return std::string(name_of(info.param)); });

}  // namespace
}  // namespace saccade::testing
