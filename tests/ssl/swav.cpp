#include <gtest/gtest.h>
#include <saccade/core/autograd.h>
#include <saccade/core/ops.h>
#include <saccade/kernels/error.h>
#include <saccade/nn/optim/optimizer.h>
#include <saccade/ssl/methods/swav.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "tiny.h"

namespace saccade {
namespace {

using ssl::StepTensors;
using ssl::SwAV;
using ssl::SwAVOptions;
using testing::tiny_batch;
using testing::tiny_options;
using testing::tiny_trunk;

using Matrix = std::vector<std::vector<double>>;

Matrix matrix(const Tensor& t) {
  Matrix m(static_cast<size_t>(t.dim(0)), std::vector<double>(static_cast<size_t>(t.dim(1))));
  for (size_t r = 0; r < m.size(); ++r)
    for (size_t c = 0; c < m[r].size(); ++c) m[r][c] = double{t.data<float>()[r * m[r].size() + c]};
  return m;
}

/// Sinkhorn-Knopp as the authors' program has it: exponentials, prototypes first, samples last.
Matrix sinkhorn_by_exponentials(const Matrix& scores, double eps, int iterations) {
  const size_t n = scores.size(), k = scores[0].size();
  Matrix q = scores;
  double total = 0;
  for (auto& row : q)
    for (double& v : row) total += v = std::exp(v / eps);
  for (auto& row : q)
    for (double& v : row) v /= total;
  for (int i = 0; i < iterations; ++i) {
    for (size_t c = 0; c < k; ++c) {
      double sum = 0;
      for (size_t r = 0; r < n; ++r) sum += q[r][c];
      for (size_t r = 0; r < n; ++r) q[r][c] /= sum * static_cast<double>(k);
    }
    for (auto& row : q) {
      double sum = 0;
      for (const double v : row) sum += v;
      for (double& v : row) v /= sum * static_cast<double>(n);
    }
  }
  for (auto& row : q)
    for (double& v : row) v *= static_cast<double>(n);
  return q;
}

std::vector<double> softmax(const std::vector<double>& s, double temperature) {
  std::vector<double> p;
  double total = 0;
  for (const double v : s) total += p.emplace_back(std::exp(v / temperature));
  for (double& v : p) v /= total;
  return p;
}

/// The loss in double, as the paper has it: every crop but i predicts the assignment of crop i.
double swapped_loss(const Matrix& scores, const Matrix& q, size_t batch, size_t assigning, double temperature) {
  const size_t crops = scores.size() / batch;
  double loss = 0;
  for (size_t i = 0; i < assigning; ++i)
    for (size_t v = 0; v < crops; ++v)
      for (size_t b = 0; b < batch && v != i; ++b) {
        const auto p = softmax(scores[v * batch + b], temperature);
        for (size_t k = 0; k < p.size(); ++k) loss -= q[i * batch + b][k] * std::log(p[k]);
      }
  return loss / static_cast<double>(assigning * (crops - 1) * batch);
}

TEST(SwAV, LossAndAssignmentsAreThoseOfThePaper) {
  SwAV model(tiny_trunk(), tiny_options(), 3);
  StepTensors seen;
  const Tensor loss = model.loss(tiny_batch(0), 0, &seen);
  EXPECT_EQ(seen.crops, 4);
  const Matrix scores = matrix(seen.scores);
  for (size_t crop = 0; crop < 2; ++crop) {
    const Matrix mine(scores.begin() + static_cast<int64_t>(crop * 16),
                      scores.begin() + static_cast<int64_t>(crop * 16 + 16));
    const Matrix expected = sinkhorn_by_exponentials(mine, 0.05, 3);
    for (size_t b = 0; b < 16; ++b)
      for (size_t k = 0; k < 12; ++k)
        EXPECT_NEAR(seen.assignments.data<float>()[(crop * 16 + b) * 12 + k], expected[b][k], 1e-5);
  }
  EXPECT_NEAR(double{loss.item()}, swapped_loss(scores, matrix(seen.assignments), 16, 2, 0.1), 1e-5);
}

TEST(SwAV, EmbeddingsAndPrototypesAreOfUnitLength) {
  SwAV model(tiny_trunk(), tiny_options(), 3);
  StepTensors seen;
  model.loss(tiny_batch(0), 0, &seen);
  for (const Tensor& t : {seen.embeddings, model.prototypes()})
    for (const auto& row : matrix(t)) {
      double length = 0;
      for (const double v : row) length += v * v;
      EXPECT_NEAR(length, 1.0, 1e-5);
    }
}

TEST(SwAV, GradientOfScoresIsTheFormulaOfTheSoftmax) {
  const int64_t batch = 5, k = 7;
  Philox random(11);
  std::vector<float> s(static_cast<size_t>(4 * batch * k));
  for (float& v : s) v = random.uniform(-0.5f, 0.5f);
  const Tensor scores = Tensor::from(s, {4 * batch, k}).requires_grad_();
  const Tensor q = sinkhorn(scores.detach().slice(0, 2 * batch), 0.05f, 3);
  swapped_prediction(scores, q, batch, 0.1f).backward();
  const Matrix ms = matrix(scores), mq = matrix(q);
  for (size_t v = 0; v < 4; ++v)
    for (size_t b = 0; b < 5; ++b) {
      const auto p = softmax(ms[v * 5 + b], 0.1);
      for (size_t c = 0; c < 7; ++c) {
        double expected = 0;
        for (size_t i = 0; i < 2; ++i)
          if (i != v) expected += (p[c] - mq[i * 5 + b][c]) / (0.1 * 5 * 3 * 2);
        EXPECT_NEAR(double{scores.grad().data<float>()[(v * 5 + b) * 7 + c]}, expected, 1e-5);
      }
    }
}

TEST(SwAV, GradientOfPrototypesAgreesWithFiniteDifferences) {
  SwAV model(tiny_trunk(), tiny_options(), 3);
  StepTensors seen;
  model.loss(tiny_batch(0), 0, &seen).backward();
  const Tensor gradient = model.prototypes().grad();
  const Matrix z = matrix(seen.embeddings), q = matrix(seen.assignments);
  const auto loss_with = [&](const Matrix& c) {
    Matrix scores(z.size(), std::vector<double>(c.size()));
    for (size_t r = 0; r < z.size(); ++r)
      for (size_t k = 0; k < c.size(); ++k)
        for (size_t d = 0; d < c[k].size(); ++d) scores[r][k] += z[r][d] * c[k][d];
    return swapped_loss(scores, q, 16, 2, 0.1);  // assignments are targets: they stay
  };
  const Matrix at = matrix(model.prototypes());
  for (size_t k = 0; k < 12; k += 3)
    for (size_t d = 0; d < 16; d += 5) {
      Matrix up = at, down = at;
      up[k][d] += 1e-4;
      down[k][d] -= 1e-4;
      EXPECT_NEAR(double{gradient.data<float>()[k * 16 + d]}, (loss_with(up) - loss_with(down)) / 2e-4, 1e-4);
    }
}

TEST(SwAV, LossOfACollapsedNetworkIsLogOfThePrototypes) {
  // All scores equal: assignments and predictions are uniform.
  const Tensor scores = Tensor::full({4 * 6, 3000}, 0.3f);
  const Tensor q = sinkhorn(scores.slice(0, 12), 0.05f, 3);
  EXPECT_NEAR(swapped_prediction(scores, q, 6, 0.1f).item(), 8.006f, 1e-3f);
}

TEST(SwAV, QueueHoldsTheNewestEmbeddingsFirstAndWaitsUntilItIsFull) {
  SwAVOptions options = tiny_options();
  options.queue_length = 32;  // two batches
  options.queue_start_iteration = 1;
  SwAV model(tiny_trunk(), options, 3);
  StepTensors steps[4];
  for (int64_t i = 0; i < 4; ++i) {
    EXPECT_EQ(model.queue_in_use(i), i == 3) << "iteration " << i;
    model.loss(tiny_batch(i), i, &steps[i]);
  }
  const auto buffers = model.named_buffers();
  for (size_t crop = 0; crop < 2; ++crop) {
    const auto found = std::find_if(buffers.begin(), buffers.end(),
                                    [&](const NamedTensor& b) { return b.name == (crop == 0 ? "queue0" : "queue1"); });
    ASSERT_NE(found, buffers.end());
    const auto queue = found->tensor.data<float>();
    for (size_t i = 0; i < 16 * 16; ++i) {  // 16 images of 16 dimensions a batch
      EXPECT_EQ(queue[i], steps[3].embeddings.data<float>()[crop * 256 + i]);
      EXPECT_EQ(queue[256 + i], steps[2].embeddings.data<float>()[crop * 256 + i]);
    }
  }
}

TEST(SwAV, AssignmentsWithAQueueAreTheLastRowsOfAllScoresTogether) {
  SwAVOptions options = tiny_options();
  options.queue_length = 16;
  SwAV model(tiny_trunk(), options, 3);
  StepTensors earlier, now;
  model.loss(tiny_batch(0), 0, &earlier);
  model.loss(tiny_batch(1), 1, &now);
  const Matrix z = matrix(earlier.embeddings), c = matrix(model.prototypes()), scores = matrix(now.scores);
  for (size_t crop = 0; crop < 2; ++crop) {
    Matrix all;
    for (size_t b = 0; b < 16; ++b) {
      std::vector<double> row(12);
      for (size_t k = 0; k < 12; ++k)
        for (size_t d = 0; d < 16; ++d) row[k] += z[crop * 16 + b][d] * c[k][d];
      all.push_back(row);
    }
    for (size_t b = 0; b < 16; ++b) all.push_back(scores[crop * 16 + b]);
    const Matrix expected = sinkhorn_by_exponentials(all, 0.05, 3);
    for (size_t b = 0; b < 16; ++b)
      for (size_t k = 0; k < 12; ++k)
        EXPECT_NEAR(now.assignments.data<float>()[(crop * 16 + b) * 12 + k], expected[16 + b][k], 2e-5);
  }
}

TEST(SwAV, FrozenPrototypesKeepTheirDirections) {
  SwAVOptions options = tiny_options();
  options.freeze_prototypes_iterations = 2;
  SwAV model(tiny_trunk(), options, 3);
  const auto optimizer = optim::larc_sgd().build(model.named_parameters());
  Tensor first;
  for (int64_t i = 0; i < 3; ++i) {
    optimizer->zero_grad();
    model.loss(tiny_batch(i), i).backward();
    EXPECT_EQ(model.prototypes().grad().defined(), i == 2);
    if (i == 0) first = model.prototypes().clone();
    optimizer->step(1.f);
    double change = 0;
    for (int64_t j = 0; j < first.numel(); ++j)
      change += std::abs(first.data<float>()[static_cast<size_t>(j)] -
                         model.prototypes().data<float>()[static_cast<size_t>(j)]);
    if (i < 2)
      EXPECT_LT(change, 1e-4) << "iteration " << i;  // normalising anew may round
    else
      EXPECT_GT(change, 1e-2);
  }
}

TEST(SwAV, HardAssignmentsAreOneHot) {
  SwAVOptions options = tiny_options();
  options.hard_assignment_iterations = 1;
  SwAV model(tiny_trunk(), options, 3);
  StepTensors hard, soft;
  model.loss(tiny_batch(0), 0, &hard);
  model.loss(tiny_batch(0), 1, &soft);
  for (const auto& row : matrix(hard.assignments)) {
    EXPECT_EQ(std::count(row.begin(), row.end(), 1.0), 1);
    EXPECT_EQ(std::count(row.begin(), row.end(), 0.0), 11);
  }
  for (const auto& row : matrix(soft.assignments)) EXPECT_EQ(std::count(row.begin(), row.end(), 1.0), 0);
}

TEST(SwAV, SaysWhatIsWrongWithABatch) {
  SwAV model(tiny_trunk(), tiny_options(), 3);
  Batch batch = tiny_batch(0);
  batch.indices.pop_back();
  EXPECT_THROW(model.loss(batch, 0), Error);
  SwAVOptions options = tiny_options();
  options.queue_length = 8;
  SwAV queued(tiny_trunk(), options, 3);
  EXPECT_THROW(queued.loss(tiny_batch(0), 0), Error);
}

}  // namespace
}  // namespace saccade
