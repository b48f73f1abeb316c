#include <fmt/format.h>
#include <saccade/core/autograd.h>
#include <saccade/core/compute.h>
#include <saccade/core/dist/ranks.h>
#include <saccade/core/layer.h>
#include <saccade/core/ops.h>

namespace saccade {

namespace {

/// The processes whose batch norms take their statistics together; null: this one alone.
const dist::Ranks* sharing() {
  const dist::Ranks* ranks = dist::current_ranks();
  return ranks == nullptr || ranks->statistics == nullptr || ranks->statistics->size() == 1 ? nullptr : ranks;
}

/// Joins the moments of all that share, which it gathers in one exchange: of each part the squares (f64), then the
/// means.
void gather(const kernels::BatchNormMoments& own, const dist::Ranks& ranks, Tensor& gathered,
            kernels::BatchNormMerge& merge) {
  const int64_t values = own.statistics_bytes() / 4, floats_of_part = 3 * values + values % 2;
  const dist::Ranks::Parts parts = ranks.parts_of_statistics();
  const Tensor part = Tensor::empty({floats_of_part});
  gathered = Tensor::empty({parts.count, floats_of_part});
  compute(part.device(), kernels::Copy{8 * values, own.squares(), part.raw()});
  compute(part.device(), kernels::Copy{4 * values, own.mean, part.slice(2 * values, 3 * values).raw()});
  ranks.statistics->all_gather(part, gathered);
  merge.parts = parts.count;
  merge.squares = static_cast<const double*>(gathered.raw());
  merge.means = floats(gathered) == nullptr ? nullptr : floats(gathered) + 2 * values;
  merge.part_floats = floats_of_part;
  merge.images = parts.each, merge.larger = parts.larger;
  if (ranks.own() > parts.each)  // its segments are those of the larger parts
    for (Segment& s : merge.segments) s.n -= s.n / ranks.own();
}

/// The factors (3, segments, channels) of the gradient: b and d of all rows, from those of each process's own.
Tensor factors_of_all(const kernels::BatchNormBackwardSums& own, const dist::Ranks& ranks) {
  const Tensor factors = Tensor::empty({3, own.statistics_bytes() / 4});
  compute(factors.device(), kernels::Copy{3 * own.statistics_bytes(), own.factors(), factors.raw()});
  const auto share =
      static_cast<float>(static_cast<double>(ranks.own()) / static_cast<double>(ranks.parts_of_statistics().images()));
  const Tensor summed = factors.slice(1, 3);
  compute(factors.device(), kernels::Scale{DType::f32, summed.numel(), summed.raw(), share, summed.raw()});
  ranks.statistics->all_reduce(summed);
  return factors;
}

}  // namespace

Tensor batch_norm(const Tensor& x, const Tensor& gamma, const Tensor& beta, const Tensor& running_mean,
                  const Tensor& running_var, BatchNormOptions options, const Tensor& residual) {
  const DeviceScope device(x.device());
  if (x.rank() != 2) fail(fmt::format("batch_norm: expected rows of channels, got {}", to_string(x.shape())));
  const kernels::BatchNorm norm{
      .channels = x.dim(1), .eps = options.eps, .momentum = options.momentum, .relu = options.relu, .dtype = x.dtype()};
  for (const Tensor& t : {gamma, beta, running_mean, running_var})
    if (t.shape() != Shape{norm.channels} || t.dtype() != DType::f32)
      fail(fmt::format("batch_norm: {} channels, but a parameter or statistic is {} {}", norm.channels,
                       name_of(t.dtype()), to_string(t.shape())));
  if (residual.defined() && (residual.shape() != x.shape() || residual.dtype() != x.dtype()))
    fail(fmt::format("batch_norm: residual {} {} does not match input {} {}", name_of(residual.dtype()),
                     to_string(residual.shape()), name_of(x.dtype()), to_string(x.shape())));
  const void* added = residual.defined() ? residual.raw() : nullptr;
  Tensor y = Tensor::empty_like(x);
  if (!options.training) {
    if (autograd::recording({x, gamma, beta, residual}))
      fail("batch_norm: gradients through running statistics are not computed; use training mode or a NoGradScope");
    compute(x.device(), kernels::BatchNormInference{norm, x.dim(0), x.raw(), added, floats(gamma), floats(beta),
                                                    floats(running_mean), floats(running_var), y.raw()});
    return y;
  }
  const Segments segments = x.is_images() ? x.segments() : Segments{{x.dim(0), 1, 1}};
  for (const Segment& s : segments)
    if (s.rows() < 2)
      fail(fmt::format("batch_norm: training needs at least 2 values a channel, a segment has {}", s.rows()));
  const auto groups = static_cast<int64_t>(segments.size());
  Tensor mean = Tensor::empty({groups, norm.channels}), rstd = Tensor::empty({groups, norm.channels});
  const bool counted = !FrozenStatisticsScope::active();
  const dist::Ranks* const ranks = sharing();
  if (ranks != nullptr)
    for (const Segment& s : segments)
      if (s.n % ranks->own() != 0)
        fail(fmt::format("batch_norm: {} images of a process's share of {}: not as many of each", s.n, ranks->own()));
  {
    auto& backend = kernels::backend(x.device());
    kernels::BatchNormMoments moments{norm, segments, x.raw(), floats(mean)};
    const Workspace workspace(x.device(), backend.workspace(moments));
    moments.workspace = workspace.data();
    backend.run(moments);
    kernels::BatchNormMerge merge{norm,
                                  segments,
                                  1,
                                  floats(mean),
                                  moments.squares(),
                                  floats(mean),
                                  floats(rstd),
                                  counted ? floats(running_mean) : nullptr,
                                  counted ? floats(running_var) : nullptr};
    Tensor gathered;
    if (ranks != nullptr) gather(moments, *ranks, gathered, merge);
    backend.run(merge);
    backend.run(kernels::BatchNormApply{norm, segments, x.raw(), added, floats(gamma), floats(beta), floats(mean),
                                        floats(rstd), y.raw()});
  }
  if (counted) {
    running_mean.bump_version();
    running_var.bump_version();
  }
  if (autograd::recording({x, gamma, beta, residual})) {
    // With a residual the ReLU mask can only be read off y (which the next layer keeps anyway); without, it is
    // recomputed from x, so y need not be kept for this op.
    const bool keep_y = norm.relu && residual.defined();
    const autograd::Saved kept(x), scale(gamma), shift(beta);
    if (KeepScope::current() == Keep::lean && !residual.defined())
      autograd::remakeable(y, [norm, segments, kept, scale, shift, mean, rstd] {
        const Tensor x = kept.get();
        Tensor y = Tensor::empty_like(x);
        compute(x.device(), kernels::BatchNormApply{norm, segments, x.raw(), nullptr, floats(scale.get()),
                                                    floats(shift.get()), floats(mean), floats(rstd), y.raw()});
        return y;
      });
    autograd::record(y, "batch_norm", {x, gamma, beta, residual},
                     [norm, segments, ranks, x = kept, y = keep_y ? autograd::Saved(y) : autograd::Saved(),
                      gamma = scale, beta = shift, mean, rstd](Tensor dy, autograd::Gradients& to) {
                       const Tensor input = x.get();
                       Tensor dresidual = to.wanted(3) ? Tensor::empty_like(input) : Tensor();
                       Tensor dx = dy.owns_memory_alone() ? dy : Tensor::empty_like(input);
                       Tensor dgamma, dbeta;
                       {
                         const TagScope tag(Tag::gradients);
                         dgamma = Tensor::empty({norm.channels});
                         dbeta = Tensor::empty({norm.channels});
                       }
                       {
                         auto& backend = kernels::backend(dy.device());
                         kernels::BatchNormBackwardSums sums{norm, segments};
                         const Workspace workspace(dy.device(), backend.workspace(sums));
                         const Tensor output = y.defined() ? y.get() : Tensor(), scale = gamma.get(),
                                      shift = beta.get();
                         const void* out = output.defined() ? output.raw() : nullptr;
                         sums = {norm,         segments,       input.raw(),   out,
                                 dy.raw(),     floats(scale),  floats(shift), floats(mean),
                                 floats(rstd), floats(dgamma), floats(dbeta), workspace.data()};
                         backend.run(sums);
                         Tensor of_all;
                         if (ranks != nullptr) of_all = factors_of_all(sums, *ranks);
                         backend.run(kernels::BatchNormBackwardMap{
                             norm, segments, input.raw(), out, dy.raw(), floats(scale), floats(shift), floats(mean),
                             floats(rstd), ranks != nullptr ? floats(of_all) : sums.factors(), dx.raw(),
                             dresidual.defined() ? dresidual.raw() : nullptr});
                       }
                       dy = Tensor();
                       to.give(1, std::move(dgamma));
                       to.give(2, std::move(dbeta));
                       if (dresidual.defined()) to.give(3, std::move(dresidual));
                       to.give(0, std::move(dx));
                     });
  }
  return y;
}

}  // namespace saccade
