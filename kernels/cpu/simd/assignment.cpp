#include <saccade/kernels/cpu/simd/assignment.h>
#include <saccade/kernels/cpu/simd/vector.h>

namespace saccade::kernels::cpu::SACCADE_ISA {
namespace {

/// Largest of row[k] * factor (+ offset[k] where there are offsets).
template <bool Offset>
SACCADE_INLINE float row_max(const float* row, const float* offset, float factor, int64_t n) {
  F largest = splat(-__builtin_inff());
  for_vectors(n, [&](int64_t k, auto lanes) {
    F v = load(row + k, lanes) * factor;
    if constexpr (Offset) v += load(offset + k, lanes);
    largest = max(largest, keep(v, -__builtin_inff(), lanes));
  });
  return max_of(largest);
}

/// out = exp(row * factor (+ offset) - shift); returns the sum. out may be row.
template <bool Offset>
SACCADE_INLINE float row_exp(const float* row, const float* offset, float factor, float shift, int64_t n, float* out) {
  F sum = {};
  for_vectors(n, [&](int64_t k, auto lanes) {
    F v = load(row + k, lanes) * factor;
    if constexpr (Offset) v += load(offset + k, lanes);
    const F e = exp(v - shift);
    store(out + k, e, lanes);
    sum += keep(e, 0.f, lanes);
  });
  return sum_of(sum);
}

/// Sinkhorn's column step for one prototype, without exponentials that could all vanish: the largest first.
float column_log_sum_exp(const Sinkhorn& spec, const float* scores, const float* row_potentials, int64_t k) {
  const float factor = 1.f / spec.eps;
  float largest = -__builtin_inff();
  for (int64_t b = 0; b < spec.rows; ++b) {
    const float v = scores[b * spec.prototypes + k] * factor + row_potentials[b];
    largest = v > largest ? v : largest;
  }
  float sum = 0;
  for (int64_t b = 0; b < spec.rows; ++b) {
    sum += __builtin_expf(scores[b * spec.prototypes + k] * factor + row_potentials[b] - largest);
  }
  return largest + __builtin_logf(sum);
}

// One pass over the scores an iteration. With e_bk = exp(S_bk/eps + a_k - m_b), m_b the row's largest exponent, the row
// step is c_b = -ln N - m_b - ln sum_k e_bk, and the column step's exp(S_bk/eps + c_b) is e_bk exp(-a_k) / (N sum_k
// e_bk), so that a_k <- -ln K - LSE_b(S_bk/eps + c_b) = a_k - ln K - ln u_k, u_k = sum_b q_bk / N, from the
// exponentials already there. Where u_k is so small that terms of it may have vanished, the column is summed anew with
// its own largest exponent.

void run(const SinkhornRows& call, const SinkhornScratch& scratch) {
  const int64_t rows = call.spec.rows, prototypes = call.spec.prototypes;
  const int64_t everywhere = call.spec.rows_everywhere > 0 ? call.spec.rows_everywhere : rows;
  const float *scores = call.scores, *potentials = call.potentials;
  const float factor = 1.f / call.spec.eps, log_n = __builtin_logf(static_cast<float>(everywhere));
  const bool first = call.iteration == 0;
  // The first column step has a constant c. Its exponentials are taken from the largest score: c = -largest/eps.
  float largest = -__builtin_inff();
  if (first) {
#pragma omp parallel for schedule(static) reduction(max : largest) if (rows * prototypes > 16384)
    for (int64_t b = 0; b < rows; ++b) {
      const float of_row = row_max<false>(scores + b * prototypes, nullptr, factor, prototypes);
      largest = of_row > largest ? of_row : largest;
    }
  }
#pragma omp parallel for schedule(static) if (rows * prototypes > 16384)
  for (int64_t chunk = 0; chunk < scratch.chunks; ++chunk) {
    const int64_t begin = chunk * scratch.chunk_rows, left = rows - begin;
    float *columns = scratch.columns + chunk * prototypes, *e = scratch.exponentials + chunk * prototypes;
    for (int64_t k = 0; k < prototypes; ++k) columns[k] = 0;
    for (int64_t b = begin; b < begin + (left < scratch.chunk_rows ? left : scratch.chunk_rows); ++b) {
      const float* row = scores + b * prototypes;
      float weight = 1.f, shift = largest;
      if (first) {
        row_exp<false>(row, nullptr, factor, shift, prototypes, e);
        scratch.row_potentials[b] = -largest;
      } else {
        shift = row_max<true>(row, potentials, factor, prototypes);
        const float sum = row_exp<true>(row, potentials, factor, shift, prototypes, e);
        weight = 1.f / (sum * static_cast<float>(everywhere));
        scratch.row_potentials[b] = -log_n - shift - __builtin_logf(sum);
      }
      for_vectors(prototypes, [=](int64_t k, auto lanes) {
        store(columns + k, load(columns + k, lanes) + load(e + k, lanes) * weight, lanes);
      });
    }
  }
}

void run(const SinkhornColumns& call, const SinkhornScratch& scratch) {
  const int64_t prototypes = call.spec.prototypes;
  const float log_k = __builtin_logf(static_cast<float>(prototypes));
  const bool first = call.iteration == 0;
  float* potentials = call.potentials;
  parallel_blocks(prototypes, 256, [=, &call, &scratch](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) {
      float u = 0;
      for (int64_t chunk = 0; chunk < scratch.chunks; ++chunk) u += scratch.columns[chunk * prototypes + k];
      const float before = first ? 0.f : potentials[k];
      potentials[k] = -log_k - (u > 1e-30f ? __builtin_logf(u) - before
                                           : column_log_sum_exp(call.spec, call.scores, scratch.row_potentials, k));
    }
  });
  if (first && call.largest != nullptr) *call.largest = -scratch.row_potentials[0];
}

void run(const SinkhornAssign& call) {
  const int64_t rows = call.spec.rows, prototypes = call.spec.prototypes;
  const float *scores = call.scores, *potentials = call.potentials;
  float* q = call.q;
  const float factor = 1.f / call.spec.eps;
#pragma omp parallel for schedule(static) if (rows * prototypes > 16384)
  for (int64_t b = 0; b < rows; ++b) {
    const float* row = scores + b * prototypes;
    float* out = q + b * prototypes;
    const float shift = row_max<true>(row, potentials, factor, prototypes);
    const float scale = 1.f / row_exp<true>(row, potentials, factor, shift, prototypes, out);
    for_vectors(prototypes, [=](int64_t k, auto lanes) { store(out + k, load(out + k, lanes) * scale, lanes); });
  }
}

/// The sum of loss_of(row) over all rows, cut into parts at most, which are summed in order at the end.
template <class Loss>
SACCADE_INLINE double sum_over_rows(int64_t rows, int64_t columns, Loss loss_of) {
  constexpr int64_t most_parts = 64;
  const int64_t part_rows = (rows + most_parts - 1) / most_parts;
  double parts[most_parts] = {};
  double* const totals = parts;
#pragma omp parallel for schedule(static) if (rows * columns > 16384)
  for (int64_t part = 0; part < most_parts; ++part) {
    double total = 0;
    for (int64_t row = part * part_rows; row < rows && row < (part + 1) * part_rows; ++row) total += loss_of(row);
    totals[part] = total;
  }
  double total = 0;
  for (double part : parts) total += part;
  return total;
}

void run(const SwappedPredictionLoss& call) {
  const int64_t batch = call.spec.batch, assigning = call.spec.assigning, prototypes = call.spec.prototypes;
  const float factor = 1.f / call.spec.temperature;
  const double share =
      1. / (static_cast<double>(assigning) * static_cast<double>(call.spec.crops - 1) * static_cast<double>(batch));
  const auto loss_of = [=, scores = call.scores, q = call.q, dscores = call.dscores](int64_t row) {
    const int64_t crop = row / batch, image = row % batch;
    const float* s = scores + row * prototypes;
    float* out = dscores + row * prototypes;
    const float shift = row_max<false>(s, nullptr, factor, prototypes);
    const float sum = row_exp<false>(s, nullptr, factor, shift, prototypes, out);
    // With t = sum of q_i over the assigning crops i other than this one:
    // loss = mass(t) * lse - sum_k t_k s_k/tau, gradient = (mass(t) * softmax - t) / tau.
    F mass = {}, dot = {};
    for (int64_t i = 0; i < assigning; ++i) {
      if (i == crop) continue;
      const float* target = q + (i * batch + image) * prototypes;
      for_vectors(prototypes, [&](int64_t k, auto lanes) {
        const F t = load(target + k, lanes);
        mass += t;
        dot += t * (load(s + k, lanes) * factor - shift);
      });
    }
    const float whole = sum_of(mass), scale = static_cast<float>(share) * factor, softmax = whole / sum * scale;
    for_vectors(prototypes, [=](int64_t k, auto lanes) { store(out + k, load(out + k, lanes) * softmax, lanes); });
    for (int64_t i = 0; i < assigning; ++i) {
      if (i == crop) continue;
      const float* target = q + (i * batch + image) * prototypes;
      for_vectors(prototypes, [=](int64_t k, auto lanes) {
        store(out + k, load(out + k, lanes) - load(target + k, lanes) * scale, lanes);
      });
    }
    return static_cast<double>(whole) * __builtin_logf(sum) - sum_of(dot);
  };
  *call.loss = static_cast<float>(sum_over_rows(batch * call.spec.crops, prototypes, loss_of) * share);
}

void run(const CrossEntropy& call) {
  const int64_t classes = call.classes;
  const float share = 1.f / static_cast<float>(call.rows);
  const auto loss_of = [=, logits = call.logits, labels = call.labels, dlogits = call.dlogits,
                        without_own = call.without_own](int64_t row) {
    const float* in = logits + row * classes;
    float* out = dlogits + row * classes;
    const float of_label = in[labels[row]];
    if (without_own) {
      for_vectors(classes, [=](int64_t k, auto lanes) { store(out + k, load(in + k, lanes), lanes); });
      out[row] = -__builtin_inff();  // its exponential is 0
      in = out;
    }
    const float shift = row_max<false>(in, nullptr, 1.f, classes);
    const float sum = row_exp<false>(in, nullptr, 1.f, shift, classes, out), scale = share / sum;
    for_vectors(classes, [=](int64_t k, auto lanes) { store(out + k, load(out + k, lanes) * scale, lanes); });
    out[labels[row]] -= share;
    return __builtin_logf(sum) - (static_cast<double>(of_label) - shift);
  };
  *call.loss = static_cast<float>(sum_over_rows(call.rows, classes, loss_of) / static_cast<double>(call.rows));
}

}  // namespace

template <class Call, class... With>
void compute(const Call& call, With... with) {
  run(call, with...);
}
template void compute(const SinkhornRows&, SinkhornScratch);
template void compute(const SinkhornColumns&, SinkhornScratch);
template void compute(const SinkhornAssign&);
template void compute(const SwappedPredictionLoss&);
template void compute(const CrossEntropy&);

}  // namespace saccade::kernels::cpu::SACCADE_ISA
