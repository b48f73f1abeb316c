#include <saccade/kernels/cpu/cpu_backend.h>
#include <saccade/kernels/cpu/isa.h>
#include <saccade/kernels/cpu/simd/optimizer.h>
#include <saccade/kernels/error.h>

#include <algorithm>
#include <cmath>
#include <vector>

namespace saccade::kernels {

using namespace cpu;

namespace {

const OptimizerKernels& table() {
  return for_this_processor(OptimizerKernels::baseline, OptimizerKernels::avx2, OptimizerKernels::avx512);
}

constexpr int64_t most = 16384;  ///< elements of a piece

/// All tensors cut into pieces: threads share pieces, not tensors, and a tensor's norm is the sum over its pieces in
/// order.
std::vector<Piece> cut(const std::vector<ParameterSlot>& slots, DType state_dtype) {
  const auto state_at = [&](void* state, int64_t begin) {
    return state ? static_cast<char*>(state) + static_cast<size_t>(begin) * size_of(state_dtype) : nullptr;
  };
  std::vector<Piece> pieces;
  pieces.reserve(slots.size());
  for (size_t i = 0; i < slots.size(); ++i) {
    const ParameterSlot& s = slots[i];
    for (int64_t begin = 0; begin < s.elements; begin += most) {
      pieces.push_back({{s.parameter + begin, s.gradient + begin, state_at(s.state1, begin), state_at(s.state2, begin),
                         std::min(most, s.elements - begin), s.stream},
                        static_cast<int64_t>(i),
                        begin,
                        0,
                        0,
                        0});
    }
  }
  return pieces;
}

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

void CpuBackend::run(const SgdUpdate& call) {
  const Sgd& spec = call.settings;
  if (spec.momentum_dtype != DType::f32 && spec.momentum_dtype != DType::bf16)
    throw Error("sgd: expected a momentum of f32 or bf16, got " + std::string(name_of(spec.momentum_dtype)));
  std::vector<Piece> pieces = cut(call.slots, spec.momentum_dtype);
  if (spec.trust > 0) {
    table().square_sums(pieces.data(), static_cast<int64_t>(pieces.size()));
    set_trust_ratios(spec, pieces);
  }
  table().sgd(spec, pieces.data(), static_cast<int64_t>(pieces.size()));
}

void CpuBackend::run(const AdamWUpdate& call) {
  const AdamW& spec = call.settings;
  const std::vector<Piece> pieces = cut(call.slots, DType::f32);
  const auto step = static_cast<double>(spec.step);
  const auto correction1 = static_cast<float>(1 - std::pow(static_cast<double>(spec.beta1), step));
  const auto correction2 = static_cast<float>(1 - std::pow(static_cast<double>(spec.beta2), step));
  table().adamw(spec, correction1, correction2, pieces.data(), static_cast<int64_t>(pieces.size()));
}

void CpuBackend::run(const Unscale& call) {
  std::vector<GradientPiece> pieces;
  pieces.reserve(call.slots.size());
  for (const GradientSlot& s : call.slots)
    for (int64_t begin = 0; begin < s.elements; begin += most)
      pieces.push_back({{s.gradient + begin, std::min(most, s.elements - begin)}, true});
  table().unscale(call.factor, pieces.data(), static_cast<int64_t>(pieces.size()));
  if (!std::all_of(pieces.begin(), pieces.end(), [](const GradientPiece& p) { return p.finite; })) *call.nonfinite = 1;
}

void CpuBackend::run(const MovingAverage& call) {
  std::vector<AverageSlot> pieces;
  pieces.reserve(call.slots.size());
  for (const AverageSlot& s : call.slots)
    for (int64_t begin = 0; begin < s.elements; begin += most)
      pieces.push_back({s.average + begin, s.from + begin, std::min(most, s.elements - begin)});
  table().moving_average(call.momentum, pieces.data(), static_cast<int64_t>(pieces.size()));
}

}  // namespace saccade::kernels
