#include <fmt/format.h>
#include <saccade/ssl/train/objective.h>
#include <saccade/ssl/weights.h>

#include <algorithm>
#include <cctype>
#include <utility>

namespace saccade::ssl {

Tensor view_after_view(std::span<const Tensor> parts, int64_t views) {
  if (parts.empty()) return {};
  if (parts.size() == 1) return parts.front();
  const DeviceScope device(parts.front().device());
  int64_t rows = 0;
  for (const Tensor& part : parts) rows += part.dim(0);
  const int64_t images = rows / views;
  Tensor all = Tensor::empty({rows, parts.front().dim(1)});
  int64_t first = 0;
  for (const Tensor& part : parts) {
    const int64_t size = part.dim(0) / views;
    for (int64_t view = 0; view < views; ++view)
      all.slice(view * images + first, view * images + first + size)
          .copy_from(part.slice(view * size, (view + 1) * size));
    first += size;
  }
  return all;
}

std::vector<StartingPart> Objective::parts_from(const Weights& weights, const std::string& trunk_prefix) {
  const auto child = std::ranges::find_if(children(), [&](const auto& c) { return c.second.get() == &trunk(); });
  const std::string trunk_name = child == children().end() ? "trunk" : child->first;
  const bool ours = weights.layout == nn::Layout::own && trunk_prefix.ends_with(trunk_name + ".");
  const std::string prefix = ours ? trunk_prefix.substr(0, trunk_prefix.size() - trunk_name.size() - 1) : "";

  std::vector<StartingPart> parts;
  std::vector<std::pair<Tensor, Tensor>> pairs;  // of the part at hand: own, given
  std::string no;                                // why it cannot be taken
  const auto finish = [&] {
    if (parts.empty()) return;
    StartingPart& part = parts.back();
    std::string name = part.name;
    name[0] = static_cast<char>(std::toupper(static_cast<unsigned char>(name[0])));
    if (no.empty()) {
      part.take = [pairs] {
        for (const auto& [own, given] : pairs) own.copy_from(given.to(own.dtype()));
      };
      part.line = fmt::format("{} from it: {} tensor{}.", name, pairs.size(), pairs.size() == 1 ? "" : "s");
    } else {
      part.given.clear();
      part.line = fmt::format("{} begins anew: {}.", name, no);
    }
    pairs.clear();
    no.clear();
  };
  for (const NamedTensor& own : named_tensors()) {
    const std::string name = own.name.substr(0, own.name.find('.'));
    if (name == trunk_name) continue;
    if (parts.empty() || parts.back().name != name) {
      finish();
      parts.push_back({.name = name, .line = ""});
    }
    const auto given =
        !ours ? weights.tensors.end() : std::ranges::find(weights.tensors, prefix + own.name, &NamedTensor::name);
    if (given == weights.tensors.end()) {
      no = "the file has none";
    } else if (given->tensor.shape() != own.tensor.shape() || given->tensor.dtype() != own.tensor.dtype()) {
      if (no.empty())
        no = fmt::format("{} is {} {} in the file, {} here", given->name, name_of(given->tensor.dtype()),
                         to_string(given->tensor.shape()), to_string(own.tensor.shape()));
    } else {
      pairs.emplace_back(own.tensor, given->tensor);
      parts.back().given.push_back(*given);
    }
  }
  finish();
  return parts;
}

std::vector<NamedTensor> Objective::trained_parameters() const {
  std::vector<NamedTensor> all = named_parameters();
  std::erase_if(all, [](const NamedTensor& p) { return !p.tensor.requires_grad(); });
  return all;
}

}  // namespace saccade::ssl
