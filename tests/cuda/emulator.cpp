// The emulator itself: what correct kernels compute in it, and that it sees the bugs it is there for. Each bug is a
// kernel with a flag; with the flag off no mode may complain.
#include <gtest/gtest.h>
#include <saccade/kernels/cuda/simt.h>
#include <support/simt/simt.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>
#include <numeric>
#include <ostream>
#include <utility>
#include <vector>

#if defined(__SANITIZE_THREAD__)
extern "C" const char* __tsan_default_options() { return "halt_on_error=1:exitcode=66"; }
#endif

namespace saccade::kernels::cuda {
namespace {

struct alignas(16) Four {
  float at[4];
};

/// Buffers as a device would hand them out; filled with NaN.
struct Memory {
  std::unique_ptr<float[]> data;
  size_t size;
  explicit Memory(size_t n) : data(new float[n]), size(n) { std::fill_n(data.get(), n, NAN); }
  float* get() { return data.get(); }
  float operator[](size_t i) const { return data[i]; }
};

// What a mode makes of a bug.
enum class Seen { not_at_all, wrong_numbers, error, by_sanitizer };

constexpr int threads = 64;

template <bool broken>
SACCADE_KERNEL(64)
missing_barrier(float* out) {
  SACCADE_SHARED(float, values, threads);
  const int t = thread_x();
  store(values + t, static_cast<float>(t));
  if constexpr (!broken) sync_block();
  store(out + t, load(values + (t + 33) % threads));
}

template <bool broken>
SACCADE_KERNEL(64)
missing_barrier_before_reuse(float* out) {
  SACCADE_SHARED(float, values, threads);
  const int t = thread_x();
  float sum = 0;
  for (int round = 0; round < 2; ++round) {
    store(values + t, static_cast<float>(t + round));
    sync_block();
    sum += load(values + t / 2);
    if constexpr (!broken) sync_block();
  }
  store(out + t, sum - 2.f * static_cast<float>(t / 2) - 1.f + static_cast<float>((t + 33) % threads));
}

template <bool broken>
SACCADE_KERNEL(64)
missing_warp_synchronisation(float* out) {
  SACCADE_SHARED(float, values, threads);
  const int t = thread_x(), warp = t / 32 * 32;
  store(values + t, static_cast<float>(t));
  if constexpr (broken) {
    shuffle_xor(1.f, 1);  // a shuffle makes the lanes meet, but is no fence
  } else {
    sync_warp();
  }
  const float other = load(values + warp + (t + 1) % 32);
  store(out + t, other - static_cast<float>(warp + (t + 1) % 32) + static_cast<float>((t + 33) % threads));
}

template <bool broken>
SACCADE_KERNEL(64)
barrier_in_a_branch(float* out) {
  SACCADE_SHARED(float, values, threads);
  const int t = thread_x();
  store(values + t, static_cast<float>(t));
  if (broken && t < 32) {
    sync_block();
  } else {
    sync_block();
  }
  if constexpr (!broken) sync_block();
  store(out + t, load(values + (t + 33) % threads));
}
template <>
void barrier_in_a_branch<false>(float* out) {
  missing_barrier<false>(out);
}

template <bool broken>
SACCADE_KERNEL(64)
return_before_a_barrier(float* out) {
  SACCADE_SHARED(float, values, threads);
  const int t = thread_x();
  store(values + t, static_cast<float>(t));
  if (broken && t > 60) return;
  sync_block();
  store(out + t, load(values + (t + 33) % threads));
}

template <bool broken>
SACCADE_KERNEL(64)
half_a_shuffle(float* out) {
  const int t = thread_x();
  float value = static_cast<float>(t);
  if (!broken || t % 32 < 16) value = shuffle_xor(value, 1);
  store(out + t, value - static_cast<float>(t ^ 1) + static_cast<float>((t + 33) % threads));
}

template <bool broken>
SACCADE_KERNEL(64)
shared_array_too_small(float* out) {
  SACCADE_SHARED(float, values, broken ? threads - 1 : threads);
  const int t = thread_x();
  store(values + t, static_cast<float>(t));
  sync_block();
  store(out + t, load(values + (t + 33) % threads));
}

template <bool broken>
SACCADE_KERNEL(64)
shared_memory_never_written(float* out) {
  SACCADE_SHARED(float, values, threads);
  const int t = thread_x();
  if (!broken || t != 5) store(values + t, static_cast<float>(t));
  sync_block();
  store(out + t, load(values + (t + 33) % threads));
}

template <bool broken>
SACCADE_KERNEL(64)
misaligned_vector(float* out) {
  const int t = thread_x();
  Four four{};
  for (int i = 0; i < 4; ++i) four.at[i] = static_cast<float>((4 * t + i + 33) % threads);
  if (t < threads / 4 - 1 || !broken) {
    if (t < threads / 4) store(reinterpret_cast<Four*>(out) + t, four);
  } else {
    store(reinterpret_cast<Four*>(out + threads - 3), four);
  }
}

template <bool broken>
SACCADE_KERNEL(64)
load_out_of_bounds(const float* in, float* out) {
  const int t = thread_x();
  const float value = load(in + (broken ? t + 1 : t));
  store(out + t, value * 0.f + static_cast<float>((t + 33) % threads));
}

template <bool broken>
SACCADE_KERNEL(64)
store_out_of_bounds(float* out) {
  const int t = thread_x();
  store(out + t, static_cast<float>((t + 33) % threads));
  if (broken && t == 3) store(out - 1, 0.f);
}

// Two blocks of 64, an array of 64.
template <bool broken>
SACCADE_KERNEL(64)
sum_without_atomics_across_blocks(float* sums, float* out) {
  const int t = thread_x();
  if constexpr (broken) {
    store(sums, load(sums) + 1.f);
  } else {
    store(sums + block_x() * threads + t, 1.f);
  }
  if (block_x() == 1) store(out + t, static_cast<float>((t + 33) % threads));
}

template <bool broken>
SACCADE_KERNEL(64)
tiles_that_overlap(float* out) {
  const int t = thread_x(), first = static_cast<int>(block_x()) * 32;
  if (t < (broken ? 33 : 32) && first + t < threads) {
    store(out + first + t, static_cast<float>((first + t + 33) % threads));
  }
}

template <bool broken>
SACCADE_KERNEL(64)
block_that_waits_for_an_earlier_one(float* first, float* out) {
  const int t = thread_x();
  if (broken && block_x() == 0) store(first + t, static_cast<float>((t + 33) % threads));
  if (block_x() == 1) store(out + t, broken ? load(first + t) : static_cast<float>((t + 33) % threads));
}

template <bool broken>
SACCADE_KERNEL(64)
too_much_shared_memory(float* out) {
  SACCADE_SHARED(float, values, broken ? 12289 : 12288);
  const int t = thread_x();
  store(values + t, static_cast<float>(t));
  sync_block();
  store(out + t, load(values + (t + 33) % threads));
}

/// out[t] is (t + 33) % 64 if all is well.
Seen judge(const Memory& out) {
  for (int t = 0; t < threads; ++t) {
    if (!(out[static_cast<size_t>(t)] == static_cast<float>((t + 33) % threads))) return Seen::wrong_numbers;
  }
  return Seen::not_at_all;
}

template <auto kernel, class... Arguments>
Seen run(unsigned blocks, unsigned block_threads, Memory& out, Arguments... arguments) {
  try {
    launch<kernel>(nullptr, {blocks}, {block_threads}, 0, arguments...);
  } catch (const simt::Error&) {
    return Seen::error;
  }
  return judge(out);
}

template <auto kernel>
Seen simple(unsigned blocks = 1) {
  Memory out(threads);
  return run<kernel>(blocks, threads, out, out.get());
}

std::ostream& operator<<(std::ostream& out, Seen seen) {
  constexpr const char* names[] = {"not at all", "wrong numbers", "an error", "by the sanitizer"};
  return out << names[static_cast<int>(seen)];
}

struct Bug {
  const char* name;
  std::function<Seen()> broken, clean;
  Seen plain, address, thread;  ///< what each mode makes of it
};

std::ostream& operator<<(std::ostream& out, const Bug& bug) { return out << bug.name; }

#define SACCADE_BUG(name, ...) \
#name, [] { return simple<name<true>>(__VA_ARGS__); }, [] { return simple<name<false>>(__VA_ARGS__); }

template <bool broken>
Seen reading() {
  Memory in(threads), out(threads);
  std::fill_n(in.get(), threads, 0.f);
  return run<load_out_of_bounds<broken>>(1, threads, out, in.get(), out.get());
}
template <bool broken>
Seen summing() {
  Memory sums(2 * threads), out(threads);
  std::fill_n(sums.get(), 2 * threads, 0.f);
  return run<sum_without_atomics_across_blocks<broken>>(2, threads, out, sums.get(), out.get());
}
template <bool broken>
Seen waiting() {
  Memory first(threads), out(threads);
  simt::options().blocks = simt::Order::reverse;
  const Seen seen = run<block_that_waits_for_an_earlier_one<broken>>(2, threads, out, first.get(), out.get());
  simt::options().blocks = simt::Order::forward;
  return seen;
}
/// A full mask in a warp that is not full.
template <bool broken>
Seen part_of_a_warp() {
  Memory out(threads);
  for (size_t i = 48; i < threads; ++i) out.get()[i] = static_cast<float>((i + 33) % threads);
  return run<half_a_shuffle<false>>(1, broken ? 48 : 64, out, out.get());
}

using enum Seen;
const Bug bugs[] = {
    {SACCADE_BUG(missing_barrier), wrong_numbers, wrong_numbers, by_sanitizer},
    {SACCADE_BUG(missing_barrier_before_reuse), wrong_numbers, wrong_numbers, by_sanitizer},
    {SACCADE_BUG(missing_warp_synchronisation), not_at_all, not_at_all, by_sanitizer},
    {SACCADE_BUG(barrier_in_a_branch), error, error, error},
    {SACCADE_BUG(return_before_a_barrier), error, error, error},
    {SACCADE_BUG(half_a_shuffle), error, error, error},
    {"full_mask_in_half_a_warp", part_of_a_warp<true>, part_of_a_warp<false>, error, error, error},
    {SACCADE_BUG(shared_array_too_small), error, by_sanitizer, error},
    {SACCADE_BUG(shared_memory_never_written), wrong_numbers, wrong_numbers, wrong_numbers},
    {SACCADE_BUG(too_much_shared_memory), error, error, error},
    {SACCADE_BUG(misaligned_vector), error, error, error},
    {"load_out_of_bounds", reading<true>, reading<false>, not_at_all, by_sanitizer, not_at_all},
    {SACCADE_BUG(store_out_of_bounds), not_at_all, by_sanitizer, not_at_all},
    {"sum_without_atomics_across_blocks", summing<true>, summing<false>, not_at_all, not_at_all, by_sanitizer},
    {SACCADE_BUG(tiles_that_overlap, 2), not_at_all, not_at_all, by_sanitizer},
    {"block_that_waits_for_an_earlier_one", waiting<true>, waiting<false>, wrong_numbers, wrong_numbers, by_sanitizer},
};

class SeededBugs : public testing::TestWithParam<Bug> {};

TEST_P(SeededBugs, AreSeenAndTheCleanKernelIsNot) {
  const Bug& bug = GetParam();
#if defined(__SANITIZE_ADDRESS__)
  const Seen expected = bug.address;
#elif defined(__SANITIZE_THREAD__)
  const Seen expected = bug.thread;
#else
  const Seen expected = bug.plain;
#endif
  // Not shown where nobody is there to see: somebody else's memory would be written over.
  if (expected == not_at_all) GTEST_SKIP() << "this mode does not see it";
  EXPECT_EQ(bug.clean(), not_at_all);
  if (expected == by_sanitizer) {
    EXPECT_DEATH(bug.broken(), "AddressSanitizer|data race");
  } else {
    EXPECT_EQ(bug.broken(), expected);
  }
}

TEST(SeededBugs, AreEachSeenByAtLeastOneMode) {
  for (const Bug& bug : bugs) {
    EXPECT_TRUE(bug.plain != not_at_all || bug.address != not_at_all || bug.thread != not_at_all) << bug.name;
  }
}

INSTANTIATE_TEST_SUITE_P(Matrix, SeededBugs, testing::ValuesIn(bugs),
                         [](const auto& info) { return std::string(info.param.name); });

// ---- counting

SACCADE_KERNEL(64) strided(const float* in, int stride, float* out) {
  const int t = thread_x();
  store(out + t, load(in + t * stride));
}

SACCADE_KERNEL(64) shared_stride(int stride, float* out) {
  SACCADE_SHARED(float, values, 32 * 33);
  const int t = thread_x();
  for (int i = t; i < 32 * 33; i += 32) store(values + i, static_cast<float>(i));
  sync_block();
  store(out + t, load(values + t * stride));
}

SACCADE_KERNEL(64) shared_vectors(float* out) {
  SACCADE_SHARED(Four, values, 64);
  const int t = thread_x();
  store(values + t, Four{});
  sync_block();
  store(out + t, load(values + t).at[0]);
}

SACCADE_KERNEL(64) half_the_lanes(float* out) {
  const int t = thread_x();
  if (t % 2 == 0) store(out + t, 1.f);
}

SACCADE_KERNEL(1024) sums(const float* in, float* out) {
  SACCADE_SHARED(float, parts, 32);
  const int t = thread_x();
  float sum = load(in + block_x() * 1024 + t);
  for (int by = 16; by > 0; by /= 2) sum += shuffle_xor(sum, by);
  if (t % 32 == 0) store(parts + t / 32, sum);
  sync_block();
  if (t < 32) {
    sum = load(parts + t);
    for (int by = 16; by > 0; by /= 2) sum += shuffle_xor(sum, by);
    if (t == 0) store(out + block_x(), sum);
  }
}

struct alignas(128) Line {
  float at[32];
};

class Counting : public testing::Test {
 protected:
  Counting() : lines_(64) {
    simt::options().measure = true;
    simt::reports().clear();
  }
  ~Counting() override { simt::options().measure = false; }
  float* memory() { return lines_[0].at; }
  float* other() { return lines_[40].at; }
  const simt::Report& report() { return simt::reports().at(0); }
  std::vector<Line> lines_;
};

TEST_F(Counting, SectorsOfContiguousShiftedAndStridedLoads) {
  for (const auto& [shift, stride, sectors] : {std::tuple{0, 1, 8}, {1, 1, 10}, {8, 1, 8}, {0, 2, 16}, {0, 8, 64}}) {
    simt::reports().clear();
    launch<strided>(nullptr, {1}, {64}, 0, memory() + shift, stride, other());
    EXPECT_EQ(report().kernel, "strided");
    EXPECT_EQ(report().loads.accesses, 2u);
    EXPECT_EQ(report().loads.bytes, 256u);
    EXPECT_EQ(report().loads.sectors, static_cast<uint64_t>(sectors)) << shift << " " << stride;
    EXPECT_EQ(report().stores.sectors, 8u);
  }
}

TEST_F(Counting, BankConflicts) {
  for (const auto& [stride, worst] : {std::pair{1, 1}, {2, 2}, {8, 8}, {32, 32}, {33, 1}, {0, 1}}) {
    simt::reports().clear();
    launch<shared_stride>(nullptr, {1}, {32}, 0, stride, other());
    EXPECT_EQ(report().worst_conflict, worst) << stride;
    EXPECT_EQ(report().barriers, 1u);
  }
  simt::reports().clear();
  launch<shared_vectors>(nullptr, {1}, {64}, 0, other());
  EXPECT_EQ(report().worst_conflict, 1);
  EXPECT_EQ(report().shared_wavefronts, 16u);  // 2 warps, 2 accesses, a pass for each quarter
}

TEST_F(Counting, LanesThatTakeNoPart) {
  launch<half_the_lanes>(nullptr, {1}, {64}, 0, other());
  EXPECT_EQ(report().stores.partial, 2u);
  EXPECT_EQ(report().stores.sectors, 8u);
  EXPECT_EQ(report().stores.bytes, 128u);
  EXPECT_NE(simt::describe(simt::reports()).find("half_the_lanes"), std::string::npos);
}

TEST(Emulator, SumsOfBlocksInAnyOrderOfThreadsAndBlocks) {
  std::vector<float> in(3 * 1024), out(3);
  std::iota(in.begin(), in.end(), 0.f);
  for (uint32_t seed = 1; seed < 4; ++seed) {
    simt::options() = {.seed = seed, .blocks = simt::Order::shuffled};
    launch<sums>(nullptr, {3}, {1024}, 0, in.data(), out.data());
    for (int block = 0; block < 3; ++block) {
      EXPECT_EQ(out[static_cast<size_t>(block)],
                std::accumulate(in.begin() + block * 1024, in.begin() + (block + 1) * 1024, 0.f));
    }
  }
  simt::options() = {};
}

TEST(Emulator, AStandInForStreamsMayKeepTheWorkForLater) {
  static std::vector<std::function<void()>> queue;
  queue.clear();
  const simt::Submit before = std::exchange(
      simt::submit, +[](void* where, std::function<void()> work) {
        EXPECT_EQ(where, &queue);
        queue.push_back(std::move(work));
      });
  Memory out(threads);
  launch<missing_barrier<false>>(&queue, {1}, {threads}, 0, out.get());
  simt::submit = before;
  EXPECT_EQ(judge(out), wrong_numbers);
  ASSERT_EQ(queue.size(), 1u);
  queue.front()();
  EXPECT_EQ(judge(out), not_at_all);
}

TEST(Emulator, SaysWhoDoesNotComeToTheBarrier) {
  Memory out(threads);
  try {
    launch<return_before_a_barrier<true>>(nullptr, {1}, {threads}, 0, out.get());
    FAIL();
  } catch (const simt::Error& error) {
    const std::string text = error.what();
    EXPECT_NE(text.find("return_before_a_barrier<true>: thread 61 of block (0, 0, 0) returned before the barrier at "
                        "emulator.cpp:"),
              std::string::npos)
        << text;
  }
}

}  // namespace
}  // namespace saccade::kernels::cuda
