#include "simt.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <exception>
#include <memory>
#include <numeric>
#include <random>
#include <utility>

#include "counts.h"
#include "fiber.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

// Compiled without the thread sanitizer's instrumentation: the bookkeeping is shared by all fibers, and that is no race
// of the kernel's.
namespace simt {
namespace {

constexpr unsigned warp_size = 32;
constexpr size_t red_zone = 64, most_shared_bytes = 48 << 10;
constexpr unsigned char red = 0xb7;

#if defined(SACCADE_SIMT_TSAN)
constexpr bool keep_until_kernel_ends = true;  // memory that two blocks reuse would look like a race between them
#else
constexpr bool keep_until_kernel_ends = false;
#endif

/// An array in shared memory, between two red zones.
struct SharedArray {
  const void* tag;
  const char* name;
  std::unique_ptr<unsigned char[]> memory;
  size_t bytes, offset;
  unsigned char* begin() const { return memory.get() + red_zone; }

  SharedArray(const void* its_tag, const char* its_name, size_t its_bytes, size_t its_offset)
      : tag(its_tag),
        name(its_name),
        memory(new unsigned char[its_bytes + 2 * red_zone]),
        bytes(its_bytes),
        offset(its_offset) {
    std::memset(memory.get(), red, bytes + 2 * red_zone);
    std::memset(begin(), 0xff, bytes);  // NaN in every float type
#if defined(__SANITIZE_ADDRESS__)
    __asan_poison_memory_region(memory.get(), red_zone);
    __asan_poison_memory_region(begin() + bytes, red_zone);
#endif
  }
  SharedArray(SharedArray&&) = default;
  ~SharedArray() {
#if defined(__SANITIZE_ADDRESS__)
    if (memory) __asan_unpoison_memory_region(memory.get(), bytes + 2 * red_zone);
#endif
  }
  void check() const {
#if !defined(__SANITIZE_ADDRESS__)
    for (size_t i = 0; i < red_zone; ++i) {
      if (memory[i] != red || memory[red_zone + bytes + i] != red) {
        throw Error(fmt::format("the shared array {} of {} bytes was written out of bounds", name, bytes));
      }
    }
#endif
  }
};

enum class State : uint8_t { ready, at_barrier, at_warp, done };
enum class Meeting : uint8_t { barrier, warp, down, exclusive_or, index, ballot };

struct Thread {
  Fiber fiber;
  Here here;
  State state = State::ready;
  Meeting meeting{};
  Site site;
  uint32_t mask = 0;
  uint64_t posted = 0, received = 0;
  int by = 0;
  std::exception_ptr error;
  std::vector<Touch> touches;
  /// For the thread sanitizer; a block's and a warp's are those of the first thread. Two, used in turn: who is first at
  /// the next barrier must not be seen by who has yet to leave this one.
  char block_tokens[2] = {}, warp_tokens[2] = {};
  unsigned barriers = 0, warp_barriers = 0;
};

std::string text_of(Meeting meeting) {
  switch (meeting) {
    case Meeting::barrier:
      return "the barrier";
    case Meeting::warp:
      return "the warp's synchronisation";
    case Meeting::ballot:
      return "the ballot";
    default:
      return "the shuffle";
  }
}

std::string text_of(const Site& site) {
  const std::string_view file = site.file_name();
  return fmt::format("{}:{}", file.substr(file.find_last_of('/') + 1), site.line());
}

bool same(const Site& a, const Site& b) {
  return a.line() == b.line() && a.column() == b.column() && std::strcmp(a.file_name(), b.file_name()) == 0;
}

uint64_t key_of(const Site& site) {
  return reinterpret_cast<uintptr_t>(site.file_name()) * 1000003 + site.line() * uint64_t{1024} + site.column();
}

/// One launch in progress.
class Launch {
 public:
  Launch(std::string kernel, Dim grid, Dim block, size_t shared_bytes, const std::function<void()>& body)
      : kernel_(std::move(kernel)),
        grid_(grid),
        block_(block),
        dynamic_bytes_(shared_bytes),
        body_(body),
        random_(options().seed) {
    report_.kernel = kernel_;
    report_.grid = grid;
    report_.block = block;
  }

  void run() {
    const uint64_t threads = uint64_t{block_.x} * block_.y * block_.z, blocks = uint64_t{grid_.x} * grid_.y * grid_.z;
    if (threads == 0 || threads > 1024 || blocks == 0 || grid_.y > 65535 || grid_.z > 65535) {
      throw Error(fmt::format("{}: a grid of {} x {} x {} blocks of {} threads cannot be launched", kernel_, grid_.x,
                              grid_.y, grid_.z, threads));
    }
    happens_before_release(&start_token_);
    std::vector<uint64_t> order(blocks);
    std::iota(order.begin(), order.end(), 0);
    if (options().blocks == Order::reverse) std::reverse(order.begin(), order.end());
    if (options().blocks == Order::shuffled) std::shuffle(order.begin(), order.end(), random_);
    for (const uint64_t index : order) run_block(index, threads);
    if (options().measure) reports().push_back(report_);
  }
  ~Launch() { happens_before_acquire(&end_token_); }

  // What threads call, through current.
  void wait(Thread& thread, State state, Meeting meeting, const Site& site) {
    thread.state = state;
    thread.meeting = meeting;
    thread.site = site;
    happens_before_release(&end_token_);  // in case that the launch ends here, with an error
    Fiber::yield();
  }
  void* shared(const void* tag, size_t bytes, const char* name) {
    for (SharedArray& array : shared_) {
      if (array.tag != tag) continue;
      happens_before_acquire(array.begin());
      return array.begin();
    }
    const size_t offset = shared_.empty() ? 0 : (shared_.back().offset + shared_.back().bytes + 15) / 16 * 16;
    if (offset + bytes > most_shared_bytes) {
      throw Error(fmt::format("{}: {} bytes of shared memory, more than the {} that every device gives", kernel_,
                              offset + bytes, most_shared_bytes));
    }
    unsigned char* begin = shared_.emplace_back(tag, name, bytes, offset).begin();
    happens_before_release(begin);  // the thread that came first has filled it
    return begin;
  }
  void* dynamic_shared() { return shared(this, dynamic_bytes_, "dynamic"); }
  void touch(Thread& thread, const void* address, size_t bytes, Access access, const Site& site) {
    const auto at = reinterpret_cast<uintptr_t>(address);
    if (at % bytes != 0) {
      throw Error(fmt::format("{}: an access of {} bytes at an address that is no multiple of that, at {}", kernel_,
                              bytes, text_of(site)));
    }
    if (!options().measure) return;
    Touch touch{at, key_of(site), static_cast<uint16_t>(bytes), access, false};
    for (const SharedArray& array : shared_) {
      const auto begin = reinterpret_cast<uintptr_t>(array.begin());
      if (at >= begin && at < begin + array.bytes) {
        touch.address = at - begin + array.offset;
        touch.shared = true;
      }
    }
    thread.touches.push_back(touch);
  }
  void* block_token(Thread& thread) { return &threads_[0]->block_tokens[thread.barriers++ % 2]; }
  void* warp_token(Thread& thread) {
    const Dim& at = thread.here.thread;
    Thread& first = *threads_[(at.x + block_.x * (at.y + block_.y * at.z)) / warp_size * warp_size];
    return &first.warp_tokens[thread.warp_barriers++ % 2];
  }
  void* fence_token() { return &fence_token_; }

 private:
  static void enter(void* launch);

  void run_block(uint64_t index, uint64_t count) {
    if (keep_until_kernel_ends || threads_.empty()) {
      // The sanitizer has room for 8,128 threads; races with blocks that are longer past are not seen.
      if (past_threads_.size() + threads_.size() > 4096) {
        happens_before_acquire(&end_token_);
        past_threads_.clear();
      }
      for (auto& thread : threads_) past_threads_.push_back(std::move(thread));
      threads_.clear();
      for (uint64_t i = 0; i < count; ++i) threads_.push_back(std::make_unique<Thread>());
    }
    for (auto& array : shared_) {
      if (keep_until_kernel_ends) past_shared_.push_back(std::move(array));
    }
    shared_.clear();
    const Dim block{static_cast<unsigned>(index % grid_.x), static_cast<unsigned>(index / grid_.x % grid_.y),
                    static_cast<unsigned>(index / grid_.x / grid_.y)};
    for (unsigned i = 0; i < count; ++i) {
      Thread& thread = *threads_[i];
      thread.here = {{i % block_.x, i / block_.x % block_.y, i / block_.x / block_.y}, block, block_, grid_};
      thread.state = State::ready;
      thread.touches.clear();
      thread.fiber.prepare(enter, this);
    }
    std::vector<unsigned> warps((count + warp_size - 1) / warp_size);
    std::iota(warps.begin(), warps.end(), 0);
    std::shuffle(warps.begin(), warps.end(), random_);
    for (;;) {
      bool moved = false;
      for (const unsigned warp : warps) moved |= run_warp(warp);
      if (std::all_of(threads_.begin(), threads_.end(), [](auto& t) { return t->state == State::done; })) break;
      if (!release_barrier() && !moved) complain();
    }
    for (const SharedArray& array : shared_) array.check();
    if (options().measure) count_block();
  }

  /// Runs the lanes until none can go on. True when any ran.
  bool run_warp(unsigned warp) {
    const unsigned begin = warp * warp_size, end = std::min<unsigned>(begin + warp_size, threads_.size());
    unsigned order[warp_size];
    std::iota(order, order + warp_size, begin);
    std::shuffle(order, order + (end - begin), random_);
    bool moved = false;
    do {
      for (unsigned i = 0; i < end - begin; ++i) {
        Thread& thread = *threads_[order[i]];
        if (thread.state != State::ready) continue;
        moved = true;
        running = &thread;
        thread.fiber.resume();
        running = nullptr;
        if (thread.error) std::rethrow_exception(std::exchange(thread.error, nullptr));
      }
    } while (release_warp(begin, end));
    return moved;
  }

  /// Lets go the lanes whose meeting is complete. True when there were any.
  bool release_warp(unsigned begin, unsigned end) {
    bool any = false;
    for (unsigned i = begin; i < end; ++i) {
      const Thread& first = *threads_[i];
      if (first.state != State::at_warp || !complete(first, begin, end)) continue;
      const uint32_t mask = first.mask;
      uint32_t votes = 0;
      for (unsigned lane = 0; lane < warp_size; ++lane) {
        if ((mask >> lane & 1) && threads_[begin + lane]->posted != 0) votes |= 1u << lane;
      }
      for (unsigned lane = 0; lane < warp_size; ++lane) {
        if (mask >> lane & 1) deliver(*threads_[begin + lane], static_cast<int>(lane), begin, votes);
      }
      ++report_.shuffles;
      any = true;
    }
    return any;
  }

  bool complete(const Thread& first, unsigned begin, unsigned end) const {
    for (unsigned lane = 0; lane < warp_size; ++lane) {
      if (!(first.mask >> lane & 1)) continue;
      if (begin + lane >= end) return false;
      const Thread& other = *threads_[begin + lane];
      if (other.state != State::at_warp || other.meeting != first.meeting || other.mask != first.mask ||
          !same(other.site, first.site)) {
        return false;
      }
    }
    return true;
  }

  void deliver(Thread& thread, int lane, unsigned begin, uint32_t votes) {
    thread.state = State::ready;
    int from = lane;
    switch (thread.meeting) {
      case Meeting::down:
        from = lane + thread.by;
        break;
      case Meeting::exclusive_or:
        from = lane ^ thread.by;
        break;
      case Meeting::index:
        from = thread.by;
        break;
      case Meeting::ballot:
        thread.received = votes;
        return;
      default:
        return;
    }
    if (from < 0 || from >= static_cast<int>(warp_size)) from = lane;
    if (!(thread.mask >> from & 1)) {
      throw Error(fmt::format("{}: lane {} shuffles from lane {}, which is not in the mask, at {}", kernel_, lane, from,
                              text_of(thread.site)));
    }
    thread.received = threads_[begin + static_cast<unsigned>(from)]->posted;
  }

  bool release_barrier() {
    const Thread& first = *threads_[0];
    for (const auto& thread : threads_) {
      if (thread->state != State::at_barrier || !same(thread->site, first.site)) return false;
    }
    for (auto& thread : threads_) thread->state = State::ready;
    ++report_.barriers;
    return true;
  }

  /// Nobody can go on: says who waits for whom.
  [[noreturn]] void complain() const {
    const Thread* waiting = nullptr;
    for (const auto& thread : threads_) {
      if (thread->state != State::done && (!waiting || thread->state == State::at_warp)) waiting = thread.get();
    }
    for (size_t i = 0; i < threads_.size(); ++i) {
      const Thread& other = *threads_[i];
      const std::string place = text_of(waiting->meeting) + " at " + text_of(waiting->site);
      const std::string who = fmt::format("{}: thread {} of block ({}, {}, {})", kernel_, i, other.here.block.x,
                                          other.here.block.y, other.here.block.z);
      if (waiting->state == State::at_warp) {
        const size_t own = static_cast<size_t>(
            std::find_if(threads_.begin(), threads_.end(), [&](auto& t) { return t.get() == waiting; }) -
            threads_.begin());
        if (i / warp_size != own / warp_size || !(waiting->mask >> i % warp_size & 1)) continue;
      }
      if (other.state == State::done) throw Error(who + " returned before " + place);
      if (other.state != waiting->state || !same(other.site, waiting->site) || other.mask != waiting->mask) {
        throw Error(who + fmt::format(" waits for {} at {} (mask {:08x}), others for {} (mask {:08x})",
                                      text_of(other.meeting), text_of(other.site), other.mask, place, waiting->mask));
      }
    }
    throw Error(fmt::format("{}: {} at {} names lanes that the block does not have (mask {:08x})", kernel_,
                            text_of(waiting->meeting), text_of(waiting->site), waiting->mask));
  }

  void count_block() {
    for (size_t begin = 0; begin < threads_.size(); begin += warp_size) {
      std::vector<Touch>* lanes[warp_size];
      const int count = static_cast<int>(std::min<size_t>(warp_size, threads_.size() - begin));
      for (int i = 0; i < count; ++i) lanes[i] = &threads_[begin + static_cast<size_t>(i)]->touches;
      count_warp(lanes, count, report_);
    }
  }

  std::string kernel_;
  Dim grid_, block_;
  size_t dynamic_bytes_;
  const std::function<void()>& body_;
  std::mt19937 random_;
  std::vector<std::unique_ptr<Thread>> threads_, past_threads_;
  std::vector<SharedArray> shared_, past_shared_;
  Report report_;
  char start_token_ = 0, end_token_ = 0, fence_token_ = 0;

 public:
  static thread_local Launch* current;
  static thread_local Thread* running;
};

thread_local Launch* Launch::current = nullptr;
thread_local Thread* Launch::running = nullptr;

void Launch::enter(void* launch) {
  auto* self = static_cast<Launch*>(launch);
  Thread& thread = *running;
  happens_before_acquire(&self->start_token_);
  try {
    self->body_();
  } catch (...) {
    thread.error = std::current_exception();
  }
  happens_before_release(&self->end_token_);
  thread.state = State::done;
  Fiber::yield(true);
}

uint64_t meet(State state, Meeting meeting, uint32_t mask, uint64_t value, int by, const Site& where) {
  Launch& launch = *Launch::current;
  Thread& thread = *Launch::running;
  thread.mask = mask;
  thread.posted = value;
  thread.by = by;
  launch.wait(thread, state, meeting, where);
  return thread.received;
}

void run_at_once(void*, std::function<void()> work) { work(); }

}  // namespace

Submit submit = run_at_once;

Options& options() {
  static Options options;
  return options;
}

std::vector<Report>& reports() {
  static std::vector<Report> reports;
  return reports;
}

const Here& here() { return Launch::running->here; }

void touch(const void* address, size_t bytes, Access access, Site where) {
  Launch::current->touch(*Launch::running, address, bytes, access, where);
}

void sync_block(Site where) {
  void* token = Launch::current->block_token(*Launch::running);
  happens_before_release(token);
  meet(State::at_barrier, Meeting::barrier, 0, 0, 0, where);
  happens_before_acquire(token);
}

void sync_warp(uint32_t mask, Site where) {
  void* token = Launch::current->warp_token(*Launch::running);
  happens_before_release(token);
  meet(State::at_warp, Meeting::warp, mask, 0, 0, where);
  happens_before_acquire(token);
}

void fence() {
  void* token = Launch::current->fence_token();
  happens_before_release(token);
  happens_before_acquire(token);
}

uint64_t shuffle(Shuffle kind, uint32_t mask, uint64_t value, int by, Site where) {
  const Meeting meeting = kind == Shuffle::down           ? Meeting::down
                          : kind == Shuffle::exclusive_or ? Meeting::exclusive_or
                                                          : Meeting::index;
  return meet(State::at_warp, meeting, mask, value, by, where);
}

uint32_t ballot(uint32_t mask, bool predicate, Site where) {
  return static_cast<uint32_t>(meet(State::at_warp, Meeting::ballot, mask, predicate ? 1 : 0, 0, where));
}

void* shared_array(const void* tag, size_t bytes, const char* name) {
  return Launch::current->shared(tag, bytes, name);
}

void* dynamic_shared_array() { return Launch::current->dynamic_shared(); }

void run(std::string_view kernel, Dim grid, Dim block, size_t shared_bytes, void* stream,
         std::function<void()> thread) {
  submit(stream, [=, name = std::string(kernel)] {
    Launch launch(name, grid, block, shared_bytes, thread);
    Launch::current = &launch;
    struct Leave {
      ~Leave() { Launch::current = nullptr; }
    } leave;
    launch.run();
  });
}

}  // namespace simt
