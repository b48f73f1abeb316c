// Ways to compute a training step that leave it the same step: updates within backward, several batches, half
// precision.
#include <gtest/gtest.h>
#include <saccade/core/allocator.h>
#include <saccade/core/ops.h>
#include <saccade/kernels/error.h>
#include <saccade/ssl/methods/swav.h>
#include <saccade/ssl/train/step.h>
#include <support/temporary_folder.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "parts.h"
#include "tiny.h"

namespace saccade {
namespace {

using ssl::StepOptions;
using ssl::StepTensors;
using ssl::SwAV;
using ssl::SwAVOptions;
using testing::part_of;
using testing::parts_of;
using testing::PlainTrunk;
using testing::tiny_batch;
using testing::tiny_options;
using testing::tiny_trunk;

std::string bytes_of(const std::vector<NamedTensor>& tensors) {
  std::string bytes;
  for (const NamedTensor& t : tensors)
    bytes += t.name + std::string(static_cast<const char*>(t.tensor.raw()), t.tensor.bytes());
  return bytes;
}

/// max |a - b| as a part of max |b|.
double difference(const Tensor& a, const Tensor& b) {
  double error = 0, size = 0;
  for (size_t i = 0; i < a.data<float>().size(); ++i) {
    error = std::max(error, std::abs(double{a.data<float>()[i]} - double{b.data<float>()[i]}));
    size = std::max(size, std::abs(double{b.data<float>()[i]}));
  }
  return error / std::max(size, 1e-30);
}

SwAVOptions options_with(bool head_bn, int64_t queue = 0) {
  SwAVOptions options = tiny_options();
  options.head_bn = head_bn;
  options.queue_length = queue;
  return options;
}

TEST(FusedStep, OfSwavGivesTheBitsOfTheSeparateOne) {
  for (const auto& recipe : {optim::larc_sgd(), optim::adamw()}) {
    SwAVOptions options = options_with(true, 32);
    options.freeze_prototypes_iterations = 2;
    SwAV one(tiny_trunk(), options, 3), two(tiny_trunk(), options, 3);
    const auto separate = recipe.build(one.named_parameters()), fused = recipe.build(two.named_parameters());
    for (int64_t i = 0; i < 5; ++i) {
      const std::vector<Batch> batch{tiny_batch(i)};
      const auto a = train_step(one, *separate, batch, {.iteration = i}, 0.1f, {}),
                 b = train_step(two, *fused, batch, {.iteration = i}, 0.1f, {.fuse_optimizer = true});
      EXPECT_EQ(a.loss, b.loss);
      EXPECT_EQ(bytes_of(one.named_tensors()), bytes_of(two.named_tensors())) << "step " << i;
      EXPECT_EQ(bytes_of(separate->state()), bytes_of(fused->state())) << "step " << i;
      const auto state = fused->state();
      EXPECT_EQ(std::any_of(state.begin(), state.end(),
                            [](const NamedTensor& t) { return t.name.ends_with(".prototypes.weight"); }),
                i >= 2);
    }
  }
}

TEST(FusedStep, IsRefusedWithAReasonWhereGradientsAreNeededWhole) {
  const auto reason = [](const StepOptions& options) { return test::complaint([&] { ssl::check(options); }); };
  EXPECT_NE(reason({.fuse_optimizer = true, .accumulate = 2}).find("several batches"), std::string::npos);
  EXPECT_NE(reason({.fuse_optimizer = true, .clip_norm = 1.f}).find("norm of all gradients"), std::string::npos);
  EXPECT_NE(reason({.precision = DType::f16, .fuse_optimizer = true}).find("overflow"), std::string::npos);
  EXPECT_NE(reason({.precision = DType::i32}).find("expected f32, bf16 or f16"), std::string::npos);
  EXPECT_NE(reason({.accumulate = 0}).find("at least one batch"), std::string::npos);
  EXPECT_NO_THROW(ssl::check({.precision = DType::bf16, .fuse_optimizer = true}));
}

TEST(Accumulation, GivesLossAssignmentsAndGradientsOfTheBigBatch) {
  SwAV whole(std::make_shared<PlainTrunk>(), options_with(false, 32), 3),
      split(std::make_shared<PlainTrunk>(), options_with(false, 32), 3);
  const auto ours = split.named_parameters(), theirs = whole.named_parameters();
  for (int64_t i = 0; i < 4; ++i) {  // the last with a full queue
    const Batch batch = tiny_batch(i);
    const std::vector<Batch> parts = parts_of(batch, 4);
    EXPECT_EQ(split.queue_in_use(i), i >= 2);
    StepTensors expected;
    const Tensor loss = whole.loss(batch, i, &expected);
    loss.backward();

    const StepTensors seen = split.assign(parts, i);
    EXPECT_EQ(seen.batch, 16);
    EXPECT_LT(difference(seen.assignments, expected.assignments), 1e-4);
    EXPECT_LT(difference(seen.embeddings, expected.embeddings.slice(0, 32)), 1e-5);
    double sum = 0;
    for (int64_t p = 0; p < 4; ++p) {
      const Tensor part = split.loss(parts[static_cast<size_t>(p)], seen.assignments_of(4 * p, 4 * p + 4), i);
      sum += double{part.item()} / 4;
      scale(part, 0.25f).backward();
    }
    EXPECT_NEAR(sum, double{loss.item()}, 1e-5);
    for (size_t p = 0; p < ours.size(); ++p) {
      EXPECT_LT(difference(ours[p].tensor.grad(), theirs[p].tensor.grad()), 1e-5) << ours[p].name;
      ours[p].tensor.set_grad({});
      theirs[p].tensor.set_grad({});
    }
    for (size_t q = 0; q < split.named_buffers().size(); ++q)
      EXPECT_LT(difference(split.named_buffers()[q].tensor, whole.named_buffers()[q].tensor), 1e-5);
  }
}

TEST(Accumulation, OfUnequalBatchesWeighsEachByItsImages) {
  const Batch batch = tiny_batch(0);
  std::vector<Batch> parts{part_of(batch, 0, 10), part_of(batch, 10, 16)};
  SwAV whole(std::make_shared<PlainTrunk>(), options_with(false), 3),
      split(std::make_shared<PlainTrunk>(), options_with(false), 3);
  const auto one = optim::sgd().build(whole.named_parameters()), two = optim::sgd().build(split.named_parameters());
  const auto a = train_step(whole, *one, {&batch, 1}, {}, 0.1f, {}),
             b = train_step(split, *two, parts, {}, 0.1f, {.accumulate = 2});
  EXPECT_NEAR(a.loss, b.loss, 1e-5);
  for (size_t p = 0; p < one->state().size(); ++p)
    EXPECT_LT(difference(two->state()[p].tensor, one->state()[p].tensor), 1e-5) << one->state()[p].name;
}

TEST(Accumulation, CountsEachImageOnceForRunningStatistics) {
  SwAV model(tiny_trunk(), options_with(true), 3), plain(tiny_trunk(), options_with(true), 3);
  const auto parts = parts_of(tiny_batch(0), 2);
  const std::string before = bytes_of(model.named_buffers());
  const StepTensors seen = model.assign(parts, 0);
  EXPECT_EQ(bytes_of(model.named_buffers()), before);
  model.loss(parts[0], seen.assignments_of(0, 8), 0);
  plain.loss(parts[0], 0);
  EXPECT_EQ(bytes_of(model.named_buffers()), bytes_of(plain.named_buffers()));
}

/// Peak bytes of a step on the meta device beyond what is live at its start, and of activations alone.
struct Peak {
  int64_t activations, gradients;
};
Peak peak_of(int64_t batch, const StepOptions& options, bool head_bn = true) {
  const DeviceScope meta(Device::meta);
  SwAV model(tiny_trunk(), options_with(head_bn), 3);
  const auto optimizer = optim::larc_sgd().build(model.named_parameters());
  optimizer->reserve();
  std::vector<Batch> batches;
  for (int64_t i = 0; i < options.accumulate; ++i) {
    const TagScope tag(Tag::batch);
    Batch& b = batches.emplace_back();
    b.images = Tensor::images({{2 * batch, 16, 16}, {2 * batch, 8, 8}}, 1);
    b.indices.resize(static_cast<size_t>(batch));
  }
  optim::LossScale scale;
  allocator(Device::meta).reset_peaks();
  const auto before = allocator(Device::meta).stats();
  train_step(model, *optimizer, batches, {}, 0.1f, options, options.precision == DType::f16 ? &scale : nullptr);
  const auto after = allocator(Device::meta).stats();
  EXPECT_EQ(after.total.live, before.total.live);
  return {after[Tag::activations].peak - before[Tag::activations].live, after[Tag::gradients].peak};
}

TEST(Accumulation, NeedsTheActivationsOfOneBatchAndTheEmbeddingsOfAll) {
  const int64_t one = peak_of(16, {}).activations, four = peak_of(16, {.accumulate = 4}).activations,
                big = peak_of(64, {}).activations;
  const SwAVOptions o = tiny_options();
  const int64_t pooled = 2 * 64 * (o.dim + 2 * o.prototypes) * 4;  // embeddings, scores and assignments of large crops
  EXPECT_LE(four, one + pooled + 1024);
  EXPECT_GT(big, 7 * one / 2);
}

TEST(Precision, HalvesActivations) {
  const int64_t f32 = peak_of(16, {}).activations;
  for (const DType half : {DType::bf16, DType::f16})
    EXPECT_LT(peak_of(16, {.precision = half}).activations, 6 * f32 / 10) << name_of(half);
}

TEST(Precision, LossAndGradientsAreNearThoseOfF32) {
  for (const DType half : {DType::bf16, DType::f16}) {
    SwAV exact(tiny_trunk(), tiny_options(), 3), rounded(tiny_trunk(), tiny_options(), 3);
    const auto one = optim::sgd().build(exact.named_parameters()), two = optim::sgd().build(rounded.named_parameters());
    optim::LossScale scale;
    const std::vector<Batch> batch{tiny_batch(0)};
    const auto a = train_step(exact, *one, batch, {}, 0.f, {});
    const auto b = train_step(rounded, *two, batch, {}, 0.f, {.precision = half}, half == DType::f16 ? &scale : nullptr,
                              [&](float) {
                                EXPECT_EQ(rounded.seen().size(), 3u);
                                for (const NamedTensor& t : rounded.seen())
                                  EXPECT_EQ(t.tensor.dtype(), DType::f32) << t.name;
                              });
    EXPECT_FALSE(b.skipped);
    const double epsilon = half == DType::bf16 ? 0x1p-8 : 0x1p-11;
    EXPECT_NE(a.loss, b.loss);
    EXPECT_NEAR(a.loss, b.loss, 4 * epsilon);
    // Momentum after one step is the gradient. That of the prototypes is rounded as the embeddings are; behind it signs
    // in front of a ReLU may flip, which in a network so small is a matter of percents in either type.
    double dot = 0, aa = 0, bb = 0;
    const auto ours = two->state(), theirs = one->state();
    for (size_t p = 0; p < theirs.size(); ++p) {
      const auto x = theirs[p].tensor.data<float>(), y = ours[p].tensor.data<float>();
      for (size_t i = 0; i < x.size(); ++i) {
        dot += double{x[i]} * double{y[i]};
        aa += double{x[i]} * double{x[i]};
        bb += double{y[i]} * double{y[i]};
      }
      if (theirs[p].name == "momentum.prototypes.weight") {
        EXPECT_LT(difference(ours[p].tensor, theirs[p].tensor), 10 * epsilon) << name_of(half);
      }
    }
    EXPECT_GT(dot / std::sqrt(aa * bb), 0.98) << name_of(half);
    EXPECT_NEAR(std::sqrt(bb / aa), 1, 0.05) << name_of(half);
  }
}

TEST(LossScaling, AnOverflowUpdatesNothingAndHalvesTheScale) {
  SwAV model(tiny_trunk(), tiny_options(), 3);
  const auto optimizer = optim::larc_sgd().build(model.named_parameters());
  const std::vector<Batch> batch{tiny_batch(0)};
  optim::LossScale scale({.first = 0x1p40f});
  int64_t skipped = 0;
  std::string before = bytes_of(model.named_parameters());
  while (train_step(model, *optimizer, batch, {}, 0.1f, {.precision = DType::f16}, &scale).skipped) {
    ++skipped;
    ASSERT_TRUE(optimizer->state().empty());
    ASSERT_EQ(scale.value(), std::ldexp(1.f, static_cast<int>(40 - skipped)));
    ASSERT_LT(skipped, 40);
  }
  EXPECT_GT(skipped, 5);
  EXPECT_NE(bytes_of(model.named_parameters()), before);
  EXPECT_FALSE(optimizer->state().empty());
}

TEST(Clipping, BoundsTheUpdate) {
  SwAV model(tiny_trunk(), tiny_options(), 3);
  const auto optimizer = optim::sgd().build(model.named_parameters());
  const std::vector<Batch> batch{tiny_batch(0)};
  train_step(model, *optimizer, batch, {}, 0.1f, {.clip_norm = 0.01f});
  double squares = 0;
  for (const NamedTensor& t : optimizer->state())
    for (const float m : t.tensor.data<float>()) squares += double{m} * double{m};
  EXPECT_NEAR(std::sqrt(squares), 0.01, 1e-6);
}

}  // namespace
}  // namespace saccade
