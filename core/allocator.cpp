#include <fmt/format.h>
#include <fmt/ranges.h>
#include <saccade/core/allocator.h>
#include <saccade/core/bytes.h>
#include <saccade/core/layer.h>
#include <saccade/kernels/cuda_device.h>
#include <saccade/kernels/memory.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <set>
#include <utility>

#if __has_include(<sanitizer/asan_interface.h>)
#include <sanitizer/asan_interface.h>  // its macros do nothing without the sanitizer
#else
#define ASAN_POISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#endif

namespace saccade {
namespace {

constexpr size_t kAlignment = 64;
constexpr size_t kChunk = size_t{2} << 20;  // given back and counted whole: a huge page

size_t round_up(size_t bytes, size_t to) { return (bytes + to - 1) / to * to; }

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

/// One range of addresses from which blocks are cut; neighbours merge when freed. Free memory may be absent: its
/// physical pages were given back, by whole chunks, and come again when it is used.
class Range {
 public:
  explicit Range(kernels::Memory* memory) : memory_(memory) {}
  ~Range() {
    if (base_ == nullptr) return;
    unpoison(base_, committed_);
    memory_->unreserve(base_, size_);
  }
  Range(const Range&) = delete;
  Range& operator=(const Range&) = delete;

  char* base() const { return base_; }
  size_t resident() const { return end_ - kChunk * absent_.size(); }
  size_t largest_free() const { return free_by_size_.empty() ? 0 : free_by_size_.rbegin()->first; }

  struct Place {
    size_t offset;
    size_t growth;  ///< by which the end moves
    size_t more;    ///< bytes by which resident() grows
  };
  /// Where a block goes: the lowest place, or the tightest (of equals the lowest), or if it fits nowhere the end. A
  /// free block there is its beginning.
  Place find(size_t bytes, bool lowest) const {
    std::optional<size_t> fit;
    if (lowest) {
      const auto found = std::ranges::find_if(free_by_offset_, [&](const auto& f) { return f.second >= bytes; });
      if (found != free_by_offset_.end()) fit = found->first;
    } else if (const auto found = free_by_size_.lower_bound({bytes, 0}); found != free_by_size_.end()) {
      fit = found->second;
    }
    if (fit) return {*fit, 0, absent_between(*fit, *fit + bytes)};
    const size_t free = free_at_end();
    return {end_ - free, bytes - free, bytes - free + absent_between(end_ - free, end_)};
  }

  /// Only the host's memory is poisoned: a device does later what was asked of it before a block was released.
  bool is_host() const { return memory_ == &kernels::cpu_memory(); }
  void poison(const char* at, size_t bytes) const {
    if (is_host()) ASAN_POISON_MEMORY_REGION(at, bytes);
  }
  void unpoison(const char* at, size_t bytes) const {
    if (is_host()) ASAN_UNPOISON_MEMORY_REGION(at, bytes);
  }

  /// Cuts a block from where find() said; false when the device has no memory for it.
  bool take(const Place& place, size_t bytes) {
    if (!bring_back(place.offset, place.offset + bytes) || !commit(place.growth)) return false;
    if (const auto free = free_by_offset_.find(place.offset); free != free_by_offset_.end()) {
      const size_t size = free->second;
      erase_free(free);
      if (size > bytes) insert_free(place.offset + bytes, size - bytes);
    }
    end_ += place.growth;
    return true;
  }

  void release(size_t offset, size_t bytes) {
    const size_t behind = offset + bytes;
    auto next = free_by_offset_.lower_bound(offset);
    if (next != free_by_offset_.begin()) {
      if (const auto before = std::prev(next); before->first + before->second == offset) {
        offset = before->first;
        bytes += before->second;
        erase_free(before);
      }
    }
    if (next != free_by_offset_.end() && next->first == behind) {
      bytes += next->second;
      erase_free(next);
    }
    insert_free(offset, bytes);
  }

  /// Ends the range behind its last block in use, and gives the physical pages of all free chunks back.
  void trim() {
    if (const size_t free = free_at_end(); free > 0) {
      erase_free(std::prev(free_by_offset_.end()));
      end_ -= free;
      absent_.erase(absent_.lower_bound(end_ / kChunk), absent_.end());
      give_back(end_, committed_);
      if (memory_ != nullptr) committed_ = std::min(committed_, round_up(end_, memory_->step()));
    }
    for (const auto& [offset, bytes] : free_by_offset_)
      for (size_t chunk = round_up(offset, kChunk) / kChunk; (chunk + 1) * kChunk <= offset + bytes; ++chunk)
        if (absent_.insert(chunk).second) give_back(chunk * kChunk, (chunk + 1) * kChunk);
  }

 private:
  void insert_free(size_t offset, size_t bytes) {
    free_by_offset_.emplace(offset, bytes);
    free_by_size_.emplace(bytes, offset);
  }
  void erase_free(std::map<size_t, size_t>::iterator it) {
    free_by_size_.erase({it->second, it->first});
    free_by_offset_.erase(it);
  }
  size_t free_at_end() const {
    if (free_by_offset_.empty()) return 0;
    const auto last = std::prev(free_by_offset_.end());
    return last->first + last->second == end_ ? last->second : 0;
  }

  size_t absent_between(size_t first, size_t last) const {
    return kChunk * static_cast<size_t>(std::distance(absent_.lower_bound(first / kChunk),
                                                      absent_.lower_bound(round_up(last, kChunk) / kChunk)));
  }

  /// Memory for the absent chunks of [first, last), which are absent no longer.
  bool bring_back(size_t first, size_t last) {
    const auto end = absent_.lower_bound(round_up(last, kChunk) / kChunk);
    for (auto chunk = absent_.lower_bound(first / kChunk); chunk != end; chunk = absent_.erase(chunk))
      if (memory_ != nullptr && !memory_->commit(base_ + *chunk * kChunk, kChunk)) return false;
    return true;
  }

  bool commit(size_t growth) {
    if (memory_ == nullptr || growth == 0) return true;
    if (base_ == nullptr && !reserve()) return false;
    if (growth > size_ - end_) return false;
    if (end_ + growth <= committed_) return true;
    const size_t target = round_up(end_ + growth, memory_->step());
    if (!memory_->commit(base_ + committed_, target - committed_)) return false;
    poison(base_ + committed_, target - committed_);
    committed_ = target;
    return true;
  }

  // Addresses cost nothing: reserve several times the device's memory, so that it is one range for ever.
  bool reserve() {
    const size_t least = round_up(memory_->step(), kChunk);
    for (size_ = round_up(memory_->total() * 4, least);; size_ = round_up(size_ / 2, least)) {
      base_ = static_cast<char*>(memory_->reserve(size_));
      if (base_ != nullptr) return true;
      if (size_ == least) return false;
    }
  }

  void give_back(size_t first, size_t last) const {
    if (base_ != nullptr && last > first) memory_->give_back(base_ + first, last - first);
  }

  kernels::Memory* memory_;                           // null: bookkeeping only
  char* base_ = nullptr;                              // at a multiple of kChunk
  size_t size_ = 0;                                   // addresses reserved
  size_t committed_ = 0;                              // has memory, but for absent chunks
  size_t end_ = 0;                                    // first offset never handed out
  std::map<size_t, size_t> free_by_offset_;           // offset -> bytes
  std::set<std::pair<size_t, size_t>> free_by_size_;  // (bytes, offset)
  std::set<size_t> absent_;                           // chunks of free memory without pages
};

}  // namespace

struct Allocator::Impl {
  explicit Impl(kernels::Memory* memory) : lasting(memory), passing(memory) {}

  mutable std::mutex mutex;
  Range lasting, passing;
  size_t budget = 0;
  int64_t until_failure = 0;  // fail_at
  MemoryStats stats;
  std::vector<Record> records;
  uint32_t unused = 0;  // head of the list of records not in use; records.size(): none

  Range& range_of(Tag tag) {
    return tag == Tag::parameters || tag == Tag::optimizer || tag == Tag::batch ? lasting : passing;
  }
  size_t reserved() const { return lasting.resident() + passing.resident(); }

  struct Request {
    size_t bytes;
    Tag tag;
    std::span<const int64_t> shape;
    std::optional<DType> dtype;
  };

  [[noreturn]] void refuse(const Request& r, const std::string& limit) const {
    const std::string& layer = LayerScope::current();
    throw OutOfMemory(fmt::format("out of memory: {} for {}{}{}{} ({}) do not fit {}; {} are in use",
                                  bytes_text(static_cast<int64_t>(r.bytes)), name_of(r.tag), r.dtype ? " " : "",
                                  describe_tensor(r.shape, r.dtype), layer.empty() ? "" : " in layer " + layer,
                                  name_of(PhaseScope::current()), limit, bytes_text(stats.total.live)),
                      snapshot(), largest(10));
  }

  MemoryStats snapshot() const {
    MemoryStats now = stats;
    now.reserved = static_cast<int64_t>(reserved());
    now.largest_free = static_cast<int64_t>(passing.largest_free());
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

  size_t place(const Request& request, size_t block_bytes) {
    Range& range = range_of(request.tag);
    // What a forward keeps piles up from below and should leave no gaps; a backward opens them in any order.
    const Phase phase = PhaseScope::current();
    const bool lowest = &range == &passing && phase != Phase::backward && phase != Phase::recompute;
    Range::Place place = range.find(block_bytes, lowest);
    const auto beyond_budget = [&] { return budget != 0 && place.more > budget - std::min(budget, reserved()); };
    if (beyond_budget()) {
      // What is free in pieces too small for the block makes room for it elsewhere: that costs page faults, no memory.
      lasting.trim();
      passing.trim();
      place = range.find(block_bytes, lowest);
    }
    if (beyond_budget()) refuse(request, "the budget of " + bytes_text(static_cast<int64_t>(budget)));
    if (!range.take(place, block_bytes)) refuse(request, "what the device gives");
    stats.peak_reserved = std::max(stats.peak_reserved, static_cast<int64_t>(reserved()));
    return place.offset;
  }

  void count(Tag tag, int64_t bytes) {
    for (MemoryStats::Counter* c : {&stats.by_tag[static_cast<size_t>(tag)], &stats.total}) {
      c->live += bytes;
      c->peak = std::max(c->peak, c->live);
    }
  }
};

Allocator::Allocator(kernels::Memory* memory) : impl_(std::make_unique<Impl>(memory)) {}
Allocator::~Allocator() = default;

Allocator::Block Allocator::allocate(size_t bytes, Tag tag, std::span<const int64_t> shape,
                                     std::optional<DType> dtype) {
  const size_t block_bytes = std::max(round_up(bytes, kAlignment), kAlignment);
  Impl& a = *impl_;
  const std::lock_guard lock(a.mutex);
  const Impl::Request request{bytes, tag, shape, dtype};
  if (block_bytes < bytes) a.refuse(request, "any machine");
  if (a.until_failure > 0 && --a.until_failure == 0) a.refuse(request, "a limit set by fail_at");
  const size_t offset = a.place(request, block_bytes);
  a.count(tag, static_cast<int64_t>(block_bytes));
  ++a.stats.allocations;
  const uint32_t at = a.take_record();
  Record& record = a.records[at];
  record.bytes = bytes;
  record.offset = offset;
  record.layer = &LayerScope::current();
  record.shape.assign(shape.begin(), shape.end());
  record.dtype = dtype;
  record.tag = tag;
  record.phase = PhaseScope::current();
  const Range& range = a.range_of(tag);
  char* data = range.base() != nullptr ? range.base() + offset : nullptr;
  if (data != nullptr) range.unpoison(data, bytes);
  return {data, offset, block_bytes, tag, at};
}

void Allocator::release(const Block& block) noexcept {
  if (block.bytes == 0) return;
  Impl& a = *impl_;
  const std::lock_guard lock(a.mutex);
  if (block.data != nullptr) a.range_of(block.tag).poison(static_cast<char*>(block.data), block.bytes);
  a.count(block.tag, -static_cast<int64_t>(block.bytes));
  a.drop_record(block.record);
  a.range_of(block.tag).release(block.offset, block.bytes);
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
  impl_->stats.peak_reserved = static_cast<int64_t>(impl_->reserved());
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
  const std::lock_guard lock(impl_->mutex);
  impl_->lasting.trim();
  impl_->passing.trim();
}

Allocator& allocator(Device device) {
  // Never destroyed: tensors with static storage duration may outlive any order of destruction.
  static Allocator& cpu = *new Allocator(&kernels::cpu_memory());
  static Allocator& meta = *new Allocator(nullptr);
  if (device == Device::cuda) {
    static Allocator& cuda = *new Allocator(&kernels::cuda_memory());
    return cuda;
  }
  return device == Device::meta ? meta : cpu;
}

}  // namespace saccade
