// What scopes set is one value, and what is done a second time sees it as it was the first time.
#include <gtest/gtest.h>
#include <saccade/core/autocast.h>
#include <saccade/core/autograd.h>
#include <saccade/core/checkpoint.h>
#include <saccade/core/dist/ranks.h>
#include <saccade/core/layer.h>
#include <saccade/core/ops.h>
#include <saccade/kernels/error.h>

#include <string>
#include <thread>
#include <vector>

namespace saccade {
namespace {

/// A context in which nothing is as it is at first, but that ops are recorded. A new field of Context is one name more
/// here, and is given another value below.
Context all_set() {
  static const std::string layer = "trunk.block1";
  static std::vector<Tensor> leaves;
  static const auto rehearsed = dist::rehearsed(2);
  static const dist::Ranks two{.all = rehearsed.get(), .images = 4};
  static const OutputWatch watch = [](const std::string&, const Tensor&) {};
  Context context;
  auto& [device, precision, keep, tag, phase, recording, frozen_statistics, in_layer, op, used, ranks, watched] =
      context;
  device = Device::meta;
  precision = DType::bf16;
  keep = Keep::lean;
  tag = Tag::batch;
  phase = Phase::data;
  recording = true;
  frozen_statistics = true;
  in_layer = &layer;
  op = "an op";
  used = &leaves;
  ranks = &two;
  watched = &watch;
  return context;
}

/// Of a second run for an op of that name.
Context expected_again(Context context, const char* op) {
  context.phase = Phase::recompute;
  context.frozen_statistics = true;
  context.op = op;
  context.leaves = nullptr;
  context.watch = nullptr;
  return context;
}

Tensor parameter() {
  const DeviceScope meta(Device::meta);
  Tensor w = Tensor::empty({3, 3});
  return w.requires_grad_();
}

TEST(Context, ACheckpointsSecondRunSeesAllOfTheFirst) {
  for (const Context& set : {all_set(), Context{.device = Device::meta}}) {
    const Tensor w = parameter();
    std::vector<Context> seen;
    Tensor y;
    {
      const ContextScope scope(set);
      y = checkpoint(
          [&](const std::vector<Tensor>& in) {
            seen.push_back(Context::current());
            return linear(in[0], w);
          },
          {Tensor::empty({2, 3})});
    }
    sum(cast(y, DType::f32)).backward();
    ASSERT_EQ(seen.size(), 2u);
    EXPECT_EQ(seen[1], expected_again(set, "checkpoint"));
    EXPECT_EQ(Context::current(), Context());
  }
}

TEST(Context, ASavedTensorIsMadeAgainInTheContextOfItsOp) {
  const Tensor w = parameter();
  std::vector<Context> seen;
  Tensor y;
  {
    const ContextScope scope(all_set());
    const Tensor x = linear(Tensor::empty({2, 3}, DType::bf16), w);
    autograd::remakeable(x, [&] {
      seen.push_back(Context::current());
      return Tensor::empty({2, 3}, DType::bf16);
    });
    y = linear(x, w);
  }
  sum(cast(y, DType::f32)).backward();
  ASSERT_EQ(seen.size(), 1u);
  Context expected = expected_again(all_set(), "linear");
  expected.recording = false;
  EXPECT_EQ(seen[0], expected);
}

TEST(Context, ScopesChangeTheirFieldAndPutItBack) {
  {
    const DeviceScope device(Device::meta);
    const AutocastScope precision(DType::f16);
    const KeepScope keep(Keep::lean);
    const TagScope tag(Tag::optimizer);
    const PhaseScope phase(Phase::forward);
    const NoGradScope no_grad;
    const FrozenStatisticsScope frozen;
    const LayerScope outer("trunk"), inner("stem"), unnamed("");
    Context expected{.device = Device::meta,
                     .precision = DType::f16,
                     .keep = Keep::lean,
                     .tag = Tag::optimizer,
                     .phase = Phase::forward,
                     .recording = false,
                     .frozen_statistics = true};
    expected.layer = Context::current().layer;
    EXPECT_EQ(*expected.layer, "trunk.stem");
    EXPECT_EQ(Context::current(), expected);
    EXPECT_THROW(AutocastScope(DType::i32), Error);
    EXPECT_EQ(Context::current(), expected);
    const NoGradScope disabled(false);
    EXPECT_FALSE(Context::current().recording) << "a disabled scope leaves an outer one in force";
  }
  EXPECT_EQ(Context::current(), Context());
}

TEST(Context, IsTheThreadsOwn) {
  const ContextScope scope(all_set());
  std::thread([] { EXPECT_EQ(Context::current(), Context()); }).join();
  EXPECT_EQ(Context::current(), all_set());
}

TEST(Context, ALayersNameIsKeptOnce) {
  const auto layer = [] {
    const LayerScope outer("trunk"), inner("block1");
    return Context::current().layer;
  };
  EXPECT_EQ(layer(), layer());
}

}  // namespace
}  // namespace saccade
