#include <fmt/format.h>
#include <fmt/ranges.h>
#include <saccade/core/layer.h>
#include <saccade/nn/interop.h>

#include <algorithm>
#include <array>
#include <map>
#include <regex>

namespace saccade::nn {
namespace {

constexpr std::array<std::pair<Names, std::string_view>, 6> words = {{{Names::torchvision, "torchvision"},
                                                                      {Names::timm, "timm"},
                                                                      {Names::vissl, "vissl"},
                                                                      {Names::classy, "classy"},
                                                                      {Names::pycls, "pycls"},
                                                                      {Names::swav, "swav"}}};

/// A piece of a RegNet block in torchvision's words, and what timm, VISSL (like ClassyVision), and pycls call it.
struct Piece {
  std::string_view torchvision, timm, vissl, pycls;
};
constexpr std::array pieces = {
    Piece{"f.a.0", "conv1.conv", "f.a.0", "f.a"},
    Piece{"f.a.1", "conv1.bn", "f.a.1", "f.a_bn"},
    Piece{"f.b.0", "conv2.conv", "f.b.0", "f.b"},
    Piece{"f.b.1", "conv2.bn", "f.b.1", "f.b_bn"},
    Piece{"f.se.fc1", "se.fc1", "f.se.excitation.0", "f.se.f_ex.0"},
    Piece{"f.se.fc2", "se.fc2", "f.se.excitation.2", "f.se.f_ex.2"},
    Piece{"f.c.0", "conv3.conv", "f.c", "f.c"},
    Piece{"f.c.1", "conv3.bn", "f.final_bn", "f.c_bn"},
    Piece{"proj.0", "downsample.conv", "proj", "proj"},
    Piece{"proj.1", "downsample.bn", "bn", "bn"},
};

std::string in_block(int stage, int block, const Piece& piece, const std::string& tensor, Names names) {
  switch (names) {
    case Names::timm:
      return fmt::format("s{}.b{}.{}.{}", stage, block + 1, piece.timm, tensor);
    case Names::pycls:
      return fmt::format("s{}.b{}.{}.{}", stage, block + 1, piece.pycls, tensor);
    case Names::vissl:
      return fmt::format("_feature_blocks.res{}.block{}-{}.{}.{}", stage + 1, stage, block, piece.vissl, tensor);
    default:
      return fmt::format("trunk_output.block{0}.block{0}-{1}.{2}.{3}", stage, block, piece.vissl, tensor);
  }
}

/// `name`, ours, without "trunk.".
std::string foreign(const std::string& name, Names names, bool resnet) {
  static const std::regex block(R"(trunk_output\.block(\d+)\.block\1-(\d+)\.(.+)\.(\w+))"),
      stem(R"(stem\.([01])\.(\w+))"), bottleneck(R"((conv1|bn1|layer\d+)\..+)"), classifier(R"(fc\.(\w+))"),
      head(R"((projection_head|prototypes)\.(.+))");
  if (names == Names::torchvision) return name;
  if (names == Names::swav) return "module." + name;
  const bool timm_like = names == Names::timm || names == Names::pycls;
  std::smatch m;
  if (std::regex_match(name, m, block)) {
    const auto* const piece = std::ranges::find(pieces, m[3].str(), &Piece::torchvision);
    if (piece != pieces.end()) return in_block(std::stoi(m[1]), std::stoi(m[2]), *piece, m[4], names);
  } else if (std::regex_match(name, m, stem)) {
    if (timm_like) return fmt::format("stem.{}.{}", m[1] == "0" ? "conv" : "bn", m[2].str());
    return (names == Names::vissl ? "_feature_blocks.conv1." : "stem.") + name;
  } else if (std::regex_match(name, m, bottleneck)) {
    if (names == Names::timm) return name;
    if (names == Names::vissl) return "_feature_blocks." + name;
  } else if (std::regex_match(name, m, classifier)) {
    if (names == Names::timm && resnet) return name;
    if (timm_like) return "head." + name;
    if (names == Names::vissl) return "0.clf.0." + m[1].str();
  } else if (std::regex_match(name, m, head) && names == Names::vissl) {
    return m[1] == "prototypes" ? "0.prototypes0." + m[2].str() : "0." + name;
  }
  fail(fmt::format("state dict: {} has no name for our \"{}\"", name_of(names), name));
}

bool is_attention_weight(const std::string& name) {
  return name.ends_with(".se.fc1.weight") || name.ends_with(".se.fc2.weight");
}

/// Rows of (a, b) become rows of (b, a): (out, k * k, in) <-> (out, in, k * k).
Tensor swap_inner(const Tensor& t, int64_t outer, int64_t a, int64_t b, Shape shape) {
  const DeviceScope device(Device::cpu);
  Tensor result = Tensor::empty(std::move(shape));
  const auto from = t.data<float>(), to = result.data<float>();
  for (int64_t o = 0; o < outer; ++o)
    for (int64_t i = 0; i < a; ++i)
      for (int64_t j = 0; j < b; ++j)
        to[static_cast<size_t>((o * b + j) * a + i)] = from[static_cast<size_t>((o * a + i) * b + j)];
  return result;
}

/// The weight of a stem that sees colours, (out, k, k, 3), with its channels the other way round: RGB <-> BGR.
void turn_colours(const Tensor& weight) {
  const std::span<float> values = weight.data<float>();
  for (size_t pixel = 0; pixel + 2 < values.size(); pixel += 3) std::swap(values[pixel], values[pixel + 2]);
}

bool is_turned(const std::string& name, const Shape& ours, Names names) {
  return names == Names::pycls && name.ends_with("stem.0.weight") && ours.size() == 4 && ours[3] == 3;
}

Tensor to_stored(const std::string& name, const Tensor& t, Names names) {
  const Shape shape = stored_shape(name, t.shape());
  Tensor copy = t.clone();
  if (t.rank() != 4) return copy.reshape(shape);
  if (is_turned(name, t.shape(), names)) turn_colours(copy);
  return swap_inner(copy, t.dim(0), t.dim(1) * t.dim(2), t.dim(3), shape);
}

}  // namespace

std::string_view name_of(Names names) {
  return std::ranges::find(words, names, &std::pair<Names, std::string_view>::first)->second;
}

Names names_of(std::string_view word) {
  const auto* const found = std::ranges::find(words, word, &std::pair<Names, std::string_view>::second);
  if (found != words.end()) return found->first;
  std::array<std::string_view, words.size()> known;
  std::ranges::transform(words, known.begin(), &std::pair<Names, std::string_view>::second);
  fail(fmt::format("state dict: no names are called \"{}\"; there are {}", word, fmt::join(known, ", ")));
}

std::vector<std::pair<std::string, std::string>> name_map(const Module& module, Names names) {
  const std::vector<NamedTensor> tensors = module.named_tensors();
  const bool resnet = std::ranges::any_of(tensors, [](const NamedTensor& t) {
    return t.name.starts_with("layer1.") || t.name.starts_with("trunk.layer1.");
  });
  std::vector<std::pair<std::string, std::string>> map;
  static const std::regex queue(R"(queue\d+)");
  for (const NamedTensor& t : tensors)
    if (!std::regex_match(t.name, queue))
      map.emplace_back(t.name, foreign(t.name.starts_with("trunk.") ? t.name.substr(6) : t.name, names, resnet));
  return map;
}

std::vector<NamedTensor> state_dict(const Module& module, Names names) {
  const DeviceScope device(Device::cpu);
  std::map<std::string, Tensor> tensors;
  for (const NamedTensor& t : module.named_tensors()) tensors[t.name] = t.tensor;
  std::vector<NamedTensor> result;
  for (const auto& [ours, theirs] : name_map(module, names)) {
    result.push_back({theirs, to_stored(ours, tensors.at(ours).to(Device::cpu), names)});
    constexpr std::string_view variance = "running_var";
    if (!theirs.ends_with(variance)) continue;
    result.push_back(
        {theirs.substr(0, theirs.size() - variance.size()) + "num_batches_tracked", Tensor::zeros({}, DType::i64)});
  }
  return result;
}

Shape stored_shape(const std::string& name, const Shape& ours) {
  if (ours.size() == 4) return {ours[0], ours[3], ours[1], ours[2]};
  if (is_attention_weight(name)) return {ours[0], ours[1], 1, 1};
  return ours;
}

void load_stored(const std::string& name, const Tensor& stored, Names names, const Tensor& ours) {
  const DeviceScope device(Device::cpu);
  const Shape& shape = ours.shape();
  if (stored.shape() != stored_shape(name, shape))
    fail(fmt::format("state dict: \"{}\" is {}, expected {}", name, to_string(stored.shape()),
                     to_string(stored_shape(name, shape))));
  Tensor values = stored.to(DType::f32);
  if (shape.size() == 4) values = swap_inner(values, shape[0], shape[3], shape[1] * shape[2], shape);
  if (is_turned(name, shape, names)) turn_colours(values);
  ours.copy_from(values);
}

}  // namespace saccade::nn
