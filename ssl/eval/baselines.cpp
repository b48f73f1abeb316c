#include <fmt/format.h>
#include <fmt/ranges.h>
#include <saccade/ssl/eval/baselines.h>

namespace saccade::ssl {

std::string text_of(const Baselines& baselines) {
  std::vector<std::string> parts;
  for (const auto& [name, accuracy] : baselines) parts.push_back(fmt::format("{} {:.1f} %", name, 100 * accuracy));
  return fmt::format("{}", fmt::join(parts, ", "));
}

std::string below_baselines(std::string_view measure, double accuracy, const Baselines& baselines) {
  Baselines above;
  for (const auto& baseline : baselines)
    if (accuracy < baseline.second) above.push_back(baseline);
  if (above.empty()) return "";
  return fmt::format(
      "{}: the features ({:.1f} %) are worth less for these labels than what nobody trained ({}). A smaller network, "
      "longer "
      "training, crops of larger areas or another learning rate may help: docs/training.md, \"When it goes wrong\".",
      measure, 100 * accuracy, text_of(above));
}

}  // namespace saccade::ssl
