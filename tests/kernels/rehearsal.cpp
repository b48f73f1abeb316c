// The meta backend's listener: hears what is called, and of it what a timing needs.
#include <saccade/kernels/rehearsal.h>
#include <support/given.h>

#include <set>
#include <string>

#include "arrays.h"

namespace saccade::kernels {
namespace {

using test::given;

struct Listener final : MetaListener {
  void on_call(const Call& call) override { calls.push_back(call); }
  std::vector<Call> calls;
};

TEST(Rehearsal, TheListenerHearsEachCallAsItIs) {
  const Conv2d conv{16, 32, 3, 2, 1, 2, DType::bf16};
  const Segments in = {{2, 8, 8}, {4, 4, 4}};
  const MatMul product{.m = 5, .n = 7, .k = 11};
  Backend& meta = backend(Device::meta);
  const Cost before = meta_cost();
  Listener listener;
  float value = 0;  // given, never read
  const Combine add{Binary::add, DType::f32, 10, &value, &value, &value};
  {
    const MetaListenScope scope(listener);
    meta.run(given(Conv2dBackwardWeight{conv, in}));
    meta.run(given(MatrixProduct{product}));
    meta.run(BatchNormApply{{{.channels = 8, .dtype = DType::f16}, in}, &value, &value});
    meta.run(
        SgdUpdate{{.trust = 0.001f}, {{&value, &value, nullptr, nullptr, 3}, {&value, &value, nullptr, nullptr, 4}}});
    Listener inner;
    {
      const MetaListenScope nested(inner);
      meta.run(add);
    }
    EXPECT_EQ(inner.calls.size(), 1u);
  }
  meta.run(add);  // nobody listens

  ASSERT_EQ(listener.calls.size(), 4u);
  const auto& weight = std::get<Conv2dBackwardWeight>(listener.calls[0]);
  EXPECT_EQ(weight.conv, conv);
  EXPECT_EQ(weight.segments, in);
  EXPECT_EQ(cost_of(listener.calls[0]).flops, conv.flops(in[0]) + conv.flops(in[1]));
  EXPECT_EQ(std::get<MatrixProduct>(listener.calls[1]).product, product);
  EXPECT_EQ(std::get<BatchNormApply>(listener.calls[2]).residual, &value);
  // x, residual and y in f16; gamma and beta; a mean and a deviation of each segment.
  EXPECT_EQ(cost_of(listener.calls[2]).bytes_moved, 3 * 192 * 8 * 2 + 2 * 8 * 4 + 2 * 2 * 8 * 4);
  EXPECT_EQ(name_of(listener.calls[3]), "sgd");
  EXPECT_EQ(cost_of(listener.calls[3]).bytes_moved, 4 * 3 * 7);
  double flops = 0, bytes = 4 * 30 * 2;
  for (const Call& call : listener.calls) flops += cost_of(call).flops, bytes += cost_of(call).bytes_moved;
  EXPECT_EQ(meta_cost().flops - before.flops, flops);
  EXPECT_EQ(meta_cost().bytes_moved - before.bytes_moved, bytes);
}

template <class... Calls>
struct Names {
  static std::set<std::string_view> all() { return {Calls::name...}; }
  static constexpr size_t count = sizeof...(Calls);
};

TEST(Rehearsal, CallsHaveNamesOfTheirOwn) {
  EXPECT_EQ(Calls::with<Names>::all().size(), Calls::with<Names>::count);
  EXPECT_EQ(name_of(Call(AdamWUpdate{})), "adamw");
}

}  // namespace
}  // namespace saccade::kernels
