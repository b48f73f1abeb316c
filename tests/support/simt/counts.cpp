#include "counts.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

namespace simt {
namespace {

constexpr int most_lanes = 32;

/// The lanes' part in one instruction.
struct Instruction {
  const Touch* touches[most_lanes];
  int count = 0;
};

/// Passes that shared memory needs: 32 banks of 4 bytes, each of which gives one word a pass. Lanes that read 8 or 16
/// bytes are served in halves and quarters of the warp.
int wavefronts(const Touch* const* touches, int count, int& ideal) {
  const int words_each = std::max(1, touches[0]->bytes / 4), lanes_each = most_lanes / words_each;
  int total = 0;
  ideal = 0;
  for (int first = 0; first < count; first += lanes_each) {
    std::vector<uintptr_t> words;
    for (int i = first; i < std::min(count, first + lanes_each); ++i) {
      for (int w = 0; w < words_each; ++w) words.push_back(touches[i]->address / 4 + w);
    }
    std::sort(words.begin(), words.end());
    words.erase(std::unique(words.begin(), words.end()), words.end());
    int banks[32] = {};
    for (const uintptr_t word : words) ++banks[word % 32];
    total += *std::max_element(std::begin(banks), std::end(banks));
    ideal += 1;
  }
  return total;
}

void count_shared(const Instruction& instruction, Report& report) {
  int ideal = 0;
  const int passes = wavefronts(instruction.touches, instruction.count, ideal);
  ++report.shared_accesses;
  report.shared_wavefronts += static_cast<uint64_t>(passes);
  report.worst_conflict = std::max(report.worst_conflict, (passes + ideal - 1) / ideal);
}

void count_global(const Instruction& instruction, int lanes, Traffic& traffic) {
  // Byte ranges in order; overlaps are counted once.
  std::pair<uintptr_t, uintptr_t> ranges[most_lanes];
  for (int i = 0; i < instruction.count; ++i) {
    const Touch& touch = *instruction.touches[i];
    ranges[i] = {touch.address, touch.address + touch.bytes};
  }
  std::sort(ranges, ranges + instruction.count);
  uintptr_t next_byte = 0, next_sector = 0;
  for (int i = 0; i < instruction.count; ++i) {
    const auto [begin, end] = ranges[i];
    if (end > next_byte) traffic.bytes += end - std::max(begin, next_byte);
    next_byte = std::max(next_byte, end);
    const uintptr_t first = std::max(begin / 32, next_sector), last = (end - 1) / 32;
    if (last >= first) traffic.sectors += last - first + 1;
    next_sector = std::max(next_sector, last + 1);
  }
  ++traffic.accesses;
  if (instruction.count < lanes) ++traffic.partial;
}

void count_one(const Instruction& instruction, int lanes, Report& report) {
  const Touch& first = *instruction.touches[0];
  if (first.access == Access::atomic) report.atomics += static_cast<uint64_t>(instruction.count);
  if (first.shared) return count_shared(instruction, report);
  count_global(instruction, lanes, first.access == Access::load ? report.loads : report.stores);
}

bool alike(std::vector<Touch>* const* lanes, int count) {
  for (int i = 1; i < count; ++i) {
    if (lanes[i]->size() != lanes[0]->size()) return false;
    for (size_t k = 0; k < lanes[0]->size(); ++k) {
      const Touch &a = (*lanes[0])[k], &b = (*lanes[i])[k];
      if (a.site != b.site || a.shared != b.shared) return false;
    }
  }
  return true;
}

}  // namespace

void count_warp(std::vector<Touch>* const* lanes, int count, Report& report) {
  if (alike(lanes, count)) {
    for (size_t k = 0; k < lanes[0]->size(); ++k) {
      Instruction instruction;
      for (int i = 0; i < count; ++i) instruction.touches[instruction.count++] = &(*lanes[i])[k];
      count_one(instruction, count, report);
    }
    return;
  }
  std::map<std::pair<uint64_t, uint64_t>, Instruction> instructions;  // by site and how often the lane was there before
  for (int i = 0; i < count; ++i) {
    std::map<uint64_t, uint64_t> visits;
    for (const Touch& touch : *lanes[i]) {
      const uint64_t site = touch.site * 2 + (touch.shared ? 1 : 0);
      Instruction& instruction = instructions[{site, visits[site]++}];
      instruction.touches[instruction.count++] = &touch;
    }
  }
  for (const auto& [key, instruction] : instructions) count_one(instruction, count, report);
}

std::string describe(std::span<const Report> reports) {
  std::string text =
      fmt::format("{:<44} {:>12} {:>9} {:>10} {:>6} {:>10} {:>6} {:>8} {:>8} {:>8} {:>8}\n", "kernel", "grid", "block",
                  "load KiB", "eff", "store KiB", "eff", "conflict", "barriers", "shuffles", "partial");
  const auto efficiency = [](const Traffic& t) {
    return t.sectors == 0 ? 1. : static_cast<double>(t.bytes) / (32. * static_cast<double>(t.sectors));
  };
  for (const Report& r : reports) {
    text += fmt::format("{:<44} {:>12} {:>9} {:>10.1f} {:>6.2f} {:>10.1f} {:>6.2f} {:>8} {:>8} {:>8} {:>8}\n", r.kernel,
                        fmt::format("{}x{}x{}", r.grid.x, r.grid.y, r.grid.z),
                        fmt::format("{}x{}", r.block.x, r.block.y), static_cast<double>(r.loads.sectors) / 32.,
                        efficiency(r.loads), static_cast<double>(r.stores.sectors) / 32., efficiency(r.stores),
                        r.worst_conflict, r.barriers, r.shuffles, r.loads.partial + r.stores.partial);
  }
  return text;
}

}  // namespace simt
