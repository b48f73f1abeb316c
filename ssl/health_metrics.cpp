#include <saccade/ssl/health.h>

#include <Eigen/Eigenvalues>
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

namespace saccade::ssl {

namespace {

constexpr int64_t kRows =
    128;  ///< of scores and assignments looked at: enough for a mean, and cheap with many prototypes

const float* row(const Tensor& t, int64_t i) { return t.data<float>().data() + i * t.dim(1); }

double dot(const float* a, const float* b, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += double{a[i]} * double{b[i]};
  return sum;
}

double entropy(const std::vector<double>& p) {
  double h = 0;
  for (const double v : p)
    if (v > 0) h -= v * std::log(v);
  return h;
}

}  // namespace

void HealthMonitor::measure_geometry(const StepTensors& step) {
  const int64_t rows = step.assigning * step.batch, dim = step.embeddings.dim(1);
  std::vector<double> mean(static_cast<size_t>(dim)), square(static_cast<size_t>(dim));
  length_error_ = 0;
  for (int64_t r = 0; r < rows; ++r) {
    const float* z = row(step.embeddings, r);
    double length2 = 0;
    for (int64_t d = 0; d < dim; ++d) {
      const double v = double{z[d]};
      mean[static_cast<size_t>(d)] += v;
      square[static_cast<size_t>(d)] += v * v;
      length2 += v * v;
    }
    length_error_ = std::max(length_error_, std::abs(std::sqrt(length2) - 1.0));
  }
  double deviation = 0, common = 0;
  for (int64_t d = 0; d < dim; ++d) {
    const double m = mean[static_cast<size_t>(d)] / static_cast<double>(rows);
    deviation += std::sqrt(std::max(square[static_cast<size_t>(d)] / static_cast<double>(rows) - m * m, 0.0));
    common += m * m;
  }
  const double spread = deviation / std::sqrt(static_cast<double>(dim));  // sqrt(D) x the mean over D
  add("spread", spread);
  add("common direction", common);

  if (step.assigning < 2 || step.batch < 2) {
    add("view margin", 1.0);
    return;
  }
  // All pairs of different images at once: sum over b != c of z_b . z'_c = (sum z) . (sum z') - sum over b of z_b .
  // z'_b.
  double same = 0, all = 0;
  std::vector<double> sums(static_cast<size_t>(2 * dim));
  for (int64_t b = 0; b < step.batch; ++b) {
    const float *first = row(step.embeddings, b), *second = row(step.embeddings, step.batch + b);
    same += dot(first, second, dim);
    for (int64_t d = 0; d < dim; ++d) {
      sums[static_cast<size_t>(d)] += double{first[d]};
      sums[static_cast<size_t>(dim + d)] += double{second[d]};
    }
  }
  for (int64_t d = 0; d < dim; ++d) all += sums[static_cast<size_t>(d)] * sums[static_cast<size_t>(dim + d)];
  const auto images = static_cast<double>(step.batch);
  add("view margin", same / images - (all - same) / (images * (images - 1.0)));
}

void HealthMonitor::measure_assignments(const StepTensors& step, bool queue_in_use) {
  const int64_t rows = step.assigning * step.batch, k = step.assignments.dim(1);
  const double ln_k = std::log(static_cast<double>(k));
  const int64_t stride = std::max<int64_t>(1, rows / kRows);
  double h = 0, seen = 0;
  std::vector<double> prediction(static_cast<size_t>(k)), mean(static_cast<size_t>(k));
  for (int64_t r = 0; r < rows; r += stride, ++seen) {
    const float *q = row(step.assignments, r), *s = row(step.scores, r);
    double total = 0;
    const double top = double{*std::max_element(s, s + k)};
    for (int64_t i = 0; i < k; ++i) {
      if (q[i] > 0.f) h -= double{q[i]} * std::log(double{q[i]});
      prediction[static_cast<size_t>(i)] = std::exp((double{s[i]} - top) / double{model_.temperature});
      total += prediction[static_cast<size_t>(i)];
    }
    for (size_t i = 0; i < mean.size(); ++i) mean[i] += prediction[i] / total;
  }
  for (double& m : mean) m /= seen;
  if (mean_prediction_.empty()) mean_prediction_ = mean;
  for (size_t i = 0; i < mean.size(); ++i) mean_prediction_[i] += 0.1 * (mean[i] - mean_prediction_[i]);

  add("assignment entropy", h / seen / ln_k);
  add("prediction marginal", entropy(mean_prediction_) / ln_k);

  if (queue_in_use) return;  // column masses then count the queue's rows, which were not assigned
  double error = 0;
  for (int64_t crop = 0; crop < step.assigning; ++crop) {
    std::fill(mean.begin(), mean.end(), 0.0);
    for (int64_t b = 0; b < step.batch; ++b) {
      const float* q = row(step.assignments, crop * step.batch + b);
      for (size_t i = 0; i < mean.size(); ++i) mean[i] += double{q[i]};
    }
    for (const double m : mean)
      error = std::max(error, std::abs(static_cast<double>(k) * m / static_cast<double>(step.batch) - 1.0));
  }
  add("Sinkhorn error", error);
}

void HealthMonitor::measure_spectrum(const StepTensors& step) {
  const int64_t dim = step.embeddings.dim(1), rows = std::min<int64_t>(step.assigning * step.batch, 512);
  const auto values = step.embeddings.data<float>().first(static_cast<size_t>(rows * dim));
  gathered_.insert(gathered_.end(), values.begin(), values.end());
  const auto gathered = static_cast<int64_t>(gathered_.size()) / dim;
  if (gathered >= options_.spectrum_embeddings) {
    using Rows = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    const Eigen::Map<const Rows> z(gathered_.data(), gathered, dim);
    const Eigen::MatrixXd gram = (z.transpose() * z).cast<double>();
    gathered_.clear();
    if (gram.allFinite()) {
      const Eigen::VectorXd lambda =
          Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd>(gram, Eigen::EigenvaluesOnly).eigenvalues().cwiseMax(0.0);
      // RankMe (Garrido et al. 2023): the entropy of the singular values, which are roots of the Gram matrix's own.
      const Eigen::VectorXd sigma = lambda.cwiseSqrt();
      const double total = sigma.sum();
      double h = 0, sx = 0, sy = 0, sxx = 0, sxy = 0, n = 0;
      for (int64_t i = 0; i < dim; ++i) {
        const double q = sigma[i] / total + 1e-7;
        h -= q * std::log(q);
      }
      // alpha-ReQ (Agrawal et al. 2022): the slope of ln eigenvalue against ln rank; roundings of zero take no part.
      for (int64_t i = 0; i < dim; ++i) {
        const double value = lambda[dim - 1 - i];
        if (value < 1e-6 * lambda[dim - 1]) break;
        const double x = std::log(static_cast<double>(i + 1)), y = std::log(value);
        sx += x, sy += y, sxx += x * x, sxy += x * y, ++n;
      }
      rank_ = std::exp(h);
      slope_ = n > 1 ? -(n * sxy - sx * sy) / (n * sxx - sx * sx) : 0.0;
      // An untrained network's rank is high, and falls while it learns: that is no loss.
      if (reading_.iteration >= options_.settle_iterations + options_.stuck_iterations)
        best_rank_ = std::max(best_rank_, rank_);
    }
  }
  if (rank_ <= 0) return;
  add("effective rank", rank_, rank_ < kRankLeft * best_rank_ ? Band::warn : Band::healthy);
  add("spectrum slope", slope_);
}

std::string HealthMonitor::state() const {
  nlohmann::json j = {{"rank", rank_},
                      {"best rank", best_rank_},
                      {"slope", slope_},
                      {"mean gap", mean_gap_},
                      {"mean spread", mean_spread_},
                      {"mean common", mean_common_},
                      {"mean prediction", mean_prediction_},
                      {"losses", losses_},
                      {"before queue", before_queue_},
                      {"readings of queue", readings_of_queue_}};
  for (const auto& [name, streak] : streaks_) j["streaks"][name] = {streak.readings, streak.calm, streak.told};
  return j.dump();
}

std::vector<NamedTensor> HealthMonitor::state_tensors() const {
  if (gathered_.empty()) return {};
  return {{"gathered", Tensor::from(gathered_, {static_cast<int64_t>(gathered_.size())})}};
}

void HealthMonitor::load_state(const std::string& json, const std::vector<NamedTensor>& tensors) {
  const auto j = nlohmann::json::parse(json);
  // JSON has no infinities: what was not finite comes back as null.
  const auto number = [](const nlohmann::json& v) { return v.is_null() ? std::nan("") : v.get<double>(); };
  rank_ = number(j.at("rank"));
  best_rank_ = number(j.at("best rank"));
  slope_ = number(j.at("slope"));
  mean_gap_ = number(j.at("mean gap"));
  mean_spread_ = number(j.at("mean spread"));
  mean_common_ = number(j.at("mean common"));
  before_queue_ = number(j.at("before queue"));
  readings_of_queue_ = j.at("readings of queue").get<int64_t>();
  mean_prediction_.clear();
  for (const auto& v : j.at("mean prediction")) mean_prediction_.push_back(number(v));
  losses_.clear();
  for (const auto& v : j.at("losses")) losses_.push_back(number(v));
  streaks_.clear();
  if (j.contains("streaks"))
    for (const auto& [name, streak] : j.at("streaks").items())
      streaks_[name] = {streak.at(0).get<int64_t>(), streak.at(1).get<int64_t>(), streak.at(2).get<bool>()};
  gathered_.clear();
  for (const NamedTensor& t : tensors)
    if (t.name == "gathered") gathered_.assign(t.tensor.data<float>().begin(), t.tensor.data<float>().end());
}

}  // namespace saccade::ssl
