#include <fmt/format.h>
#include <fmt/ranges.h>
#include <saccade/core/layer.h>
#include <saccade/nn/key_match.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <map>
#include <optional>
#include <set>
#include <string_view>
#include <tuple>
#include <unordered_map>

namespace saccade::nn {
namespace {

/// "block1-part0": a level that checkpointed VISSL stages have between a stage and its blocks.
bool is_part_of_stage(std::string_view level) {
  return level.starts_with("block") && level.find("-part") != std::string_view::npos;
}

/// The name without the levels that wrappers put in between.
std::string unwrapped(std::string_view name) {
  constexpr std::array<std::string_view, 5> wrappers{"module", "_orig_mod", "_fsdp_wrapped_module", "_fpw_module",
                                                     "_checkpoint_wrapped_module"};
  std::string clean;
  while (!name.empty()) {
    const std::string_view level = name.substr(0, name.find('.'));
    name.remove_prefix(std::min(name.size(), level.size() + 1));
    if (std::ranges::find(wrappers, level) != wrappers.end() || is_part_of_stage(level)) continue;
    clean += level;
    if (!name.empty()) clean += '.';
  }
  return clean;
}

struct Given {
  const NamedTensor* tensor;
  std::string clean;
};

std::vector<Given> unwrap_all(const std::vector<NamedTensor>& tensors) {
  std::vector<Given> given;
  for (const NamedTensor& t : tensors)
    if (!t.name.ends_with("num_batches_tracked")) given.push_back({&t, unwrapped(t.name)});
  return given;
}

/// What a program would call each tensor of a module.
struct Scheme {
  Names names;
  std::vector<std::pair<std::string, std::string>> map;  ///< our name, its name there without wrappers
};

Scheme scheme_of(const Module& module, Names names, Layout layout) {
  Scheme scheme{names, {}};
  if (layout == Layout::own)
    for (const NamedTensor& t : module.named_tensors()) scheme.map.emplace_back(t.name, t.name);
  else
    scheme.map = name_map(module, names);
  for (auto& [ours, theirs] : scheme.map) theirs = unwrapped(theirs);
  return scheme;
}

std::vector<Scheme> schemes_of(const Module& module, Layout layout) {
  if (layout == Layout::own) return {scheme_of(module, Names::torchvision, layout)};
  std::vector<Scheme> schemes;  // without the "module." of swav's names they are torchvision's
  for (const Names names : {Names::torchvision, Names::timm, Names::vissl, Names::classy, Names::pycls}) {
    try {
      schemes.push_back(scheme_of(module, names, layout));
    } catch (const Error&) {
      continue;  // that program has no names for this module
    }
  }
  return schemes;
}

/// A level of a name without its number: "layer3" and "layer4" are of one kind.
std::string kind_of_level(std::string_view name) {
  std::string_view level = name.substr(0, name.find('.'));
  while (!level.empty() && std::isdigit(static_cast<unsigned char>(level.back()))) level.remove_suffix(1);
  return std::string(level);
}

KeyMatch match(const Module& module, const std::vector<Given>& given, const Scheme& scheme, const std::string& prefix,
               Layout layout) {
  KeyMatch result;
  result.layout = layout;
  result.names = scheme.names;
  result.prefix = prefix;
  std::unordered_map<std::string, const NamedTensor*> here;
  std::set<std::string> twice;
  for (const Given& g : given)
    if (g.clean.starts_with(prefix) && !here.emplace(g.clean.substr(prefix.size()), g.tensor).second)
      twice.insert(g.clean.substr(prefix.size()));
  std::map<std::string, Tensor> own;
  for (const NamedTensor& t : module.named_tensors()) own[t.name] = t.tensor;
  std::set<std::string> taken, kinds;
  for (const auto& [ours, theirs] : scheme.map) {
    kinds.insert(kind_of_level(theirs));
    const auto found = here.find(theirs);
    if (found == here.end()) {
      result.missing.push_back(ours);
      continue;
    }
    if (twice.contains(theirs))
      fail(fmt::format("state dict: \"{}{}\" is there twice (in one case within a wrapper's name)", prefix, theirs));
    taken.insert(found->second->name);
    const Tensor &to = own.at(ours), &from = found->second->tensor;
    const Shape expected = layout == Layout::own ? to.shape() : stored_shape(ours, to.shape());
    if (from.shape() != expected ||
        (from.dtype() != DType::f32 && from.dtype() != DType::f16 && from.dtype() != DType::bf16)) {
      result.misshapen.push_back(fmt::format("{} is {} {}, expected floating-point {}", found->second->name,
                                             saccade::name_of(from.dtype()), to_string(from.shape()),
                                             to_string(expected)));
      continue;
    }
    if (const std::string& name = found->second->name; result.matched.empty() && name.ends_with(theirs))
      result.prefix = name.substr(0, name.size() - theirs.size());  // as it stands in the file, with its wrappers
    result.matched.push_back(ours);
    result.pairs.push_back({{ours, to}, *found->second});
  }
  for (const Given& g : given) {
    if (taken.contains(g.tensor->name)) continue;
    const bool of_this_network =
        g.clean.starts_with(prefix) && kinds.contains(kind_of_level(std::string_view(g.clean).substr(prefix.size())));
    (of_this_network ? result.left_over : result.elsewhere).push_back(g.tensor->name);
  }
  return result;
}

/// The order in which places are taken where a network is in several: see match_keys().
int rank(std::string_view prefix) {
  std::string low;
  for (const char c : prefix) low += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  const auto has = [&](std::string_view word) { return low.find(word) != std::string::npos; };
  const auto has_word = [&](std::string_view word) {  // "model_ema.", not "schema."
    for (size_t at = low.find(word); at != std::string::npos; at = low.find(word, at + 1))
      if ((at == 0 || !std::isalpha(static_cast<unsigned char>(low[at - 1]))) &&
          (at + word.size() == low.size() || !std::isalpha(static_cast<unsigned char>(low[at + word.size()]))))
        return true;
    return false;
  };
  if (has("teacher") || has_word("ema")) return 0;
  if (has("student")) return 2;
  if (has("encoder_k") || has("momentum") || has("target") || has("key_encoder")) return 3;
  return 1;
}

std::string some_of(const std::vector<std::string>& names) {
  const auto shown = std::min<size_t>(names.size(), 5);
  return fmt::format("{}{}", fmt::join(names.begin(), names.begin() + static_cast<std::ptrdiff_t>(shown), ", "),
                     names.size() > shown ? ", ..." : "");
}

/// "stem" of "stem.0.weight", "block3" of "trunk_output.block3.block3-1...", "layer2" of "layer2.0.conv1.weight".
std::string part_of(std::string_view name) {
  if (name.starts_with("trunk.")) name.remove_prefix(6);
  if (name.starts_with("trunk_output.")) name.remove_prefix(13);
  return std::string(name.substr(0, name.find('.')));
}

}  // namespace

KeyMatch match_keys(const Module& module, const std::vector<NamedTensor>& tensors, Names names,
                    const std::string& prefix, Layout layout) {
  std::string clean = unwrapped(prefix + "?");
  clean.pop_back();
  return match(module, unwrap_all(tensors), scheme_of(module, names, layout), clean, layout);
}

KeyMatch match_keys(const Module& module, const std::vector<NamedTensor>& tensors, Layout layout) {
  const std::vector<Given> given = unwrap_all(tensors);
  const std::vector<Scheme> schemes = schemes_of(module, layout);
  if (schemes.empty()) fail("state dict: no program has names for this module");
  // How many names of each scheme stand behind each prefix.
  std::vector<std::map<std::string, size_t>> hits(schemes.size());
  size_t most = 0;
  for (size_t s = 0; s < schemes.size(); ++s) {
    std::set<std::string_view> wanted;
    for (const auto& [ours, theirs] : schemes[s].map) wanted.insert(theirs);
    for (const Given& g : given)
      for (size_t at = 0; at != std::string::npos;) {
        if (wanted.contains(std::string_view(g.clean).substr(at)))
          most = std::max(most, ++hits[s][g.clean.substr(0, at)]);
        at = g.clean.find('.', at);
        if (at != std::string::npos) ++at;
      }
  }
  if (most == 0) return match(module, given, schemes.front(), "", layout);

  const auto order = [](const KeyMatch& m) {
    return std::tuple(!m.whole(), -static_cast<std::ptrdiff_t>(m.matched.size()), m.left_over.size(), rank(m.prefix),
                      m.prefix.size(), m.prefix);
  };
  std::vector<KeyMatch> places;
  for (size_t s = 0; s < schemes.size(); ++s)
    for (const auto& [prefix, count] : hits[s])
      if (count == most) places.push_back(match(module, given, schemes[s], prefix, layout));
  std::ranges::stable_sort(places, {}, order);
  KeyMatch best = places.front();
  const auto first_of = [](const KeyMatch& m) { return m.pairs.empty() ? "" : m.pairs.front().second.name; };
  for (const KeyMatch& other : places)
    if (best.whole() && other.whole() && first_of(other) != first_of(best)) best.also_under.push_back(other.prefix);
  return best;
}

std::string KeyMatch::place() const {
  const std::string where = prefix.empty() ? "found" : fmt::format("found under '{}'", prefix);
  return layout == Layout::own ? where : fmt::format("{} in {}'s names", where, name_of(names));
}

std::string KeyMatch::describe_matched() const { return fmt::format("{} tensors, {}", matched.size(), place()); }

std::string KeyMatch::describe() const {
  if (matched.empty() && misshapen.empty())
    return fmt::format("none of its {} tensors is given; what is given: {}", missing.size(),
                       elsewhere.empty() ? "nothing" : some_of(elsewhere));
  std::string text = describe_matched();
  if (!missing.empty()) text += fmt::format("; {} not given: {}", missing.size(), some_of(missing));
  if (!misshapen.empty()) text += fmt::format("; {} of another shape: {}", misshapen.size(), some_of(misshapen));
  if (!left_over.empty()) text += fmt::format("; {} given for nothing here: {}", left_over.size(), some_of(left_over));
  if (!elsewhere.empty()) text += fmt::format("; {} beside it, not used: {}", elsewhere.size(), some_of(elsewhere));
  if (!also_under.empty())
    text +=
        fmt::format("; all of it is also under '{}': of such, '{}' is taken", fmt::join(also_under, "', '"), prefix);
  return text;
}

std::string KeyMatch::table() const {
  struct Row {
    size_t matched = 0, missing = 0;
  };
  std::vector<std::string> parts;
  std::map<std::string, Row> rows;
  const auto row = [&](const std::string& name) -> Row& {
    const std::string part = part_of(name);
    if (!rows.contains(part)) parts.push_back(part);
    return rows[part];
  };
  for (const std::string& name : matched) ++row(name).matched;
  for (const std::string& name : missing) ++row(name).missing;
  std::ranges::sort(parts);
  std::string text = fmt::format("{:<24}{:>10}{:>10}\n", "part", "matched", "missing");
  for (const std::string& part : parts)
    text += fmt::format("{:<24}{:>10}{:>10}\n", part, rows[part].matched, rows[part].missing);
  text += fmt::format("{} of another shape, {} left over, {} elsewhere\n", misshapen.size(), left_over.size(),
                      elsewhere.size());
  return text;
}

std::string KeyMatch::impossible_value() const {
  std::vector<NamedTensor> given;
  for (const auto& [ours, theirs] : pairs) given.push_back(theirs);
  return nn::impossible_value(given);
}

void KeyMatch::load() const {
  if (const std::string wrong = impossible_value(); !wrong.empty()) fail("state dict: " + wrong);
  for (const auto& [ours, theirs] : pairs) {
    if (layout == Layout::own)
      ours.tensor.copy_from(theirs.tensor.to(DType::f32));
    else
      load_stored(ours.name, theirs.tensor, names, ours.tensor);
  }
}

std::string impossible_value(const std::vector<NamedTensor>& tensors) {
  for (const NamedTensor& t : tensors) {
    const DType type = t.tensor.dtype();
    if (t.tensor.device() == Device::meta || (type != DType::f32 && type != DType::f16 && type != DType::bf16))
      continue;
    const Tensor values = t.tensor.to(Device::cpu).to(DType::f32);
    const bool variance = t.name.ends_with("running_var");
    for (const float v : values.data<float>()) {
      if (!std::isfinite(v)) return fmt::format("the tensor \"{}\" holds a value that is {}", t.name, v);
      if (variance && v < 0) return fmt::format("the tensor \"{}\" holds the variance {}, below zero", t.name, v);
    }
  }
  return "";
}

}  // namespace saccade::nn
