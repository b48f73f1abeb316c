#include <saccade/nn/key_match.h>
#include <saccade/nn/regnet.h>
#include <saccade/nn/resnet.h>
#include <saccade/nn/trunk.h>

#include <map>

namespace saccade::nn {
namespace {

std::map<Shape, int> stored_shapes(const Module& module) {
  std::map<Shape, int> shapes;
  for (const NamedTensor& t : module.named_tensors()) ++shapes[stored_shape(t.name, t.tensor.shape())];
  return shapes;
}

/// Every trunk that has a name, once: torchvision's roundings are left out where they are the same network. ResNets
/// with the stem for CIFAR are those that other programs train on small images.
std::vector<std::string> named_trunks() {
  std::vector<std::string> names{"resnet50w2", "resnet50w4", "resnet50w5"};
  for (const std::string& name : resnet_names()) {
    names.push_back(name);
    if (resnet_spec(name).stem != Stem::cifar) names.push_back(name + ":stem=cifar");
  }
  for (const std::string& name : regnet_names()) {
    names.push_back(name);
    if (stages(regnet_spec(name)) != stages(regnet_spec(name + "_tv"))) names.push_back(name + "_tv");
  }
  return names;
}

}  // namespace

std::vector<std::string> trunks_of(const std::vector<NamedTensor>& tensors) {
  const DeviceScope meta(Device::meta);
  std::map<Shape, int> given;
  for (const NamedTensor& t : tensors) ++given[t.tensor.shape()];
  std::vector<std::string> found;
  for (const std::string& name : named_trunks()) {
    const auto candidate = trunk(name);
    bool possible = true;  // told by shapes alone, before names are compared
    for (const auto& [shape, count] : stored_shapes(*candidate)) {
      const auto at = given.find(shape);
      possible = possible && at != given.end() && at->second >= count;
    }
    if (possible && match_keys(*candidate, tensors).whole()) found.push_back(name);
  }
  return found;
}

}  // namespace saccade::nn
