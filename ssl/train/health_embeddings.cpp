#include <fmt/format.h>
#include <saccade/core/layer.h>
#include <saccade/ssl/train/health.h>

#include <Eigen/Eigenvalues>
#include <algorithm>
#include <cmath>

namespace saccade::ssl {

namespace {

constexpr int64_t kFoundAmong = 128;

const float* row(const Tensor& t, int64_t i) { return t.data<float>().data() + i * t.dim(1); }

double dot(const float* a, const float* b, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += double{a[i]} * double{b[i]};
  return sum;
}

/// How often the nearest of the images' second views is that of the image itself, and of the first ones to the second,
/// as retrieval_at_1(), of as many images as a reading can afford: the first ones.
double crop_found(const Tensor& embeddings, int64_t images) {
  const int64_t dim = embeddings.dim(1), among = std::min(images, kFoundAmong);
  using Rows = Eigen::Map<const Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>>;
  const Eigen::MatrixXf cosines =
      Rows(row(embeddings, images), among, dim) * Rows(row(embeddings, 0), among, dim).transpose();
  int64_t found = 0;
  for (int64_t i = 0; i < among; ++i) {
    // Where all are alike, the own one is not found because it comes first.
    const float own = cosines(i, i);
    found += (cosines.col(i).array() >= own).count() == 1 ? 1 : 0;
    found += (cosines.row(i).array() >= own).count() == 1 ? 1 : 0;
  }
  return static_cast<double>(found) / static_cast<double>(2 * among);
}

/// Of a share of crops that are found: odds tell 99 % from 90 % as well as 11 % from 1 %. None and all are as likely as
/// a reading can tell.
double odds(double share) {
  constexpr double least = 0.5 / kFoundAmong;
  const double p = std::clamp(share, least, 1 - least);
  return p / (1 - p);
}

}  // namespace

const Tensor* HealthMonitor::embeddings(const HealthLook& look) const {
  const Tensor* z = look.find("embeddings");
  if (z == nullptr) return nullptr;
  const bool whole = look.images > 0 && z->rank() == 2 && z->dim(0) >= rules_->views() * look.images;
  if (!whole && !std::isfinite(look.loss)) return nullptr;  // the iteration was broken off
  if (!whole)
    fail(fmt::format("health: embeddings {}; expected {} views of {} images at least", to_string(z->shape()),
                     rules_->views(), look.images));
  return z;
}

void HealthMonitor::measure_geometry(const HealthLook& look) {
  const Tensor* found = embeddings(look);
  if (found == nullptr) return;
  const Tensor& embeddings = *found;
  const int64_t views = rules_->views(), rows = views * look.images, dim = embeddings.dim(1);
  std::vector<double> mean(static_cast<size_t>(dim)), square(static_cast<size_t>(dim));
  for (int64_t r = 0; r < rows; ++r) {
    const float* z = row(embeddings, r);
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

  if (views < 2 || look.images < 2) {
    add("view margin", 1.0);
    return;
  }
  // All pairs of different images at once: sum over b != c of z_b . z'_c = (sum z) . (sum z') - sum over b of z_b .
  // z'_b.
  double same = 0, all = 0;
  std::vector<double> sums(static_cast<size_t>(2 * dim));
  for (int64_t b = 0; b < look.images; ++b) {
    const float *first = row(embeddings, b), *second = row(embeddings, look.images + b);
    same += dot(first, second, dim);
    for (int64_t d = 0; d < dim; ++d) {
      sums[static_cast<size_t>(d)] += double{first[d]};
      sums[static_cast<size_t>(dim + d)] += double{second[d]};
    }
  }
  for (int64_t d = 0; d < dim; ++d) all += sums[static_cast<size_t>(d)] * sums[static_cast<size_t>(dim + d)];
  const auto images = static_cast<double>(look.images);
  add("view margin", same / images - (all - same) / (images * (images - 1.0)));
  const double of_crops = crop_found(embeddings, look.images);
  add("crop found", of_crops);
  if (look.iteration == 0 && options_.untrained) first_found_ = of_crops;
  if (look.iteration < options_.found_from || std::isnan(first_found_)) return;
  average(mean_found_, of_crops);
  add("found gain", odds(mean_found_) / odds(first_found_));
}

void HealthMonitor::measure_spectrum(const HealthLook& look) {
  const Tensor* embeddings = this->embeddings(look);
  if (embeddings == nullptr) return;
  const int64_t dim = embeddings->dim(1), rows = std::min<int64_t>(rules_->views() * look.images, 512);
  const auto values = embeddings->data<float>().first(static_cast<size_t>(rows * dim));
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
  add("rank share", rank_ / static_cast<double>(dim));
  add("spectrum slope", slope_);
}

}  // namespace saccade::ssl
