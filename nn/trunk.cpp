#include <saccade/core/layer.h>
#include <saccade/core/ops.h>
#include <saccade/nn/regnet.h>
#include <saccade/nn/resnet.h>
#include <saccade/nn/trunk.h>

namespace saccade::nn {

Tensor Trunk::forward(const Tensor& images) {
  Tensor x = forward_stage(0, images);
  for (size_t stage = 1; stage < stage_count(); ++stage) x = forward_stage(stage, x);
  return x;
}

Tensor Trunk::features(const Tensor& images) {
  const Tensor map = (*this)(images);
  const LayerScope layer(name());
  return global_avg_pool(map);
}

std::vector<Tensor> Trunk::forward_stages(const Tensor& images) {
  const LayerScope layer(name());
  std::vector<Tensor> maps{forward_stage(0, images)};
  while (maps.size() < stage_count()) maps.push_back(forward_stage(maps.size(), maps.back()));
  return maps;
}

std::shared_ptr<Trunk> trunk(std::string_view description, uint64_t seed) {
  if (description.starts_with("resnet")) return resnet(description, seed);
  return regnet(description, seed);
}

}  // namespace saccade::nn
