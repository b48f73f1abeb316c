#include <support/reference.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>

namespace saccade::reference {
namespace {

size_t at(int64_t i) { return static_cast<size_t>(i); }

/// Calls body(segment's index, first row) for each segment.
template <class Body>
void each_segment(const Segments& segments, Body body) {
  int64_t row = 0;
  for (size_t s = 0; s < segments.size(); ++s) {
    body(s, row);
    row += segments[s].rows();
  }
}

double log_sum_exp(const double* v, int64_t n, double factor) {
  double top = -std::numeric_limits<double>::infinity();
  for (int64_t i = 0; i < n; ++i) top = std::max(top, v[i] * factor);
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += std::exp(v[i] * factor - top);
  return top + std::log(sum);
}

}  // namespace

Values conv2d(const kernels::Conv2d& conv, const Segments& in, const Values& x, const Values& w) {
  Values y;
  const int64_t in_group = conv.in_channels / conv.groups, out_group = conv.out_channels / conv.groups;
  each_segment(in, [&](size_t s, int64_t first) {
    const Segment &a = in[s], b = conv.output(in[s]);
    for (int64_t n = 0; n < b.n; ++n)
      for (int64_t i = 0; i < b.h; ++i)
        for (int64_t j = 0; j < b.w; ++j)
          for (int64_t o = 0; o < conv.out_channels; ++o) {
            double sum = 0;
            for (int64_t ki = 0; ki < conv.kernel; ++ki)
              for (int64_t kj = 0; kj < conv.kernel; ++kj) {
                const int64_t r = i * conv.stride - conv.padding + ki, c = j * conv.stride - conv.padding + kj;
                if (r < 0 || r >= a.h || c < 0 || c >= a.w) continue;
                const int64_t pixel = first + (n * a.h + r) * a.w + c;
                for (int64_t d = 0; d < in_group; ++d)
                  sum += x[at(pixel * conv.in_channels + o / out_group * in_group + d)] *
                         w[at(((o * conv.kernel + ki) * conv.kernel + kj) * in_group + d)];
              }
            y.push_back(sum);
          }
  });
  return y;
}

Values linear(int64_t rows, int64_t in, int64_t out, const Values& x, const Values& w, const Values& bias) {
  Values y;
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t o = 0; o < out; ++o) {
      double sum = bias.empty() ? 0.0 : bias[at(o)];
      for (int64_t i = 0; i < in; ++i) sum += x[at(r * in + i)] * w[at(o * in + i)];
      y.push_back(sum);
    }
  return y;
}

Values batch_norm(const Segments& segments, int64_t channels, double eps, bool relu, const Values& x,
                  const Values& gamma, const Values& beta, const Values& residual) {
  Values y(x.size());
  each_segment(segments, [&](size_t s, int64_t first) {
    const int64_t rows = segments[s].rows();
    for (int64_t c = 0; c < channels; ++c) {
      double mean = 0, var = 0;
      for (int64_t r = first; r < first + rows; ++r) mean += x[at(r * channels + c)] / static_cast<double>(rows);
      for (int64_t r = first; r < first + rows; ++r)
        var += (x[at(r * channels + c)] - mean) * (x[at(r * channels + c)] - mean) / static_cast<double>(rows);
      for (int64_t r = first; r < first + rows; ++r) {
        const size_t i = at(r * channels + c);
        double v = gamma[at(c)] * (x[i] - mean) / std::sqrt(var + eps) + beta[at(c)];
        if (!residual.empty()) v += residual[i];
        y[i] = relu ? std::max(v, 0.0) : v;
      }
    }
  });
  return y;
}

Values batch_norm_inference(int64_t channels, double eps, bool relu, const Values& x, const Values& gamma,
                            const Values& beta, const Values& mean, const Values& var, const Values& residual) {
  Values y(x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    const size_t c = i % at(channels);
    double v = gamma[c] * (x[i] - mean[c]) / std::sqrt(var[c] + eps) + beta[c];
    if (!residual.empty()) v += residual[i];
    y[i] = relu ? std::max(v, 0.0) : v;
  }
  return y;
}

Values global_avg_pool(const Segments& segments, int64_t channels, const Values& x) {
  Values y;
  each_segment(segments, [&](size_t s, int64_t first) {
    const int64_t pixels = segments[s].h * segments[s].w;
    for (int64_t n = 0; n < segments[s].n; ++n)
      for (int64_t c = 0; c < channels; ++c) {
        double sum = 0;
        for (int64_t p = 0; p < pixels; ++p) sum += x[at((first + n * pixels + p) * channels + c)];
        y.push_back(sum / static_cast<double>(pixels));
      }
  });
  return y;
}

Values squeeze_excite(const Segments& segments, int64_t channels, int64_t reduced, const Values& x, const Values& w1,
                      const Values& b1, const Values& w2, const Values& b2) {
  const int64_t images = total_images(segments);
  Values hidden = linear(images, channels, reduced, global_avg_pool(segments, channels, x), w1, b1);
  for (double& h : hidden) h = std::max(h, 0.0);
  Values gate = linear(images, reduced, channels, hidden, w2, b2);
  for (double& g : gate) g = 1.0 / (1.0 + std::exp(-g));
  Values y(x.size());
  int64_t image = 0;
  each_segment(segments, [&](size_t s, int64_t first) {
    const int64_t pixels = segments[s].h * segments[s].w;
    for (int64_t r = 0; r < segments[s].rows(); ++r)
      for (int64_t c = 0; c < channels; ++c)
        y[at((first + r) * channels + c)] =
            x[at((first + r) * channels + c)] * gate[at((image + r / pixels) * channels + c)];
    image += segments[s].n;
  });
  return y;
}

Values max_pool2d(const kernels::Conv2d& window, const Segments& in, const Values& x) {
  Values y;
  const int64_t channels = window.in_channels;
  each_segment(in, [&](size_t s, int64_t first) {
    const Segment &a = in[s], b = window.output(in[s]);
    for (int64_t n = 0; n < b.n; ++n)
      for (int64_t i = 0; i < b.h; ++i)
        for (int64_t j = 0; j < b.w; ++j)
          for (int64_t c = 0; c < channels; ++c) {
            double top = -std::numeric_limits<double>::infinity();
            for (int64_t ki = 0; ki < window.kernel; ++ki)
              for (int64_t kj = 0; kj < window.kernel; ++kj) {
                const int64_t r = i * window.stride - window.padding + ki, q = j * window.stride - window.padding + kj;
                if (r >= 0 && r < a.h && q >= 0 && q < a.w)
                  top = std::max(top, x[at((first + (n * a.h + r) * a.w + q) * channels + c)]);
              }
            y.push_back(top);
          }
  });
  return y;
}

Values l2_normalize(int64_t channels, double eps, const Values& x) {
  Values y(x.size());
  for (size_t row = 0; row < x.size(); row += at(channels)) {
    double square = 0;
    for (size_t c = 0; c < at(channels); ++c) square += x[row + c] * x[row + c];
    for (size_t c = 0; c < at(channels); ++c) y[row + c] = x[row + c] / std::max(std::sqrt(square), eps);
  }
  return y;
}

Values sinkhorn(const kernels::Sinkhorn& p, const Values& scores) {
  const size_t n = at(p.rows), k = at(p.prototypes);
  Values q(scores.size());
  double total = 0;
  const double top = *std::max_element(scores.begin(), scores.end());
  for (size_t i = 0; i < q.size(); ++i) total += q[i] = std::exp((scores[i] - top) / static_cast<double>(p.eps));
  for (double& v : q) v /= total;
  for (int iteration = 0; iteration < p.iterations; ++iteration) {
    for (size_t j = 0; j < k; ++j) {
      double sum = 0;
      for (size_t b = 0; b < n; ++b) sum += q[b * k + j];
      for (size_t b = 0; b < n; ++b) q[b * k + j] /= sum * static_cast<double>(k);
    }
    for (size_t b = 0; b < n; ++b) {
      double sum = 0;
      for (size_t j = 0; j < k; ++j) sum += q[b * k + j];
      for (size_t j = 0; j < k; ++j) q[b * k + j] /= sum * static_cast<double>(n);
    }
  }
  for (double& v : q) v *= static_cast<double>(n);
  return q;
}

Values swapped_prediction(const kernels::SwappedPrediction& p, const Values& scores, const Values& q) {
  const double temperature = static_cast<double>(p.temperature);
  double loss = 0;
  for (int64_t i = 0; i < p.assigning; ++i)
    for (int64_t v = 0; v < p.crops; ++v) {
      if (v == i) continue;
      for (int64_t b = 0; b < p.batch; ++b) {
        const double* s = &scores[at((v * p.batch + b) * p.prototypes)];
        const double lse = log_sum_exp(s, p.prototypes, 1 / temperature);
        for (int64_t k = 0; k < p.prototypes; ++k)
          loss -= q[at((i * p.batch + b) * p.prototypes + k)] * (s[k] / temperature - lse);
      }
    }
  return {loss / static_cast<double>(p.assigning * (p.crops - 1) * p.batch)};
}

Values cross_entropy(int64_t classes, const Values& logits, const std::vector<int32_t>& labels) {
  double loss = 0;
  for (size_t r = 0; r < labels.size(); ++r) {
    const double* row = &logits[r * at(classes)];
    loss += log_sum_exp(row, classes, 1.0) - row[labels[r]];
  }
  return {loss / static_cast<double>(labels.size())};
}

}  // namespace saccade::reference
