#include <saccade/core/plan/call_timer.h>
#include <saccade/kernels/error.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <string>

namespace saccade::plan {
namespace {

using kernels::Call;
using kernels::CallKind;
using kernels::ConvPass;

size_t bytes_of(DType dtype, int64_t elements) { return size_of(dtype) * static_cast<size_t>(elements); }
size_t floats(int64_t elements) { return bytes_of(DType::f32, elements); }

constexpr auto rounded = [](size_t bytes) { return (bytes + 63) / 64 * 64; };

/// A value of every floating type that is neither tiny nor large: denormals and infinities take times of their own.
constexpr uint32_t kPattern = 0x3d003d00;  // 0.03 in f32 and bf16, 1.25 in f16

/// On all threads, so that each core's own caches take part.
void write_pattern(void* memory, size_t bytes) {
  auto* words = static_cast<uint32_t*>(memory);
  const auto count = static_cast<int64_t>(bytes / sizeof(uint32_t));
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < count; ++i) words[i] = kPattern;
}

float* as_float(void* pointer) { return static_cast<float*>(pointer); }

Prepared prepare_conv(kernels::Backend& backend, const Call& call) {
  int64_t in = 0, out = 0;
  for (const Segment& s : call.segments) {
    in += s.rows() * call.conv.in_channels;
    out += call.conv.output(s).rows() * call.conv.out_channels;
  }
  const size_t x = bytes_of(call.dtype, in), y = bytes_of(call.dtype, out),
               w = bytes_of(call.dtype, call.conv.weight_elements());
  const auto workspace = [&](ConvPass pass) { return backend.conv2d_workspace(call.conv, call.segments, pass); };
  const auto conv = call.conv;
  const auto segments = call.segments;
  switch (call.kind) {
    case CallKind::conv_forward:
      return {{{x, true}, {w}, {y}, {workspace(ConvPass::forward)}},
              [=, &backend](auto m) { backend.conv2d_forward(conv, segments, m[0], m[1], m[2], m[3]); }};
    case CallKind::conv_backward_data:
      return {{{y, true}, {w}, {x}, {workspace(ConvPass::backward_data)}},
              [=, &backend](auto m) { backend.conv2d_backward_data(conv, segments, m[0], m[1], m[2], m[3]); }};
    default:
      return {
          {{x}, {y, true}, {floats(conv.weight_elements())}, {workspace(ConvPass::backward_weight)}},
          [=, &backend](auto m) { backend.conv2d_backward_weight(conv, segments, m[0], m[1], as_float(m[2]), m[3]); }};
  }
}

Prepared prepare_batch_norm(kernels::Backend& backend, const Call& call) {
  const kernels::BatchNorm norm = call.norm;
  const auto segments = call.segments;
  const size_t map = bytes_of(call.dtype, total_rows(segments) * norm.channels), vector = floats(norm.channels),
               statistics = vector * segments.size();
  const size_t workspace =
      call.kind == CallKind::batch_norm_apply ? 0 : backend.batch_norm_workspace(norm, call.segments);
  const size_t residual = call.residual ? map : 0;
  const bool has_residual = call.residual;
  const auto optional = [has_residual](void* pointer) { return has_residual ? pointer : nullptr; };
  if (call.kind == CallKind::batch_norm_forward)
    return {{{map, true},
             {residual},
             {vector},
             {vector},
             {statistics},
             {statistics},
             {vector},
             {vector},
             {map},
             {workspace}},
            [=, &backend](auto m) {
              backend.batch_norm_forward(norm, segments, m[0], optional(m[1]), as_float(m[2]), as_float(m[3]),
                                         as_float(m[4]), as_float(m[5]), as_float(m[6]), as_float(m[7]), m[8], m[9]);
            }};
  if (call.kind == CallKind::batch_norm_apply)
    return {{{map}, {map}, {vector}, {vector}, {statistics}, {statistics}}, [=, &backend](auto m) {
              backend.batch_norm_apply(norm, segments, m[0], as_float(m[2]), as_float(m[3]), as_float(m[4]),
                                       as_float(m[5]), m[1]);
            }};
  // x, dy (and dx in its place), y and dresidual, the parameters, the statistics, their gradients
  return {{{map},
           {map, true},
           {residual},
           {residual},
           {vector},
           {vector},
           {statistics},
           {statistics},
           {vector},
           {vector},
           {workspace}},
          [=, &backend](auto m) {
            backend.batch_norm_backward(norm, segments, m[0], optional(m[2]), m[1], as_float(m[4]), as_float(m[5]),
                                        as_float(m[6]), as_float(m[7]), m[1], optional(m[3]), as_float(m[8]),
                                        as_float(m[9]), m[10]);
          }};
}

/// Pooling and channel scaling.
Prepared prepare_images(kernels::Backend& backend, const Call& call) {
  const int64_t channels = call.norm.channels;
  const DType dtype = call.dtype;
  const auto segments = call.segments;
  const size_t map = bytes_of(dtype, total_rows(segments) * channels),
               vectors = bytes_of(dtype, total_images(segments) * channels);
  switch (call.kind) {
    case CallKind::pool_forward:
      return {{{map, true}, {vectors}},
              [=, &backend](auto m) { backend.global_avg_pool_forward(segments, channels, dtype, m[0], m[1]); }};
    case CallKind::pool_backward:
      return {{{vectors, true}, {map}},
              [=, &backend](auto m) { backend.global_avg_pool_backward(segments, channels, dtype, m[0], m[1]); }};
    case CallKind::channel_scale_forward:
      return {{{map, true}, {vectors}, {map}},
              [=, &backend](auto m) { backend.channel_scale_forward(segments, channels, dtype, m[0], m[1], m[2]); }};
    case CallKind::channel_scale_backward_scale:
      return {{{map}, {map, true}, {vectors}}, [=, &backend](auto m) {
                backend.channel_scale_backward_scale(segments, channels, dtype, m[0], m[1], m[2]);
              }};
    default:
      return {{{map, true}, {vectors}, {vectors}}, [=, &backend](auto m) {
                backend.channel_scale_backward_input(segments, channels, dtype, m[0], m[1], m[2], m[0]);
              }};
  }
}

/// Kinds of which only the traffic is known: as many elements as move so many bytes.
Prepared prepare_traffic(kernels::Backend& backend, const Call& call) {
  const DType dtype = call.dtype;
  const auto elements = [&call](size_t bytes_each) {
    return std::max<int64_t>(1, static_cast<int64_t>(call.bytes / static_cast<double>(bytes_each)));
  };
  switch (call.kind) {
    case CallKind::cast: {
      const int64_t n = elements(size_of(dtype) + 4);
      return {{{floats(n), true}, {bytes_of(dtype, n)}},
              [=, &backend](auto m) { backend.cast(DType::f32, dtype, n, m[0], m[1]); }};
    }
    case CallKind::reduction: {
      const int64_t n = elements(size_of(dtype));
      return {{{bytes_of(dtype, n), true}, {floats(1)}},
              [=, &backend](auto m) { backend.sum(dtype, n, m[0], as_float(m[1])); }};
    }
    case CallKind::sgd:
    case CallKind::larc: {
      const kernels::Sgd sgd{.trust = call.kind == CallKind::larc ? 0.001f : 0.f, .momentum_dtype = dtype};
      const int64_t n = elements(12 + 2 * size_of(dtype));
      return {{{floats(n)}, {floats(n)}, {bytes_of(dtype, n)}}, [=, &backend](auto m) {
                const kernels::ParameterSlot slot{as_float(m[0]), as_float(m[1]), m[2], nullptr, n};
                backend.sgd(sgd, {&slot, 1});
              }};
    }
    case CallKind::adamw: {
      const int64_t n = elements(28);
      return {{{floats(n)}, {floats(n)}, {floats(n)}, {floats(n)}}, [=, &backend](auto m) {
                const kernels::ParameterSlot slot{as_float(m[0]), as_float(m[1]), m[2], m[3], n};
                backend.adamw({}, {&slot, 1});
              }};
    }
    default:
      break;
  }
  if (!is_floating(dtype)) {
    const auto half = static_cast<size_t>(elements(2));
    return {{{half, true}, {half}}, [=, &backend](auto m) { backend.copy(half, m[0], m[1]); }};
  }
  const int64_t n = elements(3 * size_of(dtype));
  return {{{bytes_of(dtype, n), true}, {bytes_of(dtype, n)}, {bytes_of(dtype, n)}},
          [=, &backend](auto m) { backend.add(dtype, n, m[0], m[1], m[2]); }};
}

size_t footprint(const Prepared& prepared) {
  size_t sum = 0;
  for (const Prepared::Operand& operand : prepared.operands) sum += rounded(operand.bytes);
  return sum;
}

/// What time is taken to grow with.
double size_of_work(const Call& call) { return call.flops > 0 ? call.flops : call.bytes; }

}  // namespace

Prepared prepare(kernels::Backend& backend, const Call& call) {
  switch (call.kind) {
    case CallKind::conv_forward:
    case CallKind::conv_backward_data:
    case CallKind::conv_backward_weight:
      return prepare_conv(backend, call);
    case CallKind::batch_norm_forward:
    case CallKind::batch_norm_apply:
    case CallKind::batch_norm_backward:
      return prepare_batch_norm(backend, call);
    case CallKind::pool_forward:
    case CallKind::pool_backward:
    case CallKind::channel_scale_forward:
    case CallKind::channel_scale_backward_scale:
    case CallKind::channel_scale_backward_input:
      return prepare_images(backend, call);
    case CallKind::matmul: {
      const kernels::MatMul spec = call.matmul;
      return {{{bytes_of(spec.dtype, spec.m * spec.k), true},
               {bytes_of(spec.dtype, spec.k * spec.n)},
               {bytes_of(spec.out_dtype, spec.m * spec.n)},
               {backend.matmul_workspace(spec)}},
              [=, &backend](auto m) { backend.matmul(spec, m[0], m[1], nullptr, m[2], m[3]); }};
    }
    case CallKind::sinkhorn: {
      const kernels::Sinkhorn spec = call.assignment;
      return {
          {{floats(spec.rows * spec.prototypes), true}, {floats(spec.prototypes)}, {backend.sinkhorn_workspace(spec)}},
          [=, &backend](auto m) { backend.sinkhorn_potentials(spec, as_float(m[0]), as_float(m[1]), m[2]); }};
    }
    case CallKind::swapped_prediction: {
      const kernels::SwappedPrediction spec = call.swapped_prediction;
      const size_t crop = floats(spec.batch * spec.prototypes), crops = crop * static_cast<size_t>(spec.crops);
      return {{{crops, true}, {crop * static_cast<size_t>(spec.assigning), true}, {floats(1)}, {crops}},
              [=, &backend](auto m) {
                backend.swapped_prediction(spec, as_float(m[0]), as_float(m[1]), as_float(m[2]), as_float(m[3]));
              }};
    }
    default:
      return prepare_traffic(backend, call);
  }
}

bool halve(Call& call, Segments& segments) {
  const double before_rows = static_cast<double>(total_rows(segments));
  const auto half = [](int64_t n) { return (n + 1) / 2; };
  if (call.kind == CallKind::matmul) {
    kernels::MatMul& p = call.matmul;
    int64_t& largest = p.m >= p.n && p.m >= p.k ? p.m : p.n >= p.k ? p.n : p.k;
    if (largest < 2) return false;
    largest = half(largest);
    call.flops = p.flops();
    return true;
  }
  if (call.kind == CallKind::sinkhorn || call.kind == CallKind::swapped_prediction) {
    int64_t& prototypes =
        call.kind == CallKind::sinkhorn ? call.assignment.prototypes : call.swapped_prediction.prototypes;
    if (prototypes < 2) return false;
    call.bytes *= static_cast<double>(half(prototypes)) / static_cast<double>(prototypes);
    prototypes = half(prototypes);
    return true;
  }
  if (segments.empty()) {  // of a kind of which only the traffic is known
    call.bytes /= 2;
    return call.bytes >= 64;
  }
  const auto several = [](const Segment& s) { return s.n > 1; };
  if (std::any_of(segments.begin(), segments.end(), several)) {
    for (Segment& s : segments) s.n = half(s.n);
  } else if (segments.size() > 1) {
    segments.pop_back();
  } else {
    const bool is_conv = call.conv.out_channels > 0;
    if (!is_conv || call.conv.groups == 1) {
      int64_t& channels = !is_conv                                          ? call.norm.channels
                          : call.conv.out_channels >= call.conv.in_channels ? call.conv.out_channels
                                                                            : call.conv.in_channels;
      if (channels < 2) return false;
      call.bytes *= static_cast<double>(half(channels)) / static_cast<double>(channels);
      channels = half(channels);
    } else {
      const int64_t fewer = half(call.conv.groups);
      call.conv.in_channels = call.conv.in_channels / call.conv.groups * fewer;
      call.conv.out_channels = call.conv.out_channels / call.conv.groups * fewer;
      call.conv.groups = fewer;
    }
  }
  call.bytes *= static_cast<double>(total_rows(segments)) / before_rows;
  call.segments = segments;
  if (call.flops > 0) {
    call.flops = 0;
    for (const Segment& s : segments) call.flops += call.conv.flops(s);
  }
  return true;
}

CallTimer::CallTimer(kernels::Backend& backend, int64_t memory)
    : backend_(backend), limit_(static_cast<size_t>(std::max<int64_t>(memory, 4 << 20))) {
  const long cache = sysconf(_SC_LEVEL3_CACHE_SIZE);
  eviction_bytes_ = rounded(std::min(limit_ / 4, cache > 0 ? static_cast<size_t>(cache) * 3 / 2 : 48u << 20));
}

CallTimer::~CallTimer() { release(); }

void CallTimer::release() {
  if (base_ != nullptr) munmap(base_, held_);
  base_ = nullptr;
  held_ = 0;
}

std::byte* CallTimer::memory(size_t bytes) {
  if (bytes > held_) {
    release();
    void* mapped = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED)
      throw Error("calibration: the system gave no " + std::to_string(bytes) + " bytes to measure in");
    madvise(mapped, bytes, MADV_HUGEPAGE);
    base_ = static_cast<std::byte*>(mapped);
    held_ = bytes;
    most_bytes_ = std::max(most_bytes_, static_cast<int64_t>(bytes));
  }
  return base_;
}

void CallTimer::set_caches(const Prepared& prepared, std::span<void* const> addresses) {
  write_pattern(base_, eviction_bytes_);
  for (size_t i = 0; i < addresses.size(); ++i)
    if (prepared.operands[i].warm) write_pattern(addresses[i], prepared.operands[i].bytes);
}

double CallTimer::seconds(const Call& original) {
  Call call = original;
  Segments segments(call.segments.begin(), call.segments.end());
  call.segments = segments;
  Prepared prepared = prepare(backend_, call);
  while (eviction_bytes_ + footprint(prepared) > limit_ && halve(call, segments)) prepared = prepare(backend_, call);

  std::byte* next = memory(eviction_bytes_ + footprint(prepared)) + eviction_bytes_;
  std::vector<void*> addresses;
  for (const Prepared::Operand& operand : prepared.operands) {
    write_pattern(next, operand.bytes);
    addresses.push_back(next);
    next += rounded(operand.bytes);
  }
  const auto timed = [&] {
    const auto start = std::chrono::steady_clock::now();
    prepared.run(addresses);
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  const double first = timed();  // with what a library prepares once for a shape
  std::vector<double> times;
  for (double spent = first; times.size() < 3 && (times.empty() || spent < 0.5); spent += times.back()) {
    set_caches(prepared, addresses);
    times.push_back(timed());
  }
  std::sort(times.begin(), times.end());
  return times[times.size() / 2] * size_of_work(original) / size_of_work(call);
}

}  // namespace saccade::plan
