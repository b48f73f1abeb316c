#include <fmt/format.h>
#include <saccade/core/allocator.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <set>
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

std::string human(double bytes) {
  if (bytes >= 1024.0 * 1024 * 1024) return fmt::format("{:.2f} GiB", bytes / (1024.0 * 1024 * 1024));
  return fmt::format("{:.1f} MiB", bytes / (1024.0 * 1024));
}

thread_local Tag current_tag = Tag::activations;

}  // namespace

std::string_view name_of(Tag tag) {
  constexpr std::array<std::string_view, kTags> names = {"parameters",  "gradients", "optimizer",
                                                         "activations", "workspace", "batch"};
  return names[static_cast<size_t>(tag)];
}

struct Allocator::Impl {
  mutable std::mutex mutex;
  bool backed;
  char* base = nullptr;
  size_t range = 0;      // addresses reserved
  size_t committed = 0;  // made readable and writable so far
  size_t end = 0;        // first offset never handed out
  size_t budget = 0;
  MemoryStats stats;
  std::map<size_t, size_t> free_by_offset;           // offset -> bytes
  std::set<std::pair<size_t, size_t>> free_by_size;  // (bytes, offset)

  void insert_free(size_t offset, size_t bytes) {
    free_by_offset.emplace(offset, bytes);
    free_by_size.emplace(bytes, offset);
  }
  void erase_free(std::map<size_t, size_t>::iterator it) {
    free_by_size.erase({it->second, it->first});
    free_by_offset.erase(it);
  }

  [[noreturn]] void refuse(size_t bytes, Tag tag, const std::string& limit) const {
    throw OutOfMemory(fmt::format("out of memory: {} for {} do not fit {}; in use: {}",
                                  human(static_cast<double>(bytes)), name_of(tag), limit, describe(stats)));
  }

  void commit(size_t upto, size_t bytes, Tag tag) {
    if (!backed || upto <= committed) return;
    if (base == nullptr) reserve();
    const size_t target = std::min(range, round_up(upto, kCommitStep));
    if (upto > range || mprotect(base + committed, target - committed, PROT_READ | PROT_WRITE) != 0)
      refuse(bytes, tag, "what the system gives");
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

Allocator::Block Allocator::allocate(size_t bytes, Tag tag) {
  const size_t block_bytes = std::max(round_up(bytes, kAlignment), kAlignment);
  if (block_bytes < bytes) throw OutOfMemory("out of memory: the size of an allocation overflows");
  Impl& a = *impl_;
  const std::lock_guard lock(a.mutex);
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
      a.refuse(block_bytes, tag, fmt::format("the budget of {}", human(static_cast<double>(a.budget))));
    a.commit(offset + block_bytes, block_bytes, tag);
    if (extends) a.erase_free(last);
    a.end = offset + block_bytes;
    a.stats.reserved = static_cast<int64_t>(a.end);
  }
  a.count(tag, static_cast<int64_t>(block_bytes));
  ++a.stats.allocations;
  char* data = a.backed ? a.base + offset : nullptr;
  if (data != nullptr) ASAN_UNPOISON_MEMORY_REGION(data, bytes);
  return {data, offset, block_bytes, tag};
}

void Allocator::release(const Block& block) noexcept {
  if (block.bytes == 0) return;
  Impl& a = *impl_;
  const std::lock_guard lock(a.mutex);
  if (block.data != nullptr) ASAN_POISON_MEMORY_REGION(block.data, block.bytes);
  a.count(block.tag, -static_cast<int64_t>(block.bytes));
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
  return impl_->stats;
}

void Allocator::reset_peaks() {
  const std::lock_guard lock(impl_->mutex);
  for (auto& counter : impl_->stats.by_tag) counter.peak = counter.live;
  impl_->stats.total.peak = impl_->stats.total.live;
}

void Allocator::set_budget(size_t bytes) {
  const std::lock_guard lock(impl_->mutex);
  impl_->budget = bytes;
}

size_t Allocator::budget() const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->budget;
}

void Allocator::trim() {
  Impl& a = *impl_;
  const std::lock_guard lock(a.mutex);
  if (a.base == nullptr) return;
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  for (const auto& [offset, bytes] : a.free_by_offset) {
    const size_t first = round_up(offset, page), last = (offset + bytes) / page * page;
    if (last > first) madvise(a.base + first, last - first, MADV_DONTNEED);
  }
}

Allocator& allocator(Device device) {
  // Never destroyed: tensors with static storage duration may outlive any order of destruction.
  static Allocator& cpu = *new Allocator(true);
  static Allocator& meta = *new Allocator(false);
  return device == Device::meta ? meta : cpu;
}

std::string describe(const MemoryStats& stats) {
  std::string text = fmt::format("{} live, {} at the peak", human(static_cast<double>(stats.total.live)),
                                 human(static_cast<double>(stats.total.peak)));
  for (size_t i = 0; i < kTags; ++i)
    if (stats.by_tag[i].peak > 0)
      text += fmt::format("; {} {} (peak {})", name_of(static_cast<Tag>(i)),
                          human(static_cast<double>(stats.by_tag[i].live)),
                          human(static_cast<double>(stats.by_tag[i].peak)));
  return text;
}

TagScope::TagScope(Tag tag) : previous_(current_tag) { current_tag = tag; }
TagScope::~TagScope() { current_tag = previous_; }
Tag TagScope::current() { return current_tag; }

}  // namespace saccade
