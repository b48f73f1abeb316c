#include <gtest/gtest.h>
#include <saccade/core/random.h>
#include <saccade/kernels/error.h>
#include <saccade/ssl/eval/auroc.h>
#include <saccade/ssl/eval/fine_tune.h>
#include <saccade/ssl/eval/knn.h>
#include <saccade/ssl/eval/lbfgs.h>
#include <saccade/ssl/eval/linear_probe.h>
#include <saccade/ssl/eval/worth.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "tiny.h"

namespace saccade {
namespace {

Tensor random_matrix(int64_t rows, int64_t cols, uint64_t seed) {
  Tensor t = Tensor::empty({rows, cols});
  Philox random(seed);
  for (float& v : t.data<float>()) v = random.normal();
  return t;
}

/// `classes` clouds around random centres: what a linear classifier must tell apart.
struct Clouds {
  Tensor x;
  std::vector<int> labels;
};
Clouds clouds(int64_t rows, int64_t dim, int classes, float noise, uint64_t seed) {
  const Tensor centres = random_matrix(classes, dim, 99);
  Clouds c{.x = random_matrix(rows, dim, seed), .labels = {}};
  for (int64_t r = 0; r < rows; ++r) {
    c.labels.push_back(static_cast<int>(r % classes));
    for (int64_t d = 0; d < dim; ++d) {
      float& v = c.x.data<float>()[static_cast<size_t>(r * dim + d)];
      v = 5.f + 10.f * centres.data<float>()[static_cast<size_t>(c.labels.back() * dim + d)] + noise * 10.f * v;
    }
  }
  return c;
}

TEST(Knn, NeighboursAreThoseOfAFullSort) {
  const Tensor bank = random_matrix(5000, 33, 1), queries = random_matrix(300, 33, 2);  // over block edges
  const auto found = ssl::nearest(bank, queries, 20);
  ASSERT_EQ(found.per_query, 20);
  const auto cosine = [&](int64_t q, int64_t b) {
    double dot = 0, qq = 0, bb = 0;
    for (int64_t d = 0; d < 33; ++d) {
      const double x = double{queries.data<float>()[static_cast<size_t>(q * 33 + d)]};
      const double y = double{bank.data<float>()[static_cast<size_t>(b * 33 + d)]};
      dot += x * y, qq += x * x, bb += y * y;
    }
    return dot / std::sqrt(qq * bb);
  };
  for (int64_t q = 0; q < 300; q += 23) {
    std::vector<double> all(5000);
    for (int64_t b = 0; b < 5000; ++b) all[static_cast<size_t>(b)] = cosine(q, b);
    std::vector<int> order(5000);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return all[size_t(a)] > all[size_t(b)]; });
    for (size_t n = 0; n < 20; ++n) {
      const size_t at = static_cast<size_t>(q) * 20 + n;
      EXPECT_EQ(found.index[at], order[n]);
      EXPECT_NEAR(double{found.cosine[at]}, all[static_cast<size_t>(order[n])], 1e-5);
    }
  }
}

TEST(Knn, VotesWeighByTheExponentOfTheCosine) {
  // One near neighbour of class 1 against two farther ones of class 0.
  const std::vector<float> bank = {1, 0, 0.8f, 0.6f, 0.8f, -0.6f}, query = {1, 0};
  const std::vector<int> labels = {1, 0, 0};
  const auto classify = [&](float temperature) {
    return ssl::knn_classify(Tensor::from(bank, {3, 2}), labels, Tensor::from(query, {1, 2}),
                             {3, temperature, false})[0];
  };
  EXPECT_EQ(classify(0.07f), 1);  // e^(0.2/0.07) = 17 > 2
  EXPECT_EQ(classify(1.0f), 0);   // e^0.2 = 1.2 < 2
  EXPECT_THROW(ssl::knn_classify(Tensor::from(bank, {3, 2}), std::vector<int>{1}, Tensor::from(query, {1, 2})), Error);
}

TEST(Knn, CentringTakesTheMeanOfTheBankOff) {
  // Seen from the origin the query points as the first row does; from the mean (10, 0), as the second.
  const std::vector<float> bank = {11, 1, 9, -1}, query = {8, 0.1f};
  const std::vector<int> labels = {0, 1};
  const auto classify = [&](bool center) {
    return ssl::knn_classify(Tensor::from(bank, {2, 2}), labels, Tensor::from(query, {1, 2}),
                             {.neighbours = 1, .temperature = 1.f, .center = center})[0];
  };
  EXPECT_EQ(classify(false), 0);
  EXPECT_EQ(classify(true), 1);
}

TEST(Knn, EqualNeighboursKeepTheOrderOfTheBank) {
  const Tensor bank = Tensor::full({10, 4}, 2.f), query = Tensor::full({1, 4}, 1.f);
  const auto found = ssl::nearest(bank, query, 4);
  EXPECT_EQ(found.index, (std::vector<int32_t>{0, 1, 2, 3}));
}

TEST(Retrieval, FindsTheOtherViewOfAnImage) {
  const Tensor first = random_matrix(1000, 32, 5), second = first.clone(), other = random_matrix(1000, 32, 6);
  for (size_t i = 0; i < 32000; ++i) second.data<float>()[i] += 0.1f * other.data<float>()[i];
  EXPECT_GT(ssl::retrieval_at_1(first, second), 0.999);
  EXPECT_LT(ssl::retrieval_at_1(first, other), 0.02);
  EXPECT_NEAR(ssl::retrieval_at_1(Tensor::full({1000, 32}, 1.f), Tensor::full({1000, 32}, 1.f)), 0.001, 1e-9);
}

TEST(Auroc, CountsPairsAndHalfOfThoseThatAreLevel) {
  // Positives 0.8, 0.4; negatives 0.6, 0.2, 0.1: of six pairs five are in order.
  EXPECT_DOUBLE_EQ(ssl::auroc(std::vector{0.6f, 0.8f, 0.2f, 0.4f, 0.1f}, std::vector{0, 1, 0, 1, 0}), 5. / 6);
  // Positives 2, 1, 1; negatives 1, 0, 2: above in 2 + 1 + 1 pairs, level in 1 + 1 + 1.
  const std::vector scores{2.f, 1.f, 1.f, 1.f, 0.f, 2.f};
  const std::vector labels{1, 1, 1, 0, 0, 0};
  EXPECT_DOUBLE_EQ(ssl::auroc(scores, labels), (4 + 0.5 * 3) / 9);
  EXPECT_DOUBLE_EQ(ssl::auroc(scores, labels, 0), 1 - (4 + 0.5 * 3) / 9);
  EXPECT_DOUBLE_EQ(ssl::auroc(std::vector{3.f, 3.f, 3.f}, std::vector{1, 0, 0}), 0.5);
  EXPECT_DOUBLE_EQ(ssl::auroc(std::vector{-INFINITY, INFINITY}, std::vector{0, 1}), 1);
  EXPECT_DOUBLE_EQ(ssl::auroc(std::vector{-INFINITY, INFINITY}, std::vector{1, 0}), 0);
}

TEST(Auroc, WantsBothClassesAndNumbers) {
  const auto refused = [](const std::vector<float>& scores, const std::vector<int>& labels, const std::string& words) {
    try {
      ssl::auroc(scores, labels);
      ADD_FAILURE() << words;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(words), std::string::npos) << error.what();
    }
  };
  refused({1, 2}, {1, 1}, "all are of class 1");
  refused({1, 2}, {0, 0}, "none are of class 1");
  refused({}, {}, "of 0 samples");
  refused({1, 2}, {0}, "2 scores for 1 labels");
  refused({1, NAN}, {0, 1}, "sample 1 is not a number");
}

TEST(Lbfgs, FindsTheMinimumOfRosenbrocksValley) {
  std::vector<float> x = {-1.2f, 1.f};
  const double least = ssl::minimize_lbfgs(
      [](const std::vector<float>& v, std::vector<float>& g) {
        const double a = double{v[0]}, b = double{v[1]};
        g[0] = static_cast<float>(-2 * (1 - a) - 400 * a * (b - a * a));
        g[1] = static_cast<float>(200 * (b - a * a));
        return (1 - a) * (1 - a) + 100 * (b - a * a) * (b - a * a);
      },
      x, {.max_iterations = 200, .gradient_tolerance = 1e-7, .decrease_tolerance = 0});
  EXPECT_LT(least, 1e-6);
  EXPECT_NEAR(x[0], 1.f, 1e-2f);
  EXPECT_NEAR(x[1], 1.f, 1e-2f);
}

TEST(LinearProbe, TellsSeparableCloudsApart) {
  const Clouds training = clouds(2000, 16, 5, 0.2f, 1), test = clouds(500, 16, 5, 0.2f, 2);
  const auto probe = ssl::fit_linear_probe(training.x, training.labels);
  EXPECT_GT(ssl::accuracy(probe.classify(test.x), test.labels), 0.995);
}

TEST(LinearProbe, HoldsBackWhereDimensionsOutnumberExamples) {
  // 60 examples of 200 dimensions under noise: without a penalty chosen for it, the fit would follow the noise.
  const Clouds training = clouds(60, 200, 5, 2.5f, 1), test = clouds(1000, 200, 5, 2.5f, 2);
  const auto chosen = ssl::fit_linear_probe(training.x, training.labels);
  EXPECT_GT(chosen.l2, 1e-3);
  EXPECT_GT(ssl::accuracy(chosen.classify(test.x), test.labels), 0.9);
}

TEST(LinearProbe, IsAtTheMinimumOfItsObjective) {
  // The gradient of mean cross-entropy + l2/2 |W|^2 vanishes: sum over examples of (p - y) is 0 for every class (bias).
  const Clouds c = clouds(400, 6, 3, 1.5f, 4);
  const auto probe = ssl::fit_linear_probe(c.x, c.labels, {.l2 = {1e-2}, .max_iterations = 500});
  std::vector<double> residual(3);
  for (int64_t r = 0; r < 400; ++r) {
    double logits[3], total = 0;
    for (int64_t k = 0; k < 3; ++k) {
      logits[k] = double{probe.bias.data<float>()[static_cast<size_t>(k)]};
      for (int64_t d = 0; d < 6; ++d)
        logits[k] += double{probe.weight.data<float>()[static_cast<size_t>(k * 6 + d)]} *
                     double{c.x.data<float>()[static_cast<size_t>(r * 6 + d)]};
      total += logits[k] = std::exp(logits[k]);
    }
    for (int k = 0; k < 3; ++k)
      residual[static_cast<size_t>(k)] += logits[k] / total - (c.labels[static_cast<size_t>(r)] == k);
  }
  for (const double v : residual) EXPECT_NEAR(v / 400, 0.0, 1e-3);
}

TEST(LinearProbe, ItsMarginsOfTwoClassesAreAboveZeroWhereItSaysTheSecond) {
  const Clouds training = clouds(200, 8, 2, 1.f, 1), test = clouds(300, 8, 2, 1.f, 2);
  const auto probe = ssl::fit_linear_probe(training.x, training.labels, {.l2 = {1e-2}});
  const std::vector<float> margins = probe.margins(test.x);
  const std::vector<int> said = probe.classify(test.x);
  ASSERT_EQ(margins.size(), said.size());
  for (size_t i = 0; i < said.size(); ++i) EXPECT_EQ(margins[i] > 0, said[i] == 1) << i;
  const Clouds three = clouds(90, 8, 3, 1.f, 1);
  EXPECT_THROW(ssl::fit_linear_probe(three.x, three.labels, {.l2 = {1e-2}}).margins(three.x), Error);
}

TEST(Worth, HasAurocWhereTwoClassesAreThere) {
  // margins are x: 3, 1, -1, -2, of which the classifier says 1, 1, 0, 0
  const ssl::LinearProbe probe{.weight = Tensor::from(std::vector{0.f, 1.f}, {2, 1}), .bias = Tensor::zeros({2})};
  const Tensor x = Tensor::from(std::vector{3.f, 1.f, -1.f, -2.f}, {4, 1});
  const ssl::Worth worth = ssl::worth_of(probe, x, std::vector{1, 0, 1, 0});
  EXPECT_DOUBLE_EQ(worth.accuracy, 0.5);
  EXPECT_DOUBLE_EQ(worth.auroc.value(), 0.75);
  EXPECT_FALSE(ssl::worth_of(probe, x, std::vector{1, 1, 1, 1}).auroc);
  const ssl::LinearProbe three{.weight = Tensor::zeros({3, 1}), .bias = Tensor::zeros({3})};
  EXPECT_FALSE(ssl::worth_of(three, x, std::vector{1, 0, 1, 0}).auroc);
}

TEST(Worth, AMeanHasItsStandardError) {
  const ssl::Mean mean = ssl::mean_of(std::vector{1., 2., 3., 6.});
  EXPECT_DOUBLE_EQ(mean.mean, 3);
  EXPECT_NEAR(mean.error, std::sqrt(14. / 3 / 4), 1e-12);
  EXPECT_DOUBLE_EQ(ssl::mean_of(std::vector{5.}).mean, 5);
  EXPECT_TRUE(std::isnan(ssl::mean_of(std::vector{5.}).error));
  EXPECT_THROW(ssl::mean_of({}), Error);
}

TEST(LowShot, TakesAsManyOfEachClass) {
  std::vector<int> labels;
  for (int i = 0; i < 1000; ++i) labels.push_back(i % 7 == 0 ? -1 : i % 4);
  const auto chosen = ssl::choose_per_class(labels, 42, 5);
  std::vector<int> counts(4);
  for (const int64_t i : chosen) {
    ASSERT_GE(labels[static_cast<size_t>(i)], 0);
    ++counts[static_cast<size_t>(labels[static_cast<size_t>(i)])];
  }
  EXPECT_EQ(counts, (std::vector<int>{10, 10, 10, 10}));
  EXPECT_EQ(chosen, ssl::choose_per_class(labels, 42, 5));
  EXPECT_NE(chosen, ssl::choose_per_class(labels, 42, 6));
}

TEST(LowShot, ASharesClassesAreAsLargeAsTheyAreAmongAll) {
  std::vector<int> labels;  // 800, 150 and 50 of three classes, 100 of none
  for (int i = 0; i < 1100; ++i) labels.push_back(i < 800 ? 0 : i < 950 ? 1 : i < 1000 ? 2 : -1);
  const auto counts = [&](double share) {
    std::vector<int64_t> of(3);
    for (const int64_t i : ssl::choose_share(labels, share, 5))
      ++of[static_cast<size_t>(labels.at(static_cast<size_t>(i)))];
    return of;
  };
  EXPECT_EQ(counts(0.1), (std::vector<int64_t>{80, 15, 5}));
  EXPECT_EQ(counts(100), counts(0.1));
  EXPECT_EQ(counts(0.02), (std::vector<int64_t>{15, 3, 2})) << "two of the last, where its part is one";
  EXPECT_EQ(counts(0.001), (std::vector<int64_t>{2, 2, 2}));
  EXPECT_EQ(counts(6), (std::vector<int64_t>{2, 2, 2}));
  EXPECT_EQ(counts(1000), (std::vector<int64_t>{800, 150, 50}));
  EXPECT_EQ(ssl::choose_share(labels, 0.1, 5), ssl::choose_share(labels, 0.1, 5));
  EXPECT_NE(ssl::choose_share(labels, 0.1, 5), ssl::choose_share(labels, 0.1, 6));
  std::vector<int64_t> drawn = ssl::choose_share(labels, 0.1, 5);
  std::ranges::sort(drawn);
  EXPECT_EQ(std::ranges::adjacent_find(drawn), drawn.end()) << "none twice";
}

TEST(LowShot, WhatIsNoShareIsRefused) {
  const std::vector<int> labels{0, 0, 0, 1, 1, 1, -1};
  for (const double share : {0., -0.1, 1., 3., 4.5, 7., std::nan(""), double{HUGE_VAL}})
    EXPECT_THROW(ssl::choose_share(labels, share), Error) << share;
  EXPECT_THROW(ssl::choose_share(std::vector{0, 0, 1}, 0.5), Error) << "one sample of a class";
  EXPECT_THROW(ssl::choose_share(std::vector{-1, -1}, 0.5), Error);
}

TEST(FineTune, LearnsLabelledBatchesAndIsRepeatable) {
  const auto batches = [](int64_t i) { return testing::tiny_batch(i % 8); };
  const ssl::FineTuneOptions options{.classes = 8, .iterations = 60, .trunk_lr = 5e-3f};
  const auto images = [](int64_t first, int64_t last) {
    Tensor x = testing::tiny_batch(3, 64, 21).images.slice(0, 64 * 256).slice(first * 256, last * 256);
    return x.with_segments({{last - first, 16, 16}});
  };
  const std::vector<int> labels = testing::tiny_batch(3, 64, 21).labels;
  const auto run = [&] { return ssl::fine_tune(testing::tiny_trunk(), batches, options).classify(images, 64, 24); };
  const auto predicted = run();
  EXPECT_GT(ssl::accuracy(predicted, labels), 0.6);  // chance is 1/8
  EXPECT_EQ(predicted, run());
}

}  // namespace
}  // namespace saccade
