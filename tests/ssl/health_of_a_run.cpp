#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <saccade/ssl/methods/swav.h>
#include <saccade/ssl/train/health.h>
#include <saccade/ssl/train/trainer.h>

#include <string>
#include <vector>

#include "readings.h"
#include "tiny.h"

/// @file
/// Real trainings with SwAV, and what the monitor says of them.
namespace saccade {
namespace {

using ssl::Band;
using ssl::HealthMessage;
using ssl::SwAV;
using ssl::SwAVOptions;

/// Of a tiny network.
struct Recipe {
  SwAVOptions model = testing::tiny_options();
  optim::Recipe optimizer = optim::adamw({.weight_decay = 1e-6f});
  float lr = 5e-3f;
  int64_t batch = 16, iterations = 900;
  uint64_t seed = 3;
};

std::vector<HealthMessage> trained(const Recipe& recipe) {
  SwAV model(testing::tiny_trunk(), recipe.model, recipe.seed);
  ssl::Trainer trainer(model, recipe.optimizer,
                       {.iterations = recipe.iterations, .lr = recipe.lr, .final_lr_ratio = 1.f});
  std::vector<HealthMessage> said;
  trainer.observe({.on_message = [&](const HealthMessage& m) { said.push_back(m); }});
  int64_t at = 0;
  trainer.fit({[&] { return testing::tiny_batch(at++, recipe.batch); }, [&](int64_t i) { at = i; }, 8});
  return said;
}

std::string all_of(const std::vector<HealthMessage>& said) {
  std::string text;
  for (const auto& m : said) text += m.text() + "\n";
  return text;
}

TEST(HealthOfARun, IsSilentOnHealthyOnes) {
  EXPECT_EQ(all_of(trained({})), "");
  EXPECT_EQ(all_of(trained({.optimizer = optim::larc_sgd(), .lr = 1.f})), "");
}

/// At this eps the loss stays above ln K for the first 300 iterations, then falls.
TEST(HealthOfARun, IsSilentOnASlowStart) {
  Recipe recipe{.batch = 32};
  recipe.model.eps = 0.07f;
  EXPECT_EQ(all_of(trained(recipe)), "");
}

/// 40 times the rate of the healthy run above: all embeddings come to lie on one point, most times for good.
TEST(HealthOfARun, FlagsALearningRateThatCollapsesIt) {
  int collapsed = 0;
  for (const uint64_t seed : {2, 3, 5}) {
    Recipe recipe{.optimizer = optim::larc_sgd(), .lr = 40.f, .batch = 8, .iterations = 700, .seed = seed};
    recipe.model.prototypes = 8;
    const auto said = trained(recipe);
    ASSERT_GE(said.size(), 1u) << seed;
    EXPECT_NE(said[0].advice.at(0).find("learning rate"), std::string::npos);
    collapsed += said[0].band == Band::alarm && said[0].trouble.find("nearly the same") != std::string::npos;
  }
  EXPECT_GE(collapsed, 2);
}

/// 60 times, and a larger batch. Whether the embeddings stay crowded or collapse wholly is decided by rounding, so
/// instruction sets and builds differ; that the rate is to blame must be said of each.
TEST(HealthOfARun, FlagsALearningRateThatKeepsItFromLearning) {
  for (const uint64_t seed : {1, 3}) {
    const auto said =
        trained({.optimizer = optim::larc_sgd(), .lr = 60.f, .batch = 32, .iterations = 820, .seed = seed});
    ASSERT_GE(said.size(), 1u) << seed;
    EXPECT_LE(said[0].iteration, 800);
    EXPECT_THAT(said[0].trouble, ::testing::AnyOf(::testing::HasSubstr("crowded"), ::testing::HasSubstr("collapsed")));
    EXPECT_NE(said[0].advice.at(0).find("learning rate"), std::string::npos);
  }
}

/// Twice the eps of the healthy run above is enough.
TEST(HealthOfARun, FlagsAnEpsTooLarge) {
  for (const float eps : {0.1f, 0.5f}) {
    Recipe recipe{.iterations = 600};
    recipe.model.eps = eps;
    const auto said = trained(recipe);
    ASSERT_EQ(said.size(), 1u) << eps << all_of(said);
    EXPECT_EQ(said[0].band, Band::alarm);
    EXPECT_NE(said[0].trouble.find("nearly uniform"), std::string::npos);
    EXPECT_NE(said[0].text().find("eps 0.03 (now 0." + std::string(eps < 0.2f ? "1)" : "5)")), std::string::npos);
  }
}

/// Caught by the length itself, at the first step, whatever the run then does.
TEST(HealthOfARun, FlagsEmbeddingsWithoutNormalisation) {
  Recipe recipe{.iterations = 60};
  recipe.model.unit_embeddings = false;
  const auto said = trained(recipe);
  ASSERT_EQ(said.size(), 1u) << all_of(said);
  EXPECT_EQ(said[0].iteration, 0);
  EXPECT_NE(said[0].text().find("Normalise embeddings"), std::string::npos);
}

/// Nothing collapses, and no other metric shows it: images are told apart one by one, mostly down to the floor of the
/// loss.
TEST(HealthOfARun, FlagsPrototypesFarAboveTheBatch) {
  int floors = 0;
  for (const uint64_t seed : {1, 2, 3}) {
    Recipe recipe{.optimizer = optim::larc_sgd(), .lr = 1.f, .batch = 4, .iterations = 1100, .seed = seed};
    recipe.model.prototypes = 3000;
    const auto said = trained(recipe);
    ASSERT_GE(said.size(), 1u) << seed;
    EXPECT_EQ(said[0].iteration, 0);
    EXPECT_NE(said[0].trouble.find("3000 prototypes share 4 embeddings"), std::string::npos);
    EXPECT_NE(said[0].advice.at(0).find("fewer prototypes"), std::string::npos);
    for (const auto& m : said) {
      EXPECT_EQ(m.band, Band::warn) << m.text();
      floors += m.trouble.find("near the floor") != std::string::npos;
    }
  }
  EXPECT_GE(floors, 1);
}

/// Against a step far smaller than any real one: a tiny network, images of 16 pixels.
TEST(HealthOfARun, CostsLessThanAHundredthOfTheStep) {
  SwAV model(testing::tiny_trunk(), testing::tiny_options(), 3);
  EXPECT_LT(testing::share_of_readings(model, [](int64_t i) { return testing::tiny_batch(i, 32); }), 0.01);
}

}  // namespace
}  // namespace saccade
