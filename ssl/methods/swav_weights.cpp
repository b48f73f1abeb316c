// What of a SwAV can start from weights, whoever wrote them.
#include <fmt/format.h>
#include <saccade/nn/key_match.h>
#include <saccade/ssl/methods/swav.h>
#include <saccade/ssl/weights.h>

#include <algorithm>
#include <initializer_list>
#include <string_view>
#include <utility>

namespace saccade::ssl {
namespace {

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

/// What can be taken. A reason says why a part cannot.
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

std::vector<StartingPart> SwAV::parts_from(const Weights& weights, const std::string& trunk_prefix) {
  const Rest rest = find_rest(*this, weights, trunk_prefix);
  std::vector<StartingPart> parts;
  const auto add = [&](const char* name, std::vector<std::pair<Tensor, NamedTensor>> pairs, const std::string& taken,
                       const std::string& anew) {
    StartingPart part{.name = name, .line = pairs.empty() ? anew : taken};
    for (const auto& [own, given] : pairs) part.given.push_back(given);
    part.take = [pairs = std::move(pairs)] {
      for (const auto& [own, given] : pairs) own.copy_from(given.tensor.to(DType::f32));
    };
    parts.push_back(std::move(part));
  };
  if (rest.no_head.empty()) {
    parts.push_back({.name = "head",
                     .take = [head = rest.head] { head.load(); },
                     .line = fmt::format("Projection head from it: {}.", rest.head.describe_matched())});
    for (const auto& [ours, theirs] : rest.head.pairs) parts.back().given.push_back(theirs);
  } else {
    parts.push_back({.name = "head", .line = fmt::format("The projection head begins anew: {}.", rest.no_head)});
  }
  add("prototypes", rest.prototypes, fmt::format("{} prototypes from it.", prototypes().dim(0)),
      fmt::format("The prototypes begin anew: {}.", rest.no_prototypes));
  if (options_.queue_length > 0)
    add("queue", rest.queues, "The queue from it.", fmt::format("The queue begins anew: {}.", rest.no_queues));
  return parts;
}

}  // namespace saccade::ssl
