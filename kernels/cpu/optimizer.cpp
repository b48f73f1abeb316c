#include <saccade/kernels/cpu/cpu_backend.h>
#include <saccade/kernels/cpu/simd/optimizer.h>
#include <saccade/kernels/error.h>

#include <algorithm>
#include <cmath>
#include <vector>

namespace saccade::kernels {

using namespace cpu;

namespace {

constexpr int64_t most = 16384;  ///< elements of a piece

/// All tensors cut into pieces: threads share pieces, not tensors. piece(slot, its first element, how many).
template <class Slot, class MakePiece>
auto cut(const std::vector<Slot>& slots, MakePiece piece) {
  std::vector<decltype(piece(slots[0], int64_t{}, int64_t{}))> pieces;
  pieces.reserve(slots.size());
  for (const Slot& s : slots)
    for (int64_t begin = 0; begin < s.elements; begin += most)
      pieces.push_back(piece(s, begin, std::min(most, s.elements - begin)));
  return pieces;
}

std::vector<Piece> cut(const std::vector<ParameterSlot>& slots, DType state_dtype) {
  const auto state_at = [&](void* state, int64_t begin) {
    return state ? static_cast<char*>(state) + bytes_of(state_dtype, begin) : nullptr;
  };
  return cut(slots, [&](const ParameterSlot& s, int64_t begin, int64_t n) -> Piece {
    return {
        {s.parameter + begin, s.gradient + begin, state_at(s.state1, begin), state_at(s.state2, begin), n, s.stream},
        &s - slots.data(),
        begin,
        0,
        0,
        0};
  });
}

/// A tensor's norm is the sum over its pieces in order.
void set_trust_ratios(const Sgd& spec, std::vector<Piece>& pieces) {
  for (size_t first = 0; first < pieces.size();) {
    size_t last = first;
    double parameter = 0, gradient = 0;
    for (; last < pieces.size() && pieces[last].tensor == pieces[first].tensor; ++last) {
      parameter += pieces[last].parameter_squares;
      gradient += pieces[last].gradient_squares;
    }
    parameter = std::sqrt(parameter);
    gradient = std::sqrt(gradient);
    const double ratio = parameter != 0 && gradient != 0
                             ? spec.trust * parameter / (gradient + spec.weight_decay * parameter + spec.larc_eps)
                             : 0;
    for (; first < last; ++first) pieces[first].trust_ratio = static_cast<float>(ratio);
  }
}

}  // namespace

void CpuBackend::compute(const SgdUpdate& call) {
  const Sgd& spec = call.settings;
  if (spec.momentum_dtype != DType::f32 && spec.momentum_dtype != DType::bf16)
    throw Error("sgd: expected a momentum of f32 or bf16, got " + std::string(name_of(spec.momentum_dtype)));
  std::vector<Piece> pieces = cut(call.slots, spec.momentum_dtype);
  const auto count = static_cast<int64_t>(pieces.size());
  if (spec.trust > 0) {
    run_kernel(SquareSums{pieces.data(), count});
    set_trust_ratios(spec, pieces);
  }
  run_kernel(call, pieces.data(), count);
}

void CpuBackend::compute(const AdamWUpdate& call) {
  const AdamW& spec = call.settings;
  std::vector<Piece> pieces = cut(call.slots, DType::f32);
  const auto step = static_cast<double>(spec.step);
  const auto correction1 = static_cast<float>(1 - std::pow(static_cast<double>(spec.beta1), step));
  const auto correction2 = static_cast<float>(1 - std::pow(static_cast<double>(spec.beta2), step));
  run_kernel(call, correction1, correction2, pieces.data(), static_cast<int64_t>(pieces.size()));
}

void CpuBackend::compute(const Unscale& call) {
  std::vector<GradientPiece> pieces = cut(call.slots, [](const GradientSlot& s, int64_t begin, int64_t n) {
    return GradientPiece{{s.gradient + begin, n}, true};
  });
  run_kernel(call, pieces.data(), static_cast<int64_t>(pieces.size()));
  if (!std::all_of(pieces.begin(), pieces.end(), [](const GradientPiece& p) { return p.finite; })) *call.nonfinite = 1;
}

void CpuBackend::compute(const MovingAverage& call) {
  std::vector<AverageSlot> pieces = cut(call.slots, [](const AverageSlot& s, int64_t begin, int64_t n) {
    return AverageSlot{s.average + begin, s.from + begin, n};
  });
  run_kernel(call, pieces.data(), static_cast<int64_t>(pieces.size()));
}

}  // namespace saccade::kernels
