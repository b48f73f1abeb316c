// The names of tags and phases, and what people read about memory.
#include <fmt/format.h>
#include <saccade/core/allocator.h>
#include <saccade/core/bytes.h>

namespace saccade {

std::string_view name_of(Tag tag) {
  constexpr std::array<std::string_view, kTags> names = {"parameters",  "gradients", "optimizer",
                                                         "activations", "workspace", "batch"};
  return names[static_cast<size_t>(tag)];
}

std::string_view name_of(Phase phase) {
  constexpr std::array<std::string_view, kPhases> names = {"setup",     "forward",   "backward",
                                                           "recompute", "optimizer", "data"};
  return names[static_cast<size_t>(phase)];
}

std::string describe(const MemoryStats& stats) {
  std::string text = fmt::format("{} live, {} at the peak", bytes_text(stats.total.live), bytes_text(stats.total.peak));
  for (size_t i = 0; i < kTags; ++i)
    if (stats.by_tag[i].peak > 0)
      text += fmt::format("; {} {} (peak {})", name_of(static_cast<Tag>(i)), bytes_text(stats.by_tag[i].live),
                          bytes_text(stats.by_tag[i].peak));
  return text;
}

OutOfMemory::OutOfMemory(const std::string& sentence, MemoryStats stats, std::vector<LiveBlock> largest)
    : Error(sentence), stats_(stats), largest_(std::move(largest)) {}

std::string OutOfMemory::report() const {
  std::string text = fmt::format("  {:<12} {:>14} {:>14}\n", "in use", "now", "at its peak");
  const auto line = [&](std::string_view name, const MemoryStats::Counter& counter) {
    if (counter.peak > 0)
      text += fmt::format("  {:<12} {:>14} {:>14}\n", name, bytes_text(counter.live), bytes_text(counter.peak));
  };
  for (size_t i = 0; i < kTags; ++i) line(name_of(static_cast<Tag>(i)), stats_.by_tag[i]);
  line("all", stats_.total);
  text += fmt::format("  the arena has {}, of which {} are free, {} in one piece\n", bytes_text(stats_.reserved),
                      bytes_text(stats_.cached()), bytes_text(stats_.largest_free));
  if (!largest_.empty()) text += "the largest in use:\n";
  for (const LiveBlock& b : largest_)
    text += fmt::format("  {:>12}  {:<11}  {:<9}  {}{}{}\n", bytes_text(static_cast<int64_t>(b.bytes)), name_of(b.tag),
                        name_of(b.phase), b.shape.empty() ? "scratch" : b.shape, b.layer.empty() ? "" : "  ", b.layer);
  if (!advice_.empty()) text += advice_ + "\n";
  return text;
}

}  // namespace saccade
