// Trainings by several processes, against one process with the whole batches.
#include <gtest/gtest.h>
#include <saccade/core/allocator.h>
#include <saccade/ssl/methods/dino.h>
#include <saccade/ssl/methods/simclr.h>
#include <saccade/ssl/methods/swav.h>
#include <saccade/ssl/train/planner.h>
#include <saccade/ssl/train/step.h>

#include <cmath>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "../ssl/parts.h"
#include "../ssl/tiny.h"
#include "ranks.h"

namespace saccade::ssl {
namespace {

using testing::ranks;

constexpr float kRate = 0.05f;  ///< three times what is usual for so few images

std::unique_ptr<Objective> make(const std::string& method) {
  const auto trunk = [] { return testing::tiny_trunk(); };
  if (method == "simclr") return std::make_unique<Simclr>(trunk(), SimclrOptions{.hidden = 32, .dim = 16}, 3);
  if (method == "dino")
    return std::make_unique<Dino>(trunk(), trunk(),
                                  DinoOptions{.outputs = 24, .hidden = 32, .dim = 16, .momentum = 0.9f}, 3);
  SwAVOptions options = testing::tiny_options();
  options.queue_length = 100;
  options.queue_start_iteration = 3;
  options.freeze_prototypes_iterations = 2;
  options.hard_assignment_iterations = 2;
  return std::make_unique<SwAV>(trunk(), options, 3);
}

Batch batch_for(const std::string& method, int64_t iteration, int64_t size) {
  Batch batch = testing::tiny_batch(iteration, size);
  if (method != "simclr") return batch;
  const Segment large = batch.images.segments().front();
  const Tensor all = batch.images;
  batch.images = Tensor::images({large}, all.dim(1));
  batch.images.copy_from(all.slice(0, large.rows()));
  return batch;
}

struct Trained {
  std::vector<float> losses;
  std::vector<NamedTensor> tensors;
};

/// 20 iterations; of several processes each takes its share of the same batches.
Trained train(const std::string& method, const optim::Recipe& recipe, float lr, int64_t images, StepOptions options) {
  const auto objective = make(method);
  objective->train();
  const auto optimizer = recipe.build(objective->trained_parameters());
  Trained trained;
  for (int64_t i = 0; i < 20; ++i) {
    std::vector<Batch> batches;
    for (int64_t b = 0; b < options.accumulate; ++b) {
      Batch batch = batch_for(method, options.accumulate * i + b, images);
      if (options.ranks != nullptr) {
        const dist::Share own = dist::share_of(images, ranks().rank(), ranks().size());
        batch = testing::part_of(batch, own.first, own.last);
      }
      batches.push_back(std::move(batch));
    }
    const StepResult result =
        train_step(*objective, *optimizer, batches, {.iteration = i, .iterations = 20, .per_epoch = 8}, lr, options);
    EXPECT_EQ(result.images, images * options.accumulate);
    trained.losses.push_back(result.loss);
  }
  trained.tensors = objective->named_tensors();
  return trained;
}

/// A linear layer's bias in front of a batch norm changes nothing: its gradient is rounding alone, which LARC makes as
/// large as any.
bool is_noise(const std::string& name) {
  return name.ends_with("head.0.bias") || name.ends_with("head.1.running_mean");
}

void expect_near(const Trained& got, const Trained& want, float tolerance) {
  for (size_t i = 0; i < want.losses.size(); ++i)
    EXPECT_NEAR(got.losses[i], want.losses[i], tolerance * std::abs(want.losses[i])) << "loss of iteration " << i;
  ASSERT_EQ(got.tensors.size(), want.tensors.size());
  for (size_t t = 0; t < want.tensors.size(); ++t) {
    if (is_noise(want.tensors[t].name)) continue;
    const auto a = got.tensors[t].tensor.data<float>(), b = want.tensors[t].tensor.data<float>();
    double off = 0, length = 0;
    for (size_t i = 0; i < a.size(); ++i) {
      off += std::pow(double{a[i]} - double{b[i]}, 2);
      length += std::pow(double{b[i]}, 2);
    }
    // The means of a first layer's results are nearly 0: what is left of rounding.
    const double allowed = want.tensors[t].name.ends_with("running_mean") ? 10. : 1.;
    EXPECT_LE(std::sqrt(off), allowed * double{tolerance} * std::sqrt(length)) << want.tensors[t].name;
  }
}

std::string bytes_of(const Trained& trained) {
  std::string bytes;
  for (const NamedTensor& t : trained.tensors) bytes.append(static_cast<const char*>(t.tensor.raw()), t.tensor.bytes());
  for (const float loss : trained.losses) bytes += std::to_string(loss) + " ";
  return bytes;
}

class OfSeveralProcesses : public ::testing::TestWithParam<std::string> {};

TEST_P(OfSeveralProcesses, ATrainingIsThatOfOneProcess) {
  const StepOptions alone, together{.ranks = &ranks(), .statistics = &ranks()};
  const int64_t even = 12;
  for (const int64_t images : {even, even + 1}) {
    const optim::Recipe recipe = optim::larc_sgd();
    const Trained want = train(GetParam(), recipe, kRate, images, alone);
    const Trained got = train(GetParam(), recipe, kRate, images, together);
    expect_near(got, want, 1e-5f);
    // The same bits in every process, and again.
    const std::string bytes = bytes_of(got);
    EXPECT_EQ(dist::texts_of_all(ranks(), bytes).front(), bytes);
    EXPECT_EQ(bytes_of(train(GetParam(), recipe, kRate, images, together)), bytes);
  }
}

TEST_P(OfSeveralProcesses, SoIsOneOfSeveralBatchesAnIteration) {
  const optim::Recipe recipe = optim::larc_sgd();
  StepOptions options{.accumulate = 2};
  const Trained want = train(GetParam(), recipe, kRate, 9, options);
  options.ranks = options.statistics = &ranks();
  expect_near(train(GetParam(), recipe, kRate, 9, options), want, 1e-5f);
}

TEST_P(OfSeveralProcesses, AnUpdateWithinBackwardHasTheSameBits) {
  const StepOptions apart{.ranks = &ranks(), .statistics = &ranks()};
  StepOptions fused = apart;
  fused.fuse_optimizer = true;
  EXPECT_EQ(bytes_of(train(GetParam(), optim::larc_sgd(), kRate, 12, fused)),
            bytes_of(train(GetParam(), optim::larc_sgd(), kRate, 12, apart)));
}

TEST_P(OfSeveralProcesses, UsesTheBytesThatWerePlanned) {
  const StepOptions plain{.ranks = &ranks(), .statistics = &ranks()};
  std::vector<StepOptions> ways(4, plain);
  ways[1].fuse_optimizer = true;
  ways[2].accumulate = 2;
  ways[3].precision = DType::bf16;
  const int64_t images = 4 * ranks().size();
  plan::DescribedDevice device(plan::device_description("cpu"));
  for (const StepOptions& way : ways) {
    const Batch own = testing::part_of(batch_for(GetParam(), 0, images), 0, 4);
    Planner planner({.objective = [] { return make(GetParam()); },
                     .crops = own.images.segments(),
                     .batch = 4,
                     .channels = 1,
                     .options = way},
                    device);
    Allocator& memory = allocator(Device::cpu);
    int64_t peak = 0;
    for (int again = 0; again < 2; ++again) {  // the first fills the primitive cache
      memory.trim();
      memory.reset_peaks();
      const int64_t before = memory.stats().total.live;
      const auto objective = make(GetParam());
      const auto optimizer = optim::larc_sgd().build(objective->trained_parameters());
      optimizer->reserve();
      std::vector<Batch> batches;
      for (int64_t i = 0; i < way.accumulate; ++i) {
        const TagScope tag(Tag::batch);
        batches.push_back(testing::part_of(batch_for(GetParam(), i, images), 0, 4));
      }
      for (int64_t i = 0; i < 2; ++i)
        train_step(*objective, *optimizer, batches, {.iteration = i, .iterations = 2}, 0.1f, way, nullptr,
                   [&](float) { seen_by_all(*objective); });
      peak = memory.stats().total.peak - before;
    }
    EXPECT_EQ(planner.rehearse({}).peak, peak) << name_of(way.precision) << way.fuse_optimizer << way.accumulate;
  }
}

TEST_P(OfSeveralProcesses, BatchNormsOfTheirOwnExchangeNothing) {
  const StepOptions own{.ranks = &ranks()};
  const Trained trained = train(GetParam(), optim::larc_sgd(), kRate, 12, own);
  for (const float loss : trained.losses) EXPECT_TRUE(std::isfinite(loss));
}

/// As docs/distributed.md says.
TEST(AStepOfSeveralProcesses, ExchangesTheBytesOfTheFormula) {
  SwAVOptions options = testing::tiny_options();
  options.queue_length = 64;
  const int64_t own = 4, images = own * ranks().size(), K = options.prototypes, D = options.dim;
  SwAV model(testing::tiny_trunk(), options, 3);
  int64_t gathered = 0, reduced = 0;
  for (const NamedTensor& t : model.named_buffers())
    if (t.name.ends_with("running_mean")) {
      const int64_t S = t.name.starts_with("head") ? 1 : 2, C = t.tensor.numel();
      gathered += 12 * S * C + 4 * (S * C % 2);
      reduced += 8 * S * C;
    }
  for (const NamedTensor& t : model.trained_parameters()) reduced += 4 * t.tensor.numel();
  gathered += 2 * 3 * 4 * (K + 1);  // assignments
  gathered += 4 * 2 * D * own;      // the queue
  gathered += 2 * 8;                // sizes, loss
  const auto bytes = [](dist::Collective::Kind kind) {
    const auto at = ranks().traffic().find(kind);
    return at == ranks().traffic().end() ? 0 : at->second.bytes;
  };
  using Kind = dist::Collective::Kind;
  const int64_t before_gather = bytes(Kind::all_gather), before_reduce = bytes(Kind::all_reduce);
  const auto optimizer = optim::sgd().build(model.trained_parameters());
  const Batch batch =
      testing::part_of(testing::tiny_batch(0, images), ranks().rank() * own, (ranks().rank() + 1) * own);
  train_step(model, *optimizer, {&batch, 1}, {}, 0.1f, {.ranks = &ranks(), .statistics = &ranks()});
  const bool alone = ranks().size() == 1;
  EXPECT_EQ(bytes(Kind::all_gather) - before_gather, alone ? 0 : gathered);
  EXPECT_EQ(bytes(Kind::all_reduce) - before_reduce, alone ? 0 : reduced);
}

INSTANTIATE_TEST_SUITE_P(Methods, OfSeveralProcesses, ::testing::Values("swav", "simclr", "dino"),
                         [](const auto& of) { return of.param; });

}  // namespace
}  // namespace saccade::ssl
