#include <fmt/format.h>
#include <saccade/core/plan/call_timer.h>
#include <saccade/kernels/error.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>

namespace saccade::plan {
namespace {

using kernels::Call;
using kernels::Use;

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

template <class C>
constexpr bool told_apart() {
  if constexpr (requires(C c) { c.segments; }) return true;
  return requires(C c) { c.flops(); };
}

template <class C>
Prepared prepare_one(kernels::Backend& backend, C call) {
  Prepared prepared;
  std::vector<const void*> asked;
  std::vector<size_t> places;  // of each operand that is given: results may lie over what was read
  C::operands(call, [&]<class T>(T*& pointer, int64_t bytes, Use use) {
    if (pointer == nullptr && is_optional(use)) return;
    auto place = static_cast<size_t>(std::find(asked.begin(), asked.end(), pointer) - asked.begin());
    if (pointer == nullptr || place == asked.size()) {
      place = asked.size();
      asked.push_back(pointer);
      prepared.operands.emplace_back();
    }
    Prepared::Operand& operand = prepared.operands[place];
    operand.bytes = std::max(operand.bytes, static_cast<size_t>(bytes));
    operand.fresh = operand.fresh || use == Use::fresh;
    operand.index = std::is_same_v<std::remove_const_t<T>, int32_t>;
    places.push_back(place);
  });
  if constexpr (requires { call.workspace; }) prepared.operands.push_back({backend.workspace(call)});
  prepared.run = [&backend, call, places](std::span<void* const> addresses) mutable {
    auto place = places.begin();
    C::operands(call, [&]<class T>(T*& pointer, int64_t, Use use) {
      if (pointer != nullptr || !is_optional(use)) pointer = static_cast<T*>(addresses[*place++]);
    });
    if constexpr (requires { call.workspace; }) call.workspace = addresses.back();
    backend.run(call);
  };
  return prepared;
}

/// The first member of a call's shape: what it grows with.
struct Extent {
  bool found = false;
  int64_t now = 0;
  std::optional<int64_t> wanted = {};

  void operator()(int64_t& extent) {
    if (std::exchange(found, true)) return;
    now = extent;
    extent = wanted.value_or(extent);
  }
  /// All elements together; those wanted are one tensor's.
  template <class Slot>
  requires requires(Slot s) { s.elements; }
  void operator()(std::vector<Slot>& slots) {
    if (std::exchange(found, true)) return;
    for (const Slot& s : slots) now += s.elements;
    if (!wanted) return;
    slots.resize(1);
    slots[0].elements = *wanted;
  }
  void operator()(auto&) {}
};

struct KeyWriter {
  std::string text;

  void operator()(DType dtype) { text += fmt::format(" {}", name_of(dtype)); }
  void operator()(bool yes) { text += yes ? " +" : " -"; }
  void operator()(const kernels::Conv2d& c) {
    text += fmt::format(" {}-{} k{} s{} p{} g{} {}", c.in_channels, c.out_channels, c.kernel, c.stride, c.padding,
                        c.groups, name_of(c.dtype));
  }
  void operator()(const Segments& segments) {
    for (const Segment& s : segments) text += fmt::format(" {}x{}x{}", s.n, s.h, s.w);
  }
  template <class Slot>
  void operator()(const std::vector<Slot>& slots) {
    int64_t elements = 0;
    for (const Slot& s : slots) elements += s.elements;
    text += fmt::format(" {}", elements);
  }
  template <class T>
  void operator()(const T& value) {
    if constexpr (std::is_enum_v<T>)
      text += fmt::format(" {}", name_of(value));
    else
      text += fmt::format(" {}", value);
  }
};

bool halve(int64_t& n) {
  if (n < 2) return false;
  n = (n + 1) / 2;
  return true;
}

/// Fewer channels: of a grouped convolution with their groups.
bool narrow(kernels::Conv2d& c) {
  if (c.groups == 1) return halve(c.out_channels >= c.in_channels ? c.out_channels : c.in_channels);
  const int64_t fewer = (c.groups + 1) / 2;
  c.in_channels = c.in_channels / c.groups * fewer;
  c.out_channels = c.out_channels / c.groups * fewer;
  return std::exchange(c.groups, fewer) > fewer;
}

template <class C>
bool halve_one(C& call) {
  if constexpr (!told_apart<C>()) {
    Extent extent;
    C::shape(call, extent);
    if (!halve(extent.now)) return false;
    Extent smaller{.wanted = extent.now};
    C::shape(call, smaller);
    return true;
  } else if constexpr (requires { call.segments; }) {
    if (std::ranges::any_of(call.segments, [](const Segment& s) { return s.n > 1; })) {
      for (Segment& s : call.segments) s.n = (s.n + 1) / 2;
      return true;
    }
    if (call.segments.size() > 1) return call.segments.pop_back(), true;
    if constexpr (requires { call.conv; })
      return narrow(call.conv);
    else if constexpr (requires { call.window; })
      return narrow(call.window);
    else if constexpr (requires { call.norm; })
      return halve(call.norm.channels);
    else
      return halve(call.channels);
  } else {
    kernels::MatMul& p = call.product;
    return halve(p.m >= p.n && p.m >= p.k ? p.m : p.n >= p.k ? p.n : p.k);
  }
}

size_t footprint(const Prepared& prepared) {
  size_t sum = 0;
  for (const Prepared::Operand& operand : prepared.operands) sum += rounded(operand.bytes);
  return sum;
}

/// What time is taken to grow with.
double size_of_work(const Call& call) {
  return std::visit(
      [](auto c) {
        double work = 0;
        if constexpr (requires { c.flops(); }) work = c.flops();
        if (work == 0)
          std::remove_reference_t<decltype(c)>::operands(
              c, [&](const void*, int64_t bytes, Use) { work += static_cast<double>(bytes); });
        return work;
      },
      call);
}

}  // namespace

Prepared prepare(kernels::Backend& backend, const Call& call) {
  return std::visit([&](const auto& c) { return prepare_one(backend, c); }, call);
}

bool grows(const Call& call) {
  return std::visit([]<class C>(const C&) { return !told_apart<C>(); }, call);
}

int64_t extent_of(const Call& call) {
  return std::visit(
      []<class C>(C c) {
        Extent extent;
        C::shape(c, extent);
        return extent.now;
      },
      call);
}

Call with_extent(const Call& call, int64_t extent) {
  return std::visit(
      [&]<class C>(C c) -> Call {
        Extent other{.wanted = extent};
        C::shape(c, other);
        return c;
      },
      call);
}

std::string key_of(const Call& call) {
  return std::visit(
      []<class C>(const C& c) {
        KeyWriter key{std::string(c.name)};
        C::shape(c, key);
        int operand = 0;
        C::operands(c, [&](const void* pointer, int64_t, Use use) {
          ++operand;
          if (pointer == nullptr && is_optional(use)) key.text += fmt::format(" without {}", operand);
        });
        return key.text;
      },
      call);
}

bool halve(Call& call) {
  return std::visit([](auto& c) { return halve_one(c); }, call);
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
    if (prepared.operands[i].fresh && !prepared.operands[i].index)
      write_pattern(addresses[i], prepared.operands[i].bytes);
}

double CallTimer::seconds(const Call& original) {
  Call call = original;
  Prepared prepared = prepare(backend_, call);
  while (eviction_bytes_ + footprint(prepared) > limit_ && halve(call)) prepared = prepare(backend_, call);

  std::byte* next = memory(eviction_bytes_ + footprint(prepared)) + eviction_bytes_;
  std::vector<void*> addresses;
  for (const Prepared::Operand& operand : prepared.operands) {
    operand.index ? void(std::memset(next, 0, operand.bytes)) : write_pattern(next, operand.bytes);
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
