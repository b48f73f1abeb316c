#include <saccade/core/tensor.h>
#include <saccade/ssl/network.h>

namespace saccade::ssl {

Network load_network(const std::filesystem::path& path, const NetworkOptions& options) {
  return load_network(read_weights(path), options);
}

Network load_network(const Weights& weights, const NetworkOptions& options) {
  Network network{.trunk = nullptr, .info = {}, .file = weights.file};
  TrunkInfo& info = network.info;
  info.take(weights.metadata, weights.file);
  info.trunk = options.trunk.empty() ? trunk_of(weights) : options.trunk;
  if (options.size > 0) info.size = options.size;
  if (!options.mean.empty()) info.mean = options.mean;
  if (!options.std.empty()) info.std = options.std;
  if (!options.view.empty()) info.view = options.view;
  const DeviceScope there(options.device);
  network.trunk = nn::trunk(info.trunk);
  network.match = load_trunk(*network.trunk, weights, options.allow_partial);
  return network;
}

}  // namespace saccade::ssl
