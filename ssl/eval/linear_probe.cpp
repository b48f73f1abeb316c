#include <fmt/format.h>
#include <saccade/core/autograd.h>
#include <saccade/core/layer.h>
#include <saccade/core/ops.h>
#include <saccade/ssl/eval/features.h>
#include <saccade/ssl/eval/lbfgs.h>
#include <saccade/ssl/eval/linear_probe.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace saccade::ssl {

namespace {

struct Labelled {
  Tensor x;       ///< (N, D), standardised
  Tensor labels;  ///< (N), i32
};

struct Standard {
  std::vector<double> mean, deviation;
};

Standard standard_of(const Tensor& x) {
  const int64_t rows = x.dim(0);
  const auto dim = static_cast<size_t>(x.dim(1));
  Standard s{.mean = std::vector<double>(dim), .deviation = std::vector<double>(dim)};
  const float* v = x.data<float>().data();
  for (int64_t r = 0; r < rows; ++r)
    for (size_t d = 0; d < dim; ++d) s.mean[d] += double{v[static_cast<size_t>(r) * dim + d]};
  for (double& m : s.mean) m /= static_cast<double>(rows);
  for (int64_t r = 0; r < rows; ++r)
    for (size_t d = 0; d < dim; ++d)
      s.deviation[d] += std::pow(double{v[static_cast<size_t>(r) * dim + d]} - s.mean[d], 2);
  // A constant feature says nothing: leave it at zero instead of dividing by its deviation.
  for (double& d : s.deviation) d = d > 0 ? std::sqrt(d / static_cast<double>(rows)) : 1.0;
  return s;
}

Tensor standardised(const Tensor& x, const Standard& s) {
  Tensor y = Tensor::empty(x.shape());
  const size_t dim = s.mean.size();
  const float* from = x.data<float>().data();
  float* to = y.data<float>().data();
#pragma omp parallel for schedule(static)
  for (int64_t r = 0; r < x.dim(0); ++r)
    for (size_t d = 0; d < dim; ++d) {
      const size_t i = static_cast<size_t>(r) * dim + d;
      to[i] = static_cast<float>((double{from[i]} - s.mean[d]) / s.deviation[d]);
    }
  return y;
}

Labelled rows_of(const Labelled& all, const std::vector<int64_t>& rows) {
  std::vector<int32_t> labels;
  labels.reserve(rows.size());
  for (const int64_t r : rows) labels.push_back(all.labels.data<int32_t>()[static_cast<size_t>(r)]);
  return {gather_rows(all.x, rows), Tensor::from(labels, {static_cast<int64_t>(rows.size())})};
}

/// Weight (classes, D) and bias behind one another.
struct Parameters {
  int64_t classes, dim;
  std::vector<float> values = std::vector<float>(static_cast<size_t>(classes * (dim + 1)), 0.f);

  std::span<const float> weight() const { return {values.data(), static_cast<size_t>(classes * dim)}; }
  std::span<const float> bias() const { return {values.data() + classes * dim, static_cast<size_t>(classes)}; }
};

double log_loss(const Labelled& data, const Parameters& p) {
  const NoGradScope no_grad;
  const Tensor w = Tensor::from(p.weight(), {p.classes, p.dim}), b = Tensor::from(p.bias(), {p.classes});
  return double{cross_entropy(linear(data.x, w, b), data.labels).item()};
}

void fit(const Labelled& data, double l2, int max_iterations, Parameters& p) {
  Tensor w = Tensor::empty({p.classes, p.dim}).requires_grad_(), b = Tensor::empty({p.classes}).requires_grad_();
  const auto weights = static_cast<size_t>(p.classes * p.dim);
  const auto value = [&](const std::vector<float>& x, std::vector<float>& gradient) {
    std::copy_n(x.begin(), weights, w.data<float>().begin());
    std::copy(x.begin() + static_cast<int64_t>(weights), x.end(), b.data<float>().begin());
    w.set_grad({});
    b.set_grad({});
    const Tensor loss = cross_entropy(linear(data.x, w, b), data.labels);
    loss.backward();
    double penalty = 0;
    for (size_t i = 0; i < weights; ++i) {
      penalty += double{x[i]} * double{x[i]};
      gradient[i] = w.grad().data<float>()[i] + static_cast<float>(l2) * x[i];
    }
    std::copy(b.grad().data<float>().begin(), b.grad().data<float>().end(),
              gradient.begin() + static_cast<int64_t>(weights));
    return double{loss.item()} + 0.5 * l2 * penalty;
  };
  minimize_lbfgs(value, p.values, {.max_iterations = max_iterations});
}

/// Log loss of each strength on rows held out: five folds of few rows, a tenth of many. `start` gets the best one's
/// fit, from which the fit of all rows has but a short way.
double choose_l2(const Labelled& data, int64_t classes, const LinearProbeOptions& options, Parameters& start) {
  const int64_t rows = data.x.dim(0), dim = data.x.dim(1);
  const int64_t stride = std::max<int64_t>(1, (rows + options.selection_rows - 1) / options.selection_rows);
  const int64_t parts = rows / stride < 5000 ? 5 : 10, folds = rows / stride < 5000 ? 5 : 1;
  std::vector<double> loss(options.l2.size(), 0.0);
  std::vector<Parameters> fits;
  for (int64_t fold = 0; fold < folds; ++fold) {
    std::vector<int64_t> kept, held_out;
    for (int64_t r = 0; r < rows; r += stride) (r / stride % parts == fold ? held_out : kept).push_back(r);
    if (kept.empty() || held_out.empty()) return options.l2.front();
    const Labelled training = rows_of(data, kept), checking = rows_of(data, held_out);
    Parameters p{.classes = classes, .dim = dim};
    for (size_t i = 0; i < loss.size(); ++i) {  // each strength starts from the one before
      fit(training, options.l2[i], options.max_iterations, p);
      loss[i] += log_loss(checking, p);
      if (fold == 0) fits.push_back(p);
    }
  }
  const auto best = static_cast<size_t>(std::min_element(loss.begin(), loss.end()) - loss.begin());
  start = fits[best];
  return options.l2[best];
}

}  // namespace

LinearProbe fit_linear_probe(const Tensor& features, std::span<const int> labels, LinearProbeOptions options) {
  const DeviceScope here(Device::cpu);
  if (features.rank() != 2 || features.dtype() != DType::f32 || features.dim(0) < 1 ||
      features.dim(0) != static_cast<int64_t>(labels.size()))
    fail(fmt::format("fit_linear_probe: features {} {} with {} labels; expected an f32 matrix with a label a row",
                     name_of(features.dtype()), to_string(features.shape()), labels.size()));
  if (options.l2.empty()) fail("fit_linear_probe: no strength of the L2 penalty to choose from");
  if (*std::min_element(labels.begin(), labels.end()) < 0) fail("fit_linear_probe: negative label; labels are from 0");
  const int64_t classes = *std::max_element(labels.begin(), labels.end()) + 1, dim = features.dim(1);
  const Standard s = standard_of(features);
  const std::vector<int32_t> targets(labels.begin(), labels.end());
  const Labelled data{standardised(features, s), Tensor::from(targets, {features.dim(0)})};

  LinearProbe probe;
  Parameters p{.classes = classes, .dim = dim};
  probe.l2 = options.l2.size() == 1 ? options.l2.front() : choose_l2(data, classes, options, p);
  fit(data, probe.l2, options.max_iterations, p);

  probe.weight = Tensor::empty({classes, dim});
  probe.bias = Tensor::empty({classes});
  for (int64_t c = 0; c < classes; ++c) {
    double bias = double{p.bias()[static_cast<size_t>(c)]};
    for (int64_t d = 0; d < dim; ++d) {
      const auto i = static_cast<size_t>(c * dim + d);
      const double w = double{p.weight()[i]} / s.deviation[static_cast<size_t>(d)];
      probe.weight.data<float>()[i] = static_cast<float>(w);
      bias -= w * s.mean[static_cast<size_t>(d)];
    }
    probe.bias.data<float>()[static_cast<size_t>(c)] = static_cast<float>(bias);
  }
  return probe;
}

std::vector<int> LinearProbe::classify(const Tensor& features) const {
  const NoGradScope no_grad;
  const Tensor logits = linear(features, weight, bias);
  const int64_t classes = logits.dim(1);
  std::vector<int> predicted;
  for (int64_t r = 0; r < logits.dim(0); ++r) {
    const float* row = logits.data<float>().data() + r * classes;
    predicted.push_back(static_cast<int>(std::max_element(row, row + classes) - row));
  }
  return predicted;
}

std::vector<float> LinearProbe::margins(const Tensor& features) const {
  const NoGradScope no_grad;
  const Tensor logits = linear(features, weight, bias);
  if (logits.dim(1) != 2) fail(fmt::format("margins: a classifier of {} classes, expected two", logits.dim(1)));
  const auto values = logits.data<float>();
  std::vector<float> margins;
  for (size_t i = 0; i < values.size(); i += 2) margins.push_back(values[i + 1] - values[i]);
  return margins;
}

}  // namespace saccade::ssl
