#include <fmt/format.h>
#include <saccade/core/autograd.h>
#include <saccade/core/compute.h>
#include <saccade/core/dist/ranks.h>
#include <saccade/core/layer.h>
#include <saccade/core/ops.h>

#include <algorithm>
#include <cmath>
#include <vector>

namespace saccade {

namespace {

void check_f32_matrix(const char* op, const Tensor& t) {
  if (t.rank() != 2 || t.dtype() != DType::f32)
    fail(fmt::format("{}: expected an f32 matrix, got {} {}", op, name_of(t.dtype()), to_string(t.shape())));
}

/// A loss whose gradient at dloss = 1 was computed with it: backward only scales.
void record_loss(const Tensor& loss, const char* op, const Tensor& input, const Tensor& gradient) {
  autograd::record(loss, op, {input}, [gradient = gradient](Tensor dy, autograd::Gradients& to) mutable {
    Tensor dx = std::move(gradient);
    compute(dy.device(), kernels::Scale{dx.dtype(), dx.numel(), dx.raw(), 1.f, dx.raw(), floats(dy)});
    to.give(0, std::move(dx));
  });
}

}  // namespace

Tensor softmax(const Tensor& scores, float temperature, const Tensor& offset) {
  const DeviceScope device(scores.device());
  if (scores.rank() != 2 || scores.dtype() != DType::f32 || offset.dtype() != DType::f32 ||
      offset.shape() != Shape{scores.dim(1)} || !(temperature > 0.f))
    fail(
        fmt::format("softmax: scores {} {} with an offset {} {} and temperature {}; expected f32 (rows, K), (K) and "
                    "above 0",
                    name_of(scores.dtype()), to_string(scores.shape()), name_of(offset.dtype()),
                    to_string(offset.shape()), temperature));
  // The last step of an assignment, with potentials that are given.
  const kernels::Sinkhorn problem{.rows = scores.dim(0), .prototypes = scores.dim(1), .eps = temperature};
  Tensor q = Tensor::empty_like(scores);
  compute(scores.device(), kernels::SinkhornAssign{problem, floats(scores), floats(offset), floats(q)});
  return q;
}

Tensor mean_rows(const Tensor& x) {
  const DeviceScope device(x.device());
  if (x.rank() != 2 || x.dim(0) < 1)
    fail(fmt::format("mean_rows: expected (rows, C) of a row at least, got {}", to_string(x.shape())));
  const Tensor total = Tensor::empty({x.dim(1)});
  compute(x.device(), kernels::ColumnSum{x.dtype(), x.dim(0), x.dim(1), x.raw(), floats(total)});
  return scale(total, 1.f / static_cast<float>(x.dim(0)));
}

namespace {

/// Makes the potentials of this process's rows those of the rows of all processes (see kernels::Sinkhorn).
void exchange(const Tensor& potentials, const Tensor& largest, bool first, const dist::Ranks& ranks) {
  const int64_t k = potentials.dim(0);
  const int size = ranks.all->size();
  const Tensor own = Tensor::empty({k + 1}), all = Tensor::empty({size, k + 1});
  own.slice(0, k).copy_from(potentials);
  own.slice(k, k + 1).copy_from(largest);
  ranks.all->all_gather(own, all);
  if (all.device() == Device::meta) return;
  const Tensor parts = all.device() == Device::cpu ? all : all.to(Device::cpu);
  std::vector<float> joined(static_cast<size_t>(k));
  const float* a = parts.data<float>().data();
  for (int64_t i = 0; i < k; ++i) {
    const auto of = [&](int part) {
      const float* p = a + part * (k + 1);
      return double{p[i]} - (first ? double{p[k]} : 0.);
    };
    double least = of(0), sum = 0;
    for (int part = 1; part < size; ++part) least = std::min(least, of(part));
    for (int part = 0; part < size; ++part) sum += std::exp(least - of(part));
    joined[static_cast<size_t>(i)] = static_cast<float>(least - std::log(sum));
  }
  if (potentials.device() == Device::cpu) {
    std::ranges::copy(joined, potentials.data<float>().begin());
    return;
  }
  const DeviceScope here(Device::cpu);
  potentials.copy_from(Tensor::from(joined, {k}));
}

}  // namespace

Tensor sinkhorn(const Tensor& scores, float eps, int iterations, int64_t last, int64_t everywhere) {
  const DeviceScope device(scores.device());
  check_f32_matrix("sinkhorn", scores);
  if (!(eps > 0.f) || iterations < 1)
    fail(fmt::format("sinkhorn: eps {} and {} iterations; both must be positive", eps, iterations));
  if (last < 0 || last > scores.dim(0))
    fail(fmt::format("sinkhorn: the assignments of {} rows were asked for, there are {}", last, scores.dim(0)));
  const dist::Ranks* ranks = dist::current_ranks();
  if (ranks != nullptr && everywhere == 0) everywhere = scores.dim(0) / ranks->own() * ranks->images;
  const kernels::Sinkhorn problem{.rows = scores.dim(0),
                                  .prototypes = scores.dim(1),
                                  .eps = eps,
                                  .iterations = iterations,
                                  .rows_everywhere = ranks != nullptr ? everywhere : 0};
  const Tensor largest = ranks != nullptr ? Tensor::empty({1}) : Tensor();
  const Tensor potentials = Tensor::empty({problem.prototypes});
  {
    auto& backend = kernels::backend(scores.device());
    kernels::SinkhornRows rows{problem, 0, floats(scores), floats(potentials)};
    const Workspace workspace(scores.device(), backend.workspace(rows));
    rows.workspace = workspace.data();
    kernels::SinkhornColumns columns{
        problem, 0, floats(scores), floats(potentials), ranks != nullptr ? floats(largest) : nullptr, rows.workspace};
    for (int i = 0; i < iterations; ++i) {
      rows.iteration = columns.iteration = i;
      backend.run(rows);
      backend.run(columns);
      if (ranks != nullptr) exchange(potentials, largest, i == 0, *ranks);
    }
  }
  return softmax(last > 0 ? scores.slice(scores.dim(0) - last, scores.dim(0)) : scores, eps, potentials);
}

Tensor swapped_prediction(const Tensor& scores, const Tensor& assignments, int64_t batch, float temperature) {
  const DeviceScope device(scores.device());
  check_f32_matrix("swapped_prediction", scores);
  check_f32_matrix("swapped_prediction", assignments);
  const int64_t k = scores.dim(1);
  if (batch < 1 || scores.dim(0) % batch != 0 || assignments.dim(0) % batch != 0 || assignments.dim(1) != k)
    fail(fmt::format("swapped_prediction: scores {} and assignments {} of a batch of {}", to_string(scores.shape()),
                     to_string(assignments.shape()), batch));
  const kernels::SwappedPrediction problem{.batch = batch,
                                           .crops = scores.dim(0) / batch,
                                           .assigning = assignments.dim(0) / batch,
                                           .prototypes = k,
                                           .temperature = temperature};
  if (problem.crops < 2 || problem.assigning < 1 || problem.assigning > problem.crops)
    fail(fmt::format("swapped_prediction: {} crops, {} of them assigning; expected at least 2 crops", problem.crops,
                     problem.assigning));
  Tensor loss = Tensor::empty({1}), gradient = Tensor::empty_like(scores);
  compute(scores.device(),
          kernels::SwappedPredictionLoss{problem, floats(scores), floats(assignments), floats(loss), floats(gradient)});
  if (autograd::recording({scores})) record_loss(loss, "swapped_prediction", scores, gradient);
  return loss;
}

Tensor cross_entropy(const Tensor& logits, const Tensor& labels, bool without_own) {
  const DeviceScope device(logits.device());
  check_f32_matrix("cross_entropy", logits);
  if (labels.dtype() != DType::i32 || labels.numel() != logits.dim(0))
    fail(fmt::format("cross_entropy: expected {} i32 labels, got {} {}", logits.dim(0), name_of(labels.dtype()),
                     to_string(labels.shape())));
  if (without_own && (logits.dim(0) > logits.dim(1) || logits.dim(1) < 2))
    fail(fmt::format("cross_entropy: rows without a class of their own need one each and another, got {}",
                     to_string(logits.shape())));
  Tensor loss = Tensor::empty({1}), gradient = Tensor::empty_like(logits);
  compute(logits.device(),
          kernels::CrossEntropy{logits.dim(0), logits.dim(1), floats(logits), static_cast<const int32_t*>(labels.raw()),
                                floats(loss), floats(gradient), nullptr, without_own});
  if (autograd::recording({logits})) record_loss(loss, "cross_entropy", logits, gradient);
  return loss;
}

}  // namespace saccade
