#include <fmt/format.h>
#include <fmt/ranges.h>
#include <saccade/core/allocator.h>
#include <saccade/core/layer.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <set>
#include <unordered_set>
#include <utility>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#endif

namespace saccade {
namespace {

constexpr size_t kAlignment = 64;
constexpr size_t kCommitStep = size_t{64} << 20;

size_t round_up(size_t bytes, size_t to) { return (bytes + to - 1) / to * to; }

std::string human(size_t bytes) {
  const double mib = static_cast<double>(bytes) / (1 << 20);
  return mib < 1024 ? fmt::format("{:.1f} MiB", mib) : fmt::format("{:.2f} GiB", mib / 1024);
}

/// What is remembered of a block while it is in use. The shape's memory is reused by the next block remembered here.
struct Record {
  size_t bytes = 0, offset = 0;
  const std::string* layer = nullptr;  ///< null: not in use
  std::vector<int64_t> shape;
  std::optional<DType> dtype;
  Tag tag = Tag::activations;
  Phase phase = Phase::setup;
  uint32_t next_unused = 0;
};

std::string describe_tensor(std::span<const int64_t> shape, std::optional<DType> dtype) {
  if (!dtype) return "";
  return fmt::format("({}) {}", fmt::join(shape, ", "), name_of(*dtype));
}

LiveBlock live_block(const Record& r) {
  return {r.bytes, r.offset, r.tag, r.phase, *r.layer, describe_tensor(r.shape, r.dtype)};
}

}  // namespace

struct Allocator::Impl {
  mutable std::mutex mutex;
  bool backed;
  char* base = nullptr;
  size_t range = 0;      // addresses reserved
  size_t committed = 0;  // made readable and writable so far
  size_t end = 0;        // first offset never handed out
  size_t budget = 0;
  int64_t until_failure = 0;  // fail_at
  MemoryStats stats;
  std::map<size_t, size_t> free_by_offset;           // offset -> bytes
  std::set<std::pair<size_t, size_t>> free_by_size;  // (bytes, offset)
  std::vector<Record> records;
  uint32_t unused = 0;                     // head of the list of records not in use; records.size(): none
  std::unordered_set<std::string> layers;  // names that records point to

  void insert_free(size_t offset, size_t bytes) {
    free_by_offset.emplace(offset, bytes);
    free_by_size.emplace(bytes, offset);
  }
  void erase_free(std::map<size_t, size_t>::iterator it) {
    free_by_size.erase({it->second, it->first});
    free_by_offset.erase(it);
  }

  struct Request {
    size_t bytes;
    Tag tag;
    std::span<const int64_t> shape;
    std::optional<DType> dtype;
  };

  [[noreturn]] void refuse(const Request& r, const std::string& limit) const {
    const std::string& layer = LayerScope::current();
    throw OutOfMemory(
        fmt::format("out of memory: {} for {}{}{}{} ({}) do not fit {}; {} are in use", human(r.bytes), name_of(r.tag),
                    r.dtype ? " " : "", describe_tensor(r.shape, r.dtype), layer.empty() ? "" : " in layer " + layer,
                    name_of(PhaseScope::current()), limit, human(static_cast<size_t>(stats.total.live))),
        snapshot(), largest(10));
  }

  MemoryStats snapshot() const {
    MemoryStats now = stats;
    now.reserved = static_cast<int64_t>(end);
    now.largest_free = free_by_size.empty() ? 0 : static_cast<int64_t>(free_by_size.rbegin()->first);
    return now;
  }

  std::vector<LiveBlock> largest(size_t n) const {
    std::vector<const Record*> live;
    for (const Record& r : records)
      if (r.layer != nullptr) live.push_back(&r);
    n = std::min(n, live.size());
    std::partial_sort(live.begin(), live.begin() + static_cast<std::ptrdiff_t>(n), live.end(),
                      [](const Record* a, const Record* b) {
                        return a->bytes != b->bytes ? a->bytes > b->bytes : a->offset < b->offset;
                      });
    std::vector<LiveBlock> result;
    for (size_t i = 0; i < n; ++i) result.push_back(live_block(*live[i]));
    return result;
  }

  /// The index of a record to be filled.
  uint32_t take_record() {
    if (unused == records.size()) {
      records.emplace_back();
      records.back().next_unused = unused + 1;
    }
    return std::exchange(unused, records[unused].next_unused);
  }
  void drop_record(uint32_t i) {
    records[i].layer = nullptr;
    records[i].next_unused = std::exchange(unused, i);
  }

  void commit(size_t upto, const Request& request) {
    if (!backed || upto <= committed) return;
    if (base == nullptr) reserve();
    const size_t target = std::min(range, round_up(upto, kCommitStep));
    if (upto > range || mprotect(base + committed, target - committed, PROT_READ | PROT_WRITE) != 0)
      refuse(request, "what the system gives");
    madvise(base + committed, target - committed, MADV_HUGEPAGE);
    ASAN_POISON_MEMORY_REGION(base + committed, target - committed);
    committed = target;
  }

  // Addresses cost nothing: reserve several times the machine's memory, so that the arena is one range for ever.
  void reserve() {
    range = round_up(static_cast<size_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<size_t>(sysconf(_SC_PAGESIZE)) * 4,
                     kCommitStep);
    for (; range >= kCommitStep; range = round_up(range / 2, kCommitStep)) {
      void* address = mmap(nullptr, range, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (address != MAP_FAILED) {
        base = static_cast<char*>(address);
        return;
      }
      if (range == kCommitStep) break;
    }
    throw OutOfMemory("out of memory: the system gives no address range for the arena");
  }

  void count(Tag tag, int64_t bytes) {
    for (MemoryStats::Counter* c : {&stats.by_tag[static_cast<size_t>(tag)], &stats.total}) {
      c->live += bytes;
      c->peak = std::max(c->peak, c->live);
    }
  }
};

Allocator::Allocator(bool backed) : impl_(std::make_unique<Impl>()) { impl_->backed = backed; }

Allocator::~Allocator() {
  if (impl_->base != nullptr) {
    ASAN_UNPOISON_MEMORY_REGION(impl_->base, impl_->committed);
    munmap(impl_->base, impl_->range);
  }
}

Allocator::Block Allocator::allocate(size_t bytes, Tag tag, std::span<const int64_t> shape,
                                     std::optional<DType> dtype) {
  const size_t block_bytes = std::max(round_up(bytes, kAlignment), kAlignment);
  Impl& a = *impl_;
  const std::lock_guard lock(a.mutex);
  const Impl::Request request{bytes, tag, shape, dtype};
  if (block_bytes < bytes) a.refuse(request, "any machine");
  if (a.until_failure > 0 && --a.until_failure == 0) a.refuse(request, "a limit set by fail_at");
  size_t offset;
  if (const auto fit = a.free_by_size.lower_bound({block_bytes, 0}); fit != a.free_by_size.end()) {
    const auto [size, at] = *fit;
    offset = at;
    a.erase_free(a.free_by_offset.find(at));
    if (size > block_bytes) a.insert_free(at + block_bytes, size - block_bytes);
  } else {
    // Grow: a free block at the end of the arena is used as the beginning of the new one.
    offset = a.end;
    auto last = a.free_by_offset.empty() ? a.free_by_offset.end() : std::prev(a.free_by_offset.end());
    const bool extends = last != a.free_by_offset.end() && last->first + last->second == a.end;
    if (extends) offset = last->first;
    if (a.budget != 0 && offset + block_bytes > a.budget)
      a.refuse(request, fmt::format("the budget of {}", human(a.budget)));
    a.commit(offset + block_bytes, request);
    if (extends) a.erase_free(last);
    a.end = offset + block_bytes;
    a.stats.peak_reserved = std::max(a.stats.peak_reserved, static_cast<int64_t>(a.end));
  }
  a.count(tag, static_cast<int64_t>(block_bytes));
  ++a.stats.allocations;
  const uint32_t at = a.take_record();
  Record& record = a.records[at];
  record.bytes = bytes;
  record.offset = offset;
  record.layer = &*a.layers.insert(LayerScope::current()).first;
  record.shape.assign(shape.begin(), shape.end());
  record.dtype = dtype;
  record.tag = tag;
  record.phase = PhaseScope::current();
  char* data = a.backed ? a.base + offset : nullptr;
  if (data != nullptr) ASAN_UNPOISON_MEMORY_REGION(data, bytes);
  return {data, offset, block_bytes, tag, at};
}

void Allocator::release(const Block& block) noexcept {
  if (block.bytes == 0) return;
  Impl& a = *impl_;
  const std::lock_guard lock(a.mutex);
  if (block.data != nullptr) ASAN_POISON_MEMORY_REGION(block.data, block.bytes);
  a.count(block.tag, -static_cast<int64_t>(block.bytes));
  a.drop_record(block.record);
  size_t offset = block.offset, bytes = block.bytes;
  auto next = a.free_by_offset.lower_bound(offset);
  if (next != a.free_by_offset.begin()) {
    if (const auto before = std::prev(next); before->first + before->second == offset) {
      offset = before->first;
      bytes += before->second;
      a.erase_free(before);
    }
  }
  if (next != a.free_by_offset.end() && next->first == block.offset + block.bytes) {
    bytes += next->second;
    a.erase_free(next);
  }
  a.insert_free(offset, bytes);
}

MemoryStats Allocator::stats() const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->snapshot();
}

std::vector<LiveBlock> Allocator::largest(size_t n) const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->largest(n);
}

void Allocator::reset_peaks() {
  const std::lock_guard lock(impl_->mutex);
  for (auto& counter : impl_->stats.by_tag) counter.peak = counter.live;
  impl_->stats.total.peak = impl_->stats.total.live;
  impl_->stats.peak_reserved = static_cast<int64_t>(impl_->end);
}

void Allocator::set_budget(size_t bytes) {
  const std::lock_guard lock(impl_->mutex);
  impl_->budget = bytes;
}

size_t Allocator::budget() const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->budget;
}

void Allocator::fail_at(int64_t n) {
  const std::lock_guard lock(impl_->mutex);
  impl_->until_failure = n;
}

void Allocator::trim() {
  Impl& a = *impl_;
  const std::lock_guard lock(a.mutex);
  const auto give_back = [&](size_t first, size_t last) {
    const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    first = round_up(first, page);
    last = last / page * page;
    if (a.base != nullptr && last > first) madvise(a.base + first, last - first, MADV_DONTNEED);
  };
  const size_t old_end = a.end;
  if (!a.free_by_offset.empty())
    if (const auto last = std::prev(a.free_by_offset.end()); last->first + last->second == a.end) {
      a.end = last->first;
      a.erase_free(last);
    }
  give_back(a.end, round_up(old_end, kCommitStep));
  for (const auto& [offset, bytes] : a.free_by_offset) give_back(offset, offset + bytes);
}

Allocator& allocator(Device device) {
  // Never destroyed: tensors with static storage duration may outlive any order of destruction.
  static Allocator& cpu = *new Allocator(true);
  static Allocator& meta = *new Allocator(false);
  return device == Device::meta ? meta : cpu;
}

}  // namespace saccade
