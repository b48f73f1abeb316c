// An exchange of gradients between processes, stood in for, under every way to compute and to update.
#include <gtest/gtest.h>
#include <saccade/core/ops.h>
#include <saccade/core/random.h>
#include <saccade/nn/optim/optimizer.h>
#include <saccade/nn/regnet.h>
#include <support/stand_in_exchange.h>

#include <string>
#include <vector>

namespace saccade::optim {
namespace {

using ::saccade::testing::StandInExchange;

struct Small {
  std::shared_ptr<nn::RegNet> network = nn::regnet("y:d=2,w0=8,wa=8,wm=2,g=8", 3);
  std::unique_ptr<Optimizer> optimizer = larc_sgd().build(network->named_parameters());

  explicit Small(bool recompute) {
    if (recompute)
      network->follow({{.layer = 0}, {.is_run = true, .layer = 1, .last = 3, .inside = {{.layer = 1}, {.layer = 2}}}});
  }
  Tensor loss(uint64_t seed) const {
    Tensor images = Tensor::images({{4, 16, 16}}, 3);
    Philox random(seed);
    for (float& x : images.data<float>()) x = random.normal();
    const Tensor features = network->features(images);
    return inner_product(features, features);
  }
  std::string bytes() const {
    std::string bytes;
    for (const auto& tensors : {network->named_tensors(), optimizer->state()})
      for (const NamedTensor& t : tensors)
        bytes += t.name + std::string(static_cast<const char*>(t.tensor.raw()), t.tensor.bytes());
    return bytes;
  }
};

TEST(GradientExchange, LeavesTheBitsOfOneProcessThatComputesTheSum) {
  Small plain(false);
  for (uint64_t i = 0; i < 3; ++i) {
    scale(plain.loss(i), 2.f).backward();
    plain.optimizer->step(0.1f);
    plain.optimizer->zero_grad();
  }
  for (const bool fused : {false, true})
    for (const bool recompute : {false, true})
      for (const size_t under_way : {0u, 2u, 1000u}) {
        const Small small(recompute);
        if (fused) {  // the optimiser's hooks come first, and run second
          small.optimizer->backward_and_step(scale(small.loss(0), 2.f), 0.1f);
        }
        const StandInExchange exchange(small.network->parameters(), under_way);
        for (uint64_t i = fused ? 1 : 0; i < 3; ++i) {
          if (fused) {
            small.optimizer->backward_and_step(small.loss(i), 0.1f);
          } else {
            small.loss(i).backward();
            small.optimizer->step(0.1f);
            small.optimizer->zero_grad();
          }
        }
        EXPECT_EQ(small.bytes(), plain.bytes()) << fused << recompute << under_way;
        EXPECT_EQ(exchange.exchanged(), (fused ? 2 : 3) * std::ssize(small.network->parameters()));
      }
}

TEST(GradientExchange, IsOnceAStepOfSeveralBatches) {
  Small plain(false);
  for (uint64_t i = 0; i < 3; ++i) scale(plain.loss(i), 2.f).backward();
  plain.optimizer->step(0.1f);
  const Small small(false);
  const StandInExchange exchange(small.network->parameters(), 2);
  for (uint64_t i = 0; i < 3; ++i) small.loss(i).backward({.last = i == 2});
  small.optimizer->step(0.1f);
  EXPECT_EQ(exchange.exchanged(), std::ssize(small.network->parameters()));
  EXPECT_EQ(small.bytes(), plain.bytes());
}

}  // namespace
}  // namespace saccade::optim
