// The meta backend's listener: hears what is called, and of it what a timing needs.
#include <saccade/kernels/rehearsal.h>

#include <set>
#include <string>

#include "arrays.h"

namespace saccade::kernels {
namespace {

struct Listener final : MetaListener {
  void on_call(const Call& call) override {
    calls.push_back(call);
    segments.emplace_back(call.segments.begin(), call.segments.end());
  }
  std::vector<Call> calls;
  std::vector<Segments> segments;
};

TEST(Rehearsal, TheListenerHearsKindShapeAndCosts) {
  const Conv2d conv{16, 32, 3, 2, 1, 2, DType::bf16};
  const Segments in = {{2, 8, 8}, {4, 4, 4}};
  const MatMul product{.m = 5, .n = 7, .k = 11};
  Backend& meta = backend(Device::meta);
  const Cost before = meta_cost();
  Listener listener;
  {
    const MetaListenScope scope(listener);
    meta.conv2d_backward_weight(conv, in, nullptr, nullptr, nullptr, nullptr);
    meta.matmul(product, nullptr, nullptr, nullptr, nullptr, nullptr);
    meta.batch_norm_forward({.channels = 8, .dtype = DType::f16}, in, nullptr, &listener, nullptr, nullptr, nullptr,
                            nullptr, nullptr, nullptr, nullptr, nullptr);
    meta.sgd({.trust = 0.001f}, std::vector<ParameterSlot>{{.elements = 3}, {.elements = 4}});
    Listener inner;
    {
      const MetaListenScope nested(inner);
      meta.add(DType::f32, 10, nullptr, nullptr, nullptr);
    }
    EXPECT_EQ(inner.calls.size(), 1u);
  }
  meta.add(DType::f32, 10, nullptr, nullptr, nullptr);  // nobody listens

  ASSERT_EQ(listener.calls.size(), 4u);
  const Call &weight = listener.calls[0], &matmul = listener.calls[1], &norm = listener.calls[2],
             &larc = listener.calls[3];
  EXPECT_EQ(weight.kind, CallKind::conv_backward_weight);
  EXPECT_EQ(weight.conv, conv);
  EXPECT_EQ(listener.segments[0], in);
  EXPECT_EQ(weight.flops, conv.flops(in[0]) + conv.flops(in[1]));
  EXPECT_EQ(matmul.kind, CallKind::matmul);
  EXPECT_EQ(matmul.matmul, product);
  EXPECT_EQ(norm.kind, CallKind::batch_norm_forward);
  EXPECT_TRUE(norm.residual);
  EXPECT_EQ(norm.dtype, DType::f16);
  EXPECT_EQ(norm.norm.channels, 8);
  EXPECT_EQ(larc.kind, CallKind::larc);
  EXPECT_EQ(larc.bytes, 4 * 3 * 7);
  double flops = 0, bytes = 4 * 30 * 2;
  for (const Call& call : listener.calls) flops += call.flops, bytes += call.bytes;
  EXPECT_EQ(meta_cost().flops - before.flops, flops);
  EXPECT_EQ(meta_cost().bytes_moved - before.bytes_moved, bytes);
}

TEST(Rehearsal, KindsHaveNamesOfTheirOwn) {
  std::set<std::string_view> names;
  for (size_t i = 0; i < kCallKinds; ++i) names.insert(name_of(static_cast<CallKind>(i)));
  EXPECT_EQ(names.size(), kCallKinds);
  EXPECT_EQ(name_of(CallKind::adamw), "adamw");
}

}  // namespace
}  // namespace saccade::kernels
