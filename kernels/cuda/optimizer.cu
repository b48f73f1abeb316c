// Updates of many tensors at once. Tensors are cut into pieces of 16,384 elements, a block each; the list of tensors is
// an argument of the kernel, 64 at a time, so that nothing has to be copied to the device beforehand. Memory: each
// operand once, parameter and gradient twice with LARC, whose norms must be known first.

#include <saccade/kernels/cuda/vectors.h>

#include <algorithm>

namespace saccade::kernels::cuda {
namespace {

constexpr int threads = 256, warps = threads / lanes;
constexpr int64_t piece_elements = 16384;
constexpr int most_tensors = 64, most_gradients = 128;  // an argument list is at most 4 KiB

/// A list of tensors and the pieces they are cut into.
template <class Slot, int most>
struct Tensors {
  Slot slots[most];
  int64_t first_piece[most + 1];
  int count;
};
using Parameters = Tensors<ParameterSlot, most_tensors>;
using Gradients = Tensors<GradientSlot, most_gradients>;
using Averages = Tensors<AverageSlot, most_tensors>;

/// The block's piece.
struct Piece {
  int tensor;
  int64_t begin, end;
};

template <class List>
SACCADE_DEVICE Piece piece_of(const List& list) {
  int low = 0, high = list.count;  // the last tensor that begins at or before this block
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    (list.first_piece[middle] <= block_x() ? low : high) = middle;
  }
  const int64_t begin = (block_x() - list.first_piece[low]) * piece_elements, n = list.slots[low].elements;
  return {low, begin, begin + piece_elements < n ? begin + piece_elements : n};
}

/// Block `block` of a key and stream: four random words, those of saccade::Philox (core/random.h).
struct RandomWords {
  uint32_t at[4];
};

SACCADE_DEVICE RandomWords philox(uint64_t key, uint64_t stream, uint64_t block) {
  uint32_t c0 = static_cast<uint32_t>(block), c1 = static_cast<uint32_t>(block >> 32);
  uint32_t c2 = static_cast<uint32_t>(stream), c3 = static_cast<uint32_t>(stream >> 32);
  uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53u} * c0, p1 = uint64_t{0xCD9E8D57u} * c2;
    c0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
    c1 = static_cast<uint32_t>(p1);
    c2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c3 = static_cast<uint32_t>(p0);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

SACCADE_DEVICE bool is_aligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

/// partial: (pieces, 2), the sums of squares of parameter and gradient.
SACCADE_KERNEL(threads) square_sums(Parameters list, float* partial) {
  SACCADE_SHARED(float, parts, warps);
  const Piece piece = piece_of(list);
  const ParameterSlot slot = list.slots[piece.tensor];
  const Range range{piece.begin, piece.end, is_aligned(slot.parameter) && is_aligned(slot.gradient)};
  float parameter = 0, gradient = 0;
  for (int64_t at = piece.begin + thread_x() * 4; at < piece.end; at += threads * 4) {
    const Floats<4> p = load_floats<4>(slot.parameter, at, range), g = load_floats<4>(slot.gradient, at, range);
    SACCADE_UNROLL
    for (int j = 0; j < 4; ++j) {
      parameter += p.at[j] * p.at[j];
      gradient += g.at[j] * g.at[j];
    }
  }
  parameter = block_sum<warps>(parameter, parts);
  gradient = block_sum<warps>(gradient, parts);
  if (thread_x() != 0) return;
  store(partial + 2 * block_x(), parameter);
  store(partial + 2 * block_x() + 1, gradient);
}

/// One block a tensor: LARC's factor of its gradient; 0 where the gradient is used as it is.
SACCADE_KERNEL(threads) trust_ratios(Parameters list, Sgd spec, const float* partial, float* ratios) {
  SACCADE_SHARED(double, parts, warps);
  double parameter = 0, gradient = 0;
  const int tensor = static_cast<int>(block_x());
  for (int64_t p = list.first_piece[tensor] + thread_x(); p < list.first_piece[tensor + 1]; p += threads) {
    parameter += load(partial + 2 * p);
    gradient += load(partial + 2 * p + 1);
  }
  parameter = sqrt(block_sum<warps>(parameter, parts));
  gradient = sqrt(block_sum<warps>(gradient, parts));
  if (thread_x() != 0) return;
  const double sum = gradient + static_cast<double>(spec.weight_decay) * parameter + static_cast<double>(spec.larc_eps);
  const double ratio = parameter != 0 && gradient != 0 ? static_cast<double>(spec.trust) * parameter / sum : 0;
  store(ratios + block_x(), static_cast<float>(ratio));
}

/// How a tensor's gradient becomes a step.
struct Step {
  float ratio, decay, lr, momentum;
  bool nesterov;
};

SACCADE_DEVICE Step step_of(const Sgd& spec, const float* ratios, int tensor) {
  const float ratio = ratios != nullptr ? load(ratios + tensor) : 1.f;
  return {ratio != 0 ? ratio : 1.f, ratio != 0 ? spec.weight_decay : 0.f, spec.lr, spec.momentum, spec.nesterov};
}

/// The new parameter; m is the old momentum and becomes the new one.
SACCADE_DEVICE float moved(const Step& s, float p, float g, bool has_momentum, float& m) {
  const float step = (g + p * s.decay) * s.ratio;
  if (!has_momentum) return p - step * s.lr;
  m = m * s.momentum + step;
  return p - (s.nesterov ? step + m * s.momentum : m) * s.lr;
}

SACCADE_KERNEL(threads) sgd_update(Parameters list, Sgd spec, const float* ratios) {
  const Piece piece = piece_of(list);
  const ParameterSlot slot = list.slots[piece.tensor];
  auto* momentum = static_cast<float*>(slot.state1);
  const bool has_momentum = momentum != nullptr;
  const Step step = step_of(spec, ratios, piece.tensor);
  const Range range{piece.begin, piece.end,
                    is_aligned(slot.parameter) && is_aligned(slot.gradient) && is_aligned(slot.state1)};
  for (int64_t at = piece.begin + thread_x() * 4; at < piece.end; at += threads * 4) {
    Floats<4> p = load_floats<4>(slot.parameter, at, range), m{};
    const Floats<4> g = load_floats<4>(slot.gradient, at, range);
    if (has_momentum) m = load_floats<4>(momentum, at, range);
    SACCADE_UNROLL
    for (int j = 0; j < 4; ++j) p.at[j] = moved(step, p.at[j], g.at[j], has_momentum, m.at[j]);
    if (has_momentum) store_floats<4>(momentum, at, range, m);
    store_floats<4>(slot.parameter, at, range, p);
  }
}

/// Rounds to one of both neighbours by the upper 16 of 32 random bits; infinities and NaN stay.
SACCADE_DEVICE BFloat16 rounded(float value, uint32_t random) {
  const uint32_t bits = bits_of(value);
  if ((bits & 0x7f800000u) == 0x7f800000u) return from_float<BFloat16>(value);
  return {static_cast<uint16_t>((bits + (random >> 16)) >> 16)};
}

/// With a momentum in bf16. The four words of a random block belong to elements 16 apart (Sgd): a thread takes those,
/// so that it draws one block for four elements; 16 lanes side by side still read whole sectors.
SACCADE_KERNEL(threads) sgd_update_rounded(Parameters list, Sgd spec, const float* ratios) {
  const Piece piece = piece_of(list);
  const ParameterSlot slot = list.slots[piece.tensor];
  auto* momentum = static_cast<BFloat16*>(slot.state1);
  const Step step = step_of(spec, ratios, piece.tensor);
  for (int64_t group = piece.begin + thread_x() / 16 * 64; group < piece.end; group += threads * 4) {
    const RandomWords random =
        philox(spec.rounding_seed, slot.stream, static_cast<uint64_t>(group / 64 * 16 + thread_x() % 16));
    SACCADE_UNROLL
    for (int word = 0; word < 4; ++word) {
      const int64_t at = group + word * 16 + thread_x() % 16;
      if (at >= piece.end) continue;
      float m = to_float(load(momentum + at));
      const float p = moved(step, load(slot.parameter + at), load(slot.gradient + at), true, m);
      store(momentum + at, rounded(m, random.at[word]));
      store(slot.parameter + at, p);
    }
  }
}

/// AdamW's factors, made on the host.
struct Moments {
  float kept, step, root_correction, beta1, beta2, eps;
};

SACCADE_KERNEL(threads) adamw_update(Parameters list, Moments s) {
  const Piece piece = piece_of(list);
  const ParameterSlot slot = list.slots[piece.tensor];
  auto *first = static_cast<float*>(slot.state1), *second = static_cast<float*>(slot.state2);
  const Range range{piece.begin, piece.end,
                    is_aligned(slot.parameter) && is_aligned(slot.gradient) && is_aligned(first) && is_aligned(second)};
  for (int64_t at = piece.begin + thread_x() * 4; at < piece.end; at += threads * 4) {
    Floats<4> p = load_floats<4>(slot.parameter, at, range), m = load_floats<4>(first, at, range);
    Floats<4> v = load_floats<4>(second, at, range);
    const Floats<4> g = load_floats<4>(slot.gradient, at, range);
    SACCADE_UNROLL
    for (int j = 0; j < 4; ++j) {
      m.at[j] = m.at[j] * s.beta1 + g.at[j] * (1.f - s.beta1);
      v.at[j] = v.at[j] * s.beta2 + g.at[j] * g.at[j] * (1.f - s.beta2);
      p.at[j] = p.at[j] * s.kept - s.step * m.at[j] / (sqrtf(v.at[j]) * s.root_correction + s.eps);
    }
    store_floats<4>(first, at, range, m);
    store_floats<4>(second, at, range, v);
    store_floats<4>(slot.parameter, at, range, p);
  }
}

SACCADE_KERNEL(threads) unscale_gradients(Gradients list, float factor, float* nonfinite) {
  const Piece piece = piece_of(list);
  float* gradient = list.slots[piece.tensor].gradient;
  const Range range{piece.begin, piece.end, is_aligned(gradient)};
  float zero = 0;  // NaN once anything was infinite or NaN
  for (int64_t at = piece.begin + thread_x() * 4; at < piece.end; at += threads * 4) {
    Floats<4> g = load_floats<4>(gradient, at, range);
    SACCADE_UNROLL
    for (int j = 0; j < 4; ++j) {
      zero += g.at[j] * 0.f;
      g.at[j] *= factor;
    }
    store_floats<4>(gradient, at, range, g);
  }
  if (zero != 0.f) raise_flag(nonfinite);
}

SACCADE_KERNEL(threads) follow_average(Averages list, float momentum) {
  const Piece piece = piece_of(list);
  const AverageSlot slot = list.slots[piece.tensor];
  const Range range{piece.begin, piece.end, is_aligned(slot.average) && is_aligned(slot.from)};
  for (int64_t at = piece.begin + thread_x() * 4; at < piece.end; at += threads * 4) {
    Floats<4> average = load_floats<4>(slot.average, at, range);
    const Floats<4> from = load_floats<4>(slot.from, at, range);
    SACCADE_UNROLL
    for (int j = 0; j < 4; ++j) average.at[j] = average.at[j] * momentum + from.at[j] * (1.f - momentum);
    store_floats<4>(slot.average, at, range, average);
  }
}

/// Calls body(list, pieces before it, tensors before it) for lists of as many tensors as go along at a time.
template <class Slot, int most, class Body>
void in_lists(const std::vector<Slot>& slots, Body body) {
  int64_t pieces_before = 0;
  for (size_t first = 0; first < slots.size(); first += most) {
    Tensors<Slot, most> list{};
    list.count = static_cast<int>(std::min<size_t>(most, slots.size() - first));
    for (int i = 0; i < list.count; ++i) {
      list.slots[i] = slots[first + static_cast<size_t>(i)];
      list.first_piece[i + 1] = list.first_piece[i] + divide_up(list.slots[i].elements, piece_elements);
    }
    const int64_t pieces = list.first_piece[list.count];
    if (pieces > 0) body(list, pieces_before, static_cast<int64_t>(first));
    pieces_before += pieces;
  }
}

template <class List>
Extent grid_of(const List& list) {
  return {blocks(list.first_piece[list.count])};
}

int64_t pieces_of(const std::vector<ParameterSlot>& slots) {
  int64_t pieces = 0;
  for (const ParameterSlot& s : slots) pieces += divide_up(s.elements, piece_elements);
  return pieces;
}

}  // namespace

size_t workspace(const SgdUpdate& call) {
  if (!(call.settings.trust > 0)) return 0;
  return (2 * static_cast<size_t>(pieces_of(call.slots)) + call.slots.size()) * sizeof(float);
}

void run(Stream stream, const SgdUpdate& call) {
  const Sgd& spec = call.settings;
  if (spec.momentum_dtype != DType::f32 && spec.momentum_dtype != DType::bf16) {
    throw Error("sgd: expected a momentum of f32 or bf16, got " + std::string(name_of(spec.momentum_dtype)));
  }
  const bool larc = spec.trust > 0;
  auto* partial = static_cast<float*>(call.workspace);
  float* all_ratios = larc ? partial + 2 * pieces_of(call.slots) : nullptr;
  in_lists<ParameterSlot, most_tensors>(call.slots, [&](const Parameters& list, int64_t pieces, int64_t tensors) {
    float* ratios = larc ? all_ratios + tensors : nullptr;
    if (larc) {
      float* sums = partial + 2 * pieces;
      launch<square_sums>(stream, grid_of(list), {threads}, 0, list, sums);
      launch<trust_ratios>(stream, {static_cast<unsigned>(list.count)}, {threads}, 0, list, spec,
                           static_cast<const float*>(sums), ratios);
    }
    const auto given = static_cast<const float*>(ratios);
    if (spec.momentum_dtype == DType::bf16 && list.slots[0].state1 != nullptr) {
      launch<sgd_update_rounded>(stream, grid_of(list), {threads}, 0, list, spec, given);
    } else {
      launch<sgd_update>(stream, grid_of(list), {threads}, 0, list, spec, given);
    }
  });
}

void run(Stream stream, const AdamWUpdate& call) {
  const AdamW& spec = call.settings;
  const auto step = static_cast<double>(spec.step);
  const auto correction1 = static_cast<float>(1 - std::pow(static_cast<double>(spec.beta1), step));
  const auto correction2 = static_cast<float>(1 - std::pow(static_cast<double>(spec.beta2), step));
  const Moments moments{1.f - spec.lr * spec.weight_decay,
                        spec.lr / correction1,
                        1.f / std::sqrt(correction2),
                        spec.beta1,
                        spec.beta2,
                        spec.eps};
  in_lists<ParameterSlot, most_tensors>(call.slots, [&](const Parameters& list, int64_t, int64_t) {
    launch<adamw_update>(stream, grid_of(list), {threads}, 0, list, moments);
  });
}

void run(Stream stream, const Unscale& call) {
  in_lists<GradientSlot, most_gradients>(call.slots, [&](const Gradients& list, int64_t, int64_t) {
    launch<unscale_gradients>(stream, grid_of(list), {threads}, 0, list, call.factor, call.nonfinite);
  });
}

void run(Stream stream, const MovingAverage& call) {
  in_lists<AverageSlot, most_tensors>(call.slots, [&](const Averages& list, int64_t, int64_t) {
    launch<follow_average>(stream, grid_of(list), {threads}, 0, list, call.momentum);
  });
}

}  // namespace saccade::kernels::cuda
