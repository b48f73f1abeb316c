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

/// A tensor whose name is one of these, or ends in it behind a dot; of several the one whose name has most of its
/// beginning in common with `near`: a teacher's head with a teacher's trunk.
const NamedTensor* find_near(const std::vector<NamedTensor>& tensors, std::initializer_list<std::string_view> endings,
                             std::string_view near) {
  const NamedTensor* best = nullptr;
  std::ptrdiff_t most = -1;
  for (const NamedTensor& t : tensors)
    for (const std::string_view ending : endings) {
      if (t.name != ending && !t.name.ends_with(fmt::format(".{}", ending))) continue;
      const std::ptrdiff_t common = std::ranges::mismatch(t.name, near).in1 - t.name.begin();
      if (common > most) {
        best = &t;
        most = common;
      }
    }
  return best;
}

const nn::Module& child_of(const nn::Module& model, std::string_view name) {
  return *std::ranges::find(model.children(), name, [](const auto& child) -> std::string_view {
            return child.first;
          })->second;
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

/// What of the parts behind the trunk can be taken. A reason says why a part cannot.
struct Rest {
  nn::KeyMatch head;
  std::string no_head;
  std::vector<std::pair<Tensor, NamedTensor>> prototypes, queues;  ///< to, from
  std::string no_prototypes, no_queues;
};

std::string unfit(const NamedTensor& given, const Tensor& own) {
  const DType type = given.tensor.dtype();
  if (given.tensor.shape() == own.shape() && (type == DType::f32 || type == DType::f16 || type == DType::bf16))
    return "";
  return fmt::format("{} is {} {} in the file, {} here", given.name, name_of(given.tensor.dtype()),
                     to_string(given.tensor.shape()), to_string(own.shape()));
}

Rest find_rest(const SwAV& model, const Weights& weights, const std::string& trunk_prefix) {
  Rest rest;
  const NamedTensor* first = find_near(weights.tensors, {"projection_head.0.weight", "head.0.weight"}, trunk_prefix);
  if (first == nullptr) {
    rest.no_head = "the file has none";
  } else {
    const std::string prefix = first->name.substr(0, first->name.size() - std::string_view("0.weight").size());
    rest.head =
        nn::match_keys(child_of(model, "head"), weights.tensors, nn::Names::torchvision, prefix, weights.layout);
    if (!rest.head.whole()) rest.no_head = "that of the file is another: " + rest.head.describe();
  }
  const NamedTensor* prototypes = find_near(weights.tensors, {"prototypes.weight", "prototypes0.weight"}, trunk_prefix);
  if (prototypes == nullptr)
    rest.no_prototypes = "the file has none";
  else if (!rest.no_head.empty())
    rest.no_prototypes = "those of the file belong to its head";
  else
    rest.no_prototypes = unfit(*prototypes, model.prototypes());
  if (rest.no_prototypes.empty()) rest.prototypes.emplace_back(model.prototypes(), *prototypes);

  for (const NamedTensor& own : model.named_buffers()) {
    if (!own.name.starts_with("queue")) continue;
    const NamedTensor* queue = find_near(weights.tensors, {own.name}, trunk_prefix);
    if (queue == nullptr)
      rest.no_queues = "the file has none";
    else if (!rest.no_head.empty())
      rest.no_queues = "that of the file belongs to its head";
    else if (rest.no_queues.empty())
      rest.no_queues = unfit(*queue, own.tensor);
    if (queue != nullptr) rest.queues.emplace_back(own.tensor, *queue);
  }
  if (!rest.no_queues.empty()) rest.queues.clear();
  return rest;
}

}  // namespace

io::Metadata TrunkInfo::metadata() const {
  return {{"trunk", trunk},
          {"size", fmt::format("{}", size)},
          {"mean", fmt::format("{}", fmt::join(mean, ","))},
          {"std", fmt::format("{}", fmt::join(std, ","))},
          {"view", view}};
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

InitReport init_from(SwAV& model, const Weights& weights, bool allow_partial) {
  InitReport report{.trunk = match_trunk(*model.trunk(), weights, allow_partial), .lines = {}};
  Rest rest = find_rest(model, weights, report.trunk.prefix);
  std::vector<NamedTensor> taken;
  if (rest.no_head.empty())
    for (const auto& [ours, theirs] : rest.head.pairs) taken.push_back(theirs);
  for (const auto* pairs : {&rest.prototypes, &rest.queues})
    for (const auto& [to, from] : *pairs) taken.push_back(from);
  if (const std::string wrong = nn::impossible_value(taken); !wrong.empty())
    throw Error(fmt::format("{}: {}", weights.file.string(), wrong));

  report.trunk.load();
  report.lines.push_back(fmt::format("Trunk from {}: {}.", weights.file.string(), report.trunk.describe()));
  report.head = rest.no_head.empty();
  if (report.head) rest.head.load();
  report.lines.push_back(report.head ? fmt::format("Projection head from it: {}.", rest.head.describe_matched())
                                     : fmt::format("The projection head begins anew: {}.", rest.no_head));
  report.prototypes = !rest.prototypes.empty();
  for (const auto* pairs : {&rest.prototypes, &rest.queues})
    for (const auto& [to, from] : *pairs) to.copy_from(from.tensor.to(DType::f32));
  report.lines.push_back(report.prototypes ? fmt::format("{} prototypes from it.", model.prototypes().dim(0))
                                           : fmt::format("The prototypes begin anew: {}.", rest.no_prototypes));
  report.queues = !rest.queues.empty();
  if (model.options().queue_length > 0)
    report.lines.push_back(report.queues ? "The queue from it."
                                         : fmt::format("The queue begins anew: {}.", rest.no_queues));
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
