// Sinkhorn's assignments and the losses over prototypes and classes, f32. A block works on whole rows; a thread owns
// every 256th column, so that what it stages in shared memory needs no barrier.
//
// Memory: each score once an iteration. Rows wait in shared memory for their maximum and their sum, up to 4,080
// prototypes (Sinkhorn), 6,000 (assignments, swapped prediction) and 12,000 (cross entropy); wider ones are read again,
// from the L2 cache. Small batches are cut into parts of 4 rows, for there to be blocks enough, whose sums are then
// half as much as the scores; from 8,192 rows on parts have 32. Swapped prediction reads an assignment once for each
// crop that predicts it.

#include <saccade/kernels/cuda/vectors.h>

#include <algorithm>

namespace saccade::kernels::cuda {
namespace {

constexpr int threads = 256, warps = threads / lanes;
constexpr size_t most_staged = (48 << 10) - 256;  ///< bytes of shared memory, next to the reductions' own

/// One row's exponents: read, or taken from where they were staged.
struct Exponents {
  const float *scores, *offsets;  ///< offsets may be null
  float factor;
  float* staged;  ///< null: read again
};
/// Those without offsets of a row in which one column takes no part; -1: all do.
struct Others : Exponents {
  int64_t left_out;
};

SACCADE_DEVICE float read(const Exponents& row, int64_t k) {
  const float v = load(row.scores + k) * row.factor;
  return row.offsets != nullptr ? v + load(row.offsets + k) : v;
}
SACCADE_DEVICE float read(const Others& row, int64_t k) {
  return k == row.left_out ? -INFINITY : load(row.scores + k) * row.factor;
}

/// Largest exponent of the row; stages the exponents.
template <class Row>
SACCADE_DEVICE float row_max(const Row& row, int64_t n, float* parts) {
  float largest = -INFINITY;
  for (int64_t k = thread_x(); k < n; k += threads) {
    const float v = read(row, k);
    if (row.staged != nullptr) store(row.staged + k, v);
    largest = larger(largest, v);
  }
  return block_max<warps>(largest, parts);
}

/// Sum of exp(exponent - shift); stages the exponentials.
template <class Row>
SACCADE_DEVICE float row_sum(const Row& row, int64_t n, float shift, float* parts) {
  float sum = 0;
  for (int64_t k = thread_x(); k < n; k += threads) {
    const float e = expf((row.staged != nullptr ? load(row.staged + k) : read(row, k)) - shift);
    if (row.staged != nullptr) store(row.staged + k, e);
    sum += e;
  }
  return block_sum<warps>(sum, parts);
}

template <class Row>
SACCADE_DEVICE float exponential(const Row& row, int64_t k, float shift) {
  return row.staged != nullptr ? load(row.staged + k) : expf(read(row, k) - shift);
}

/// With e_bk = exp(S_bk/eps + a_k - m_b), m_b the row's largest exponent, the row step is c_b = -ln N - m_b - ln sum_k
/// e_bk, and the column step's exp(S_bk/eps + c_b) is e_bk exp(-a_k) / (N sum_k e_bk): its sums over the rows of a
/// part, but for exp(-a_k), go to partial (parts, prototypes). In the first iteration c is constant, minus the largest
/// of all exponents: here relative to that of the part, which goes to part_max.
SACCADE_KERNEL(threads)
sinkhorn_rows(Sinkhorn spec, bool first, int64_t part_rows, bool staged, const float* scores, const float* potentials,
              float* partial, float* part_max, float* row_potentials) {
  SACCADE_SHARED(float, parts, warps);
  SACCADE_DYNAMIC_SHARED(memory);
  const int64_t n = spec.prototypes, begin = block_x() * part_rows;
  const int64_t end = begin + part_rows < spec.rows ? begin + part_rows : spec.rows;
  float* columns = staged ? memory + n : partial + block_x() * n;
  for (int64_t k = thread_x(); k < n; k += threads) {
    store(columns + k, 0.f);
    if (staged && !first) store(memory + 2 * n + k, load(potentials + k));
  }
  Exponents row{scores + begin * n,
                first    ? nullptr
                : staged ? memory + 2 * n
                         : potentials,
                1.f / spec.eps, staged ? memory : nullptr};
  const float everywhere = static_cast<float>(spec.rows_everywhere > 0 ? spec.rows_everywhere : spec.rows);
  float largest = -INFINITY;
  for (int64_t b = begin; b < end; ++b, row.scores += n) {
    const float shift = row_max(row, n, parts), sum = row_sum(row, n, shift, parts);
    float kept = 1.f, weight;
    if (first) {
      const float next = larger(largest, shift);
      kept = expf(largest - next);
      weight = expf(shift - next);
      largest = next;
    } else {
      weight = 1.f / (sum * everywhere);
      if (thread_x() == 0) store(row_potentials + b, -logf(everywhere) - shift - logf(sum));
    }
    for (int64_t k = thread_x(); k < n; k += threads) {
      store(columns + k, load(columns + k) * kept + exponential(row, k, shift) * weight);
    }
  }
  if (staged) {
    for (int64_t k = thread_x(); k < n; k += threads) store(partial + block_x() * n + k, load(columns + k));
  }
  if (first && thread_x() == 0) store(part_max + block_x(), largest);
}

/// Sinkhorn's column step for one prototype, without exponentials that could all vanish: the largest first.
SACCADE_DEVICE float column_log_sum_exp(const Sinkhorn& spec, const float* scores, const float* row_potentials,
                                        float constant, int64_t k) {
  const float factor = 1.f / spec.eps;
  float largest = -INFINITY, sum = 0;
  for (int64_t b = 0; b < spec.rows; ++b) {
    const float c = row_potentials != nullptr ? load(row_potentials + b) : constant;
    largest = larger(largest, load(scores + b * spec.prototypes + k) * factor + c);
  }
  for (int64_t b = 0; b < spec.rows; ++b) {
    const float c = row_potentials != nullptr ? load(row_potentials + b) : constant;
    sum += expf(load(scores + b * spec.prototypes + k) * factor + c - largest);
  }
  return largest + logf(sum);
}

/// a_k <- -ln K - (ln u_k - a_k), u_k the column's sum. Where u_k is so small that terms of it may have vanished, the
/// column is summed anew.
SACCADE_KERNEL(threads)
sinkhorn_columns(Sinkhorn spec, bool first, int64_t parts, const float* scores, const float* partial,
                 const float* part_max, const float* row_potentials, float* potentials, float* largest_of_all) {
  SACCADE_SHARED(float, reduced, warps);
  SACCADE_SHARED(float, weights, threads);
  const int64_t k = block_x() * threads + thread_x();
  float largest = -INFINITY, u = 0;
  for (int64_t p = thread_x(); first && p < parts; p += threads) largest = larger(largest, load(part_max + p));
  largest = block_max<warps>(largest, reduced);
  if (first && largest_of_all != nullptr && k == 0) store(largest_of_all, largest);
  for (int64_t begin = 0; begin < parts; begin += threads) {
    if (begin + thread_x() < parts) {
      store(weights + thread_x(), first ? expf(load(part_max + begin + thread_x()) - largest) : 1.f);
    }
    sync_block();
    for (int64_t p = begin; k < spec.prototypes && p < parts && p < begin + threads; ++p) {
      u += load(partial + p * spec.prototypes + k) * load(weights + (p - begin));
    }
    sync_block();
  }
  if (k >= spec.prototypes) return;
  const float log_sum = u > 1e-30f ? logf(u) - (first ? 0.f : load(potentials + k))
                                   : column_log_sum_exp(spec, scores, first ? nullptr : row_potentials, -largest, k);
  store(potentials + k, -logf(static_cast<float>(spec.prototypes)) - log_sum);
}

SACCADE_KERNEL(threads)
sinkhorn_softmax(Sinkhorn spec, int64_t part_rows, bool staged, const float* scores, const float* potentials,
                 float* q) {
  SACCADE_SHARED(float, parts, warps);
  SACCADE_DYNAMIC_SHARED(memory);
  const int64_t n = spec.prototypes, begin = block_x() * part_rows;
  const int64_t end = begin + part_rows < spec.rows ? begin + part_rows : spec.rows;
  for (int64_t k = thread_x(); staged && k < n; k += threads) store(memory + n + k, load(potentials + k));
  Exponents row{scores + begin * n, staged ? memory + n : potentials, 1.f / spec.eps, staged ? memory : nullptr};
  for (int64_t b = begin; b < end; ++b, row.scores += n) {
    const float shift = row_max(row, n, parts), scale = 1.f / row_sum(row, n, shift, parts);
    for (int64_t k = thread_x(); k < n; k += threads) store(q + b * n + k, exponential(row, k, shift) * scale);
  }
}

/// What a crop is to predict for an image, summed over the assigning crops other than itself.
SACCADE_DEVICE float target_of(const SwappedPrediction& spec, const float* q, int64_t crop, int64_t image, int64_t k) {
  float target = 0;
  for (int64_t i = 0; i < spec.assigning; ++i) {
    if (i != crop) target += load(q + (i * spec.batch + image) * spec.prototypes + k);
  }
  return target;
}

/// One block a row of scores. With t the row's target: loss = mass(t) * lse - sum_k t_k s_k/tau, gradient =
/// (mass(t) * softmax - t) / tau, both times `share`.
SACCADE_KERNEL(threads)
swapped_prediction_rows(SwappedPrediction spec, float share, bool staged, const float* scores, const float* q,
                        float* row_loss, float* dscores) {
  SACCADE_SHARED(float, parts, warps);
  SACCADE_DYNAMIC_SHARED(memory);
  const int64_t n = spec.prototypes, crop = block_x() / spec.batch, image = block_x() % spec.batch;
  float* const targets = memory + n;
  const Exponents row{scores + block_x() * n, nullptr, 1.f / spec.temperature, staged ? memory : nullptr};
  const float shift = row_max(row, n, parts);
  float mass = 0, dot = 0;
  for (int64_t k = thread_x(); k < n; k += threads) {
    const float t = target_of(spec, q, crop, image, k);
    if (staged) store(targets + k, t);
    mass += t;
    dot += t * ((staged ? load(memory + k) : read(row, k)) - shift);
  }
  mass = block_sum<warps>(mass, parts);
  dot = block_sum<warps>(dot, parts);
  const float sum = row_sum(row, n, shift, parts);
  if (thread_x() == 0) store(row_loss + block_x(), mass * logf(sum) - dot);
  const float scale = share / spec.temperature, softmax = mass / sum * scale;
  for (int64_t k = thread_x(); k < n; k += threads) {
    const float t = staged ? load(targets + k) : target_of(spec, q, crop, image, k);
    store(dscores + block_x() * n + k, exponential(row, k, shift) * softmax - t * scale);
  }
}

SACCADE_KERNEL(threads)
cross_entropy_rows(int64_t classes, float share, bool staged, bool without_own, const float* logits,
                   const int32_t* labels, float* row_loss, float* dlogits) {
  SACCADE_SHARED(float, parts, warps);
  SACCADE_DYNAMIC_SHARED(memory);
  const Others row{{logits + block_x() * classes, nullptr, 1.f, staged ? memory : nullptr},
                   without_own ? block_x() : -1};
  const int64_t label = load(labels + block_x());
  const float shift = row_max(row, classes, parts), sum = row_sum(row, classes, shift, parts), scale = share / sum;
  if (thread_x() == 0) store(row_loss + block_x(), logf(sum) - (load(row.scores + label) - shift));
  for (int64_t k = thread_x(); k < classes; k += threads) {
    store(dlogits + block_x() * classes + k, exponential(row, k, shift) * scale - (k == label ? share : 0.f));
  }
}

SACCADE_KERNEL(threads) loss_of_rows(int64_t rows, double share, const float* row_loss, float* loss) {
  SACCADE_SHARED(double, parts, warps);
  double sum = 0;
  for (int64_t i = thread_x(); i < rows; i += threads) sum += load(row_loss + i);
  sum = block_sum<warps>(sum, parts);
  if (thread_x() == 0) store(loss, static_cast<float>(sum * share));
}

/// Rows of a part: enough that the parts' column sums are little beside the scores, few enough that there are blocks.
int64_t sinkhorn_part_rows(int64_t rows) { return std::clamp<int64_t>(divide_up(rows, 256), 4, 32); }

/// Bytes to stage `arrays` rows of n floats; 0 where they do not fit.
size_t staged_bytes(int arrays, int64_t n) {
  const size_t bytes = static_cast<size_t>(arrays) * static_cast<size_t>(n) * sizeof(float);
  return bytes <= most_staged ? bytes : 0;
}

/// Where the iterations keep their state.
struct SinkhornScratch {
  int64_t part_rows, parts;
  float *partial, *part_max, *row_potentials;
};

SinkhornScratch scratch_of(const Sinkhorn& spec, void* workspace) {
  SinkhornScratch s{};
  s.part_rows = sinkhorn_part_rows(spec.rows);
  s.parts = divide_up(spec.rows, s.part_rows);
  s.partial = static_cast<float*>(workspace);
  s.part_max = s.partial + s.parts * spec.prototypes;
  s.row_potentials = s.part_max + s.parts;
  return s;
}

size_t workspace_of(const Sinkhorn& spec) {
  const int64_t parts = divide_up(spec.rows, sinkhorn_part_rows(spec.rows));
  return static_cast<size_t>(bytes_of_floats(parts * (spec.prototypes + 1) + spec.rows));
}

}  // namespace

size_t workspace(const SinkhornRows& c) { return workspace_of(c.spec); }
size_t workspace(const SinkhornColumns& c) { return workspace_of(c.spec); }

void run(Stream stream, const SinkhornRows& c) {
  const SinkhornScratch s = scratch_of(c.spec, c.workspace);
  const size_t staged = staged_bytes(3, c.spec.prototypes);
  launch<sinkhorn_rows>(stream, {blocks(s.parts)}, {threads}, staged, c.spec, c.iteration == 0, s.part_rows, staged > 0,
                        c.scores, c.potentials, s.partial, s.part_max, s.row_potentials);
}

void run(Stream stream, const SinkhornColumns& c) {
  const SinkhornScratch s = scratch_of(c.spec, c.workspace);
  launch<sinkhorn_columns>(stream, {blocks(divide_up(c.spec.prototypes, threads))}, {threads}, 0, c.spec,
                           c.iteration == 0, s.parts, c.scores, s.partial, s.part_max, s.row_potentials, c.potentials,
                           c.largest);
}

void run(Stream stream, const SinkhornAssign& c) {
  if (c.spec.rows == 0) return;
  const int64_t part_rows = std::clamp<int64_t>(c.spec.rows / 512, 1, 8);
  const size_t staged = staged_bytes(2, c.spec.prototypes);
  launch<sinkhorn_softmax>(stream, {blocks(divide_up(c.spec.rows, part_rows))}, {threads}, staged, c.spec, part_rows,
                           staged > 0, c.scores, c.potentials, c.q);
}

size_t workspace(const SwappedPredictionLoss& c) {
  return static_cast<size_t>(bytes_of_floats(c.spec.batch * c.spec.crops));
}

void run(Stream stream, const SwappedPredictionLoss& c) {
  const SwappedPrediction& spec = c.spec;
  const int64_t rows = spec.batch * spec.crops;
  const double share = 1. / (static_cast<double>(spec.assigning) * static_cast<double>(spec.crops - 1) *
                             static_cast<double>(spec.batch));
  auto* row_loss = static_cast<float*>(c.workspace);
  const size_t staged = staged_bytes(2, spec.prototypes);
  launch<swapped_prediction_rows>(stream, {blocks(rows)}, {threads}, staged, spec, static_cast<float>(share),
                                  staged > 0, c.scores, c.q, row_loss, c.dscores);
  launch<loss_of_rows>(stream, {1}, {threads}, 0, rows, share, row_loss, c.loss);
}

size_t workspace(const CrossEntropy& c) { return static_cast<size_t>(bytes_of_floats(c.rows)); }

void run(Stream stream, const CrossEntropy& c) {
  auto* row_loss = static_cast<float*>(c.workspace);
  const size_t staged = staged_bytes(1, c.classes);
  launch<cross_entropy_rows>(stream, {blocks(c.rows)}, {threads}, staged, c.classes, 1.f / static_cast<float>(c.rows),
                             staged > 0, c.without_own, c.logits, c.labels, row_loss, c.dlogits);
  launch<loss_of_rows>(stream, {1}, {threads}, 0, c.rows, 1. / static_cast<double>(c.rows), row_loss, c.loss);
}

}  // namespace saccade::kernels::cuda
