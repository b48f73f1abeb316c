#include <fmt/format.h>
#include <fmt/ranges.h>
#include <saccade/core/io/checkpoint.h>
#include <saccade/core/io/weight_file.h>
#include <saccade/kernels/error.h>
#include <saccade/ssl/weights.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>

namespace saccade::ssl {
namespace {

namespace fs = std::filesystem;

/// The numbers of a list with commas; none if something in it is none.
template <class T>
std::vector<T> numbers(std::string_view text) {
  std::vector<T> values;
  for (bool more = true; more;) {
    const std::string_view one = text.substr(0, text.find(','));
    more = one.size() < text.size();
    text.remove_prefix(one.size() + (more ? 1 : 0));
    T value{};
    const auto [end, error] = std::from_chars(one.data(), one.data() + one.size(), value);
    if (error != std::errc() || end != one.data() + one.size() || !std::isfinite(static_cast<double>(value))) return {};
    values.push_back(value);
  }
  return values;
}

Weights of_checkpoint(io::Checkpoint checkpoint) {
  Weights weights{.file = checkpoint.path,
                  .tensors = std::move(checkpoint.tensors),
                  .layout = nn::Layout::own,
                  .metadata = {},
                  .words = {}};
  const auto state = nlohmann::json::parse(checkpoint.state);
  if (const auto carried = state.find("carried"); carried != state.end())
    weights.metadata = carried->get<io::Metadata>();
  return weights;
}

nn::KeyMatch match_trunk(const nn::Trunk& trunk, const Weights& weights, bool allow_partial) {
  nn::KeyMatch match = nn::match_keys(trunk, weights.tensors, weights.layout);
  if (match.matched.empty())
    throw Error(fmt::format("{} does not hold this network: {}", weights.file.string(), match.describe()));
  if (!match.whole() && !allow_partial)
    throw Error(fmt::format("{} does not fit this network: {} (--allow-partial takes it all the same)",
                            weights.file.string(), match.describe()));
  if (const std::string wrong = match.impossible_value(); !wrong.empty())
    throw Error(fmt::format("{}: {}", weights.file.string(), wrong));
  return match;
}

}  // namespace

io::Metadata TrunkInfo::metadata() const {
  return {{"trunk", trunk},
          {"size", fmt::format("{}", size)},
          {"mean", fmt::format("{}", fmt::join(mean, ","))},
          {"std", fmt::format("{}", fmt::join(std, ","))},
          {"view", view},
          {"seed", fmt::format("{}", seed)}};
}

void TrunkInfo::take(const io::Metadata& said, const fs::path& file) {
  const auto check = [&](bool right, const char* key, const char* expected) {
    if (!right)
      throw Error(fmt::format("{} says that its network has {} = \"{}\", expected {}", file.string(), key, said.at(key),
                              expected));
  };
  if (said.contains("trunk")) trunk = said.at("trunk");
  if (said.contains("size")) {
    const auto values = numbers<int>(said.at("size"));
    check(values.size() == 1 && values[0] > 0, "size", "a number of pixels");
    size = values[0];
  }
  for (const auto& [key, values] : {std::pair{"mean", &mean}, std::pair{"std", &std}}) {
    if (!said.contains(key)) continue;
    *values = numbers<float>(said.at(key));
    check(values->size() == 3, key, "three numbers");
  }
  check(std::ranges::all_of(std, [](float v) { return v > 0; }), "std", "three numbers above 0");
  if (said.contains("seed")) {
    const auto values = numbers<uint64_t>(said.at("seed"));
    check(values.size() == 1, "seed", "a whole number");
    seed = values[0];
  }
  if (said.contains("view")) {
    view = said.at("view");
    check(view == "middle" || view == "whole", "view", "middle or whole");
  }
}

Weights read_weights(const fs::path& path) {
  std::error_code none;
  if (!fs::exists(path, none)) throw Error(fmt::format("{}: there is no such file or folder", path.string()));
  fs::path file = path;
  if (fs::is_directory(path)) {
    if (fs::exists(path / "trunk.safetensors", none)) {
      file = path / "trunk.safetensors";
    } else if (fs::exists(path / "checkpoints", none) || fs::exists(path / "config.toml", none)) {
      std::vector<std::string> problems;
      auto newest = io::latest_checkpoint(path / "checkpoints", problems);
      if (!newest)
        throw Error(fmt::format("{}: neither a trained network nor a checkpoint is in this folder", path.string()));
      Weights weights = of_checkpoint(*std::move(newest));
      weights.words = std::move(problems);
      return weights;
    }
  }
  if (!fs::is_directory(file) && io::has_manifest(file)) return of_checkpoint(io::load_checkpoint(file));
  io::WeightFile read = io::load_weights(file);
  // Only what save_trunk() wrote is taken at its word: what others call "size" is something else.
  if (!std::ranges::all_of(std::array{"trunk", "size", "mean", "std"},
                           [&](const char* key) { return read.metadata.contains(key); }))
    read.metadata.clear();
  return {.file = file,
          .tensors = std::move(read.tensors),
          .layout = nn::Layout::pytorch,
          .metadata = std::move(read.metadata),
          .words = std::move(read.words)};
}

std::string trunk_of(const Weights& weights) {
  if (const auto said = weights.metadata.find("trunk"); said != weights.metadata.end()) return said->second;
  const std::vector<std::string> found =
      weights.layout == nn::Layout::own ? std::vector<std::string>{} : nn::trunks_of(weights.tensors);
  if (found.size() == 1) return found.front();
  throw Error(fmt::format(
      "{} does not say which network it is, and {}: give --trunk", weights.file.string(),
      found.empty() ? "it is none that has a name" : fmt::format("it may be any of {}", fmt::join(found, ", "))));
}

nn::KeyMatch load_trunk(nn::Trunk& trunk, const Weights& weights, bool allow_partial) {
  nn::KeyMatch match = match_trunk(trunk, weights, allow_partial);
  match.load();
  return match;
}

InitReport init_from(Objective& objective, const Weights& weights, bool allow_partial) {
  InitReport report{.trunk = match_trunk(objective.trunk(), weights, allow_partial), .parts = {}, .lines = {}};
  const std::vector<StartingPart> parts = objective.parts_from(weights, report.trunk.prefix);
  std::vector<NamedTensor> taken;
  for (const StartingPart& part : parts) taken.insert(taken.end(), part.given.begin(), part.given.end());
  if (const std::string wrong = nn::impossible_value(taken); !wrong.empty())
    throw Error(fmt::format("{}: {}", weights.file.string(), wrong));

  report.trunk.load();
  report.lines.push_back(fmt::format("Trunk from {}: {}.", weights.file.string(), report.trunk.describe()));
  for (const StartingPart& part : parts) {
    report.lines.push_back(part.line);
    if (part.given.empty()) continue;
    part.take();
    report.parts.push_back(part.name);
  }
  report.lines.emplace_back("Optimizer, schedule and health monitor begin anew.");
  return report;
}

void save_trunk(const fs::path& path, const nn::Trunk& trunk, nn::Names names, const TrunkInfo& info) {
  const std::vector<NamedTensor> tensors = nn::state_dict(trunk, names);
  if (const std::string wrong = nn::impossible_value(tensors); !wrong.empty())
    throw Error(fmt::format("{} is not written: {}", path.string(), wrong));
  io::Metadata metadata = info.metadata();
  metadata["format"] = "pt";
  io::save_safetensors(path, tensors, metadata);
}

}  // namespace saccade::ssl
