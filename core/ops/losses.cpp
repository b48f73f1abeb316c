#include <fmt/format.h>
#include <saccade/core/autograd.h>
#include <saccade/core/compute.h>
#include <saccade/core/layer.h>
#include <saccade/core/ops.h>

namespace saccade {

namespace {

float* f32(const Tensor& t) { return static_cast<float*>(t.raw()); }

void check_f32_matrix(const char* op, const Tensor& t) {
  if (t.rank() != 2 || t.dtype() != DType::f32)
    fail(fmt::format("{}: expected an f32 matrix, got {} {}", op, name_of(t.dtype()), to_string(t.shape())));
}

/// A loss whose gradient at dloss = 1 was computed with it: backward only scales.
void record_loss(const Tensor& loss, const char* op, const Tensor& input, const Tensor& gradient) {
  autograd::record(loss, op, {input}, [gradient = gradient](Tensor dy, autograd::Gradients& to) mutable {
    Tensor dx = std::move(gradient);
    compute(dy.device(), kernels::Scale{dx.dtype(), dx.numel(), dx.raw(), 1.f, dx.raw(), f32(dy)});
    to.give(0, std::move(dx));
  });
}

}  // namespace

Tensor sinkhorn(const Tensor& scores, float eps, int iterations, int64_t last) {
  const DeviceScope device(scores.device());
  check_f32_matrix("sinkhorn", scores);
  if (!(eps > 0.f) || iterations < 1)
    fail(fmt::format("sinkhorn: eps {} and {} iterations; both must be positive", eps, iterations));
  if (last < 0 || last > scores.dim(0))
    fail(fmt::format("sinkhorn: the assignments of {} rows were asked for, there are {}", last, scores.dim(0)));
  kernels::Sinkhorn problem{.rows = scores.dim(0), .prototypes = scores.dim(1), .eps = eps, .iterations = iterations};
  const Tensor potentials = Tensor::empty({problem.prototypes});
  {
    auto& backend = kernels::backend(scores.device());
    kernels::SinkhornRows rows{problem, 0, f32(scores), f32(potentials)};
    const Workspace workspace(scores.device(), backend.workspace(rows));
    rows.workspace = workspace.data();
    kernels::SinkhornColumns columns{problem, 0, f32(scores), f32(potentials), nullptr, rows.workspace};
    for (int i = 0; i < iterations; ++i) {
      rows.iteration = columns.iteration = i;
      backend.run(rows);
      backend.run(columns);
    }
  }
  if (last > 0) problem.rows = last;
  Tensor q = Tensor::empty({problem.rows, problem.prototypes});
  const Tensor assigned = scores.slice(scores.dim(0) - problem.rows, scores.dim(0));
  compute(scores.device(), kernels::SinkhornAssign{problem, f32(assigned), f32(potentials), f32(q)});
  return q;
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
          kernels::SwappedPredictionLoss{problem, f32(scores), f32(assignments), f32(loss), f32(gradient)});
  if (autograd::recording({scores})) record_loss(loss, "swapped_prediction", scores, gradient);
  return loss;
}

Tensor cross_entropy(const Tensor& logits, const Tensor& labels) {
  const DeviceScope device(logits.device());
  check_f32_matrix("cross_entropy", logits);
  if (labels.dtype() != DType::i32 || labels.numel() != logits.dim(0))
    fail(fmt::format("cross_entropy: expected {} i32 labels, got {} {}", logits.dim(0), name_of(labels.dtype()),
                     to_string(labels.shape())));
  Tensor loss = Tensor::empty({1}), gradient = Tensor::empty_like(logits);
  compute(logits.device(), kernels::CrossEntropy{logits.dim(0), logits.dim(1), f32(logits),
                                                 static_cast<const int32_t*>(labels.raw()), f32(loss), f32(gradient)});
  if (autograd::recording({logits})) record_loss(loss, "cross_entropy", logits, gradient);
  return loss;
}

}  // namespace saccade
