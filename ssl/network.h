#pragma once

#include <saccade/kernels/device.h>
#include <saccade/nn/key_match.h>
#include <saccade/nn/trunk.h>
#include <saccade/ssl/weights.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

/// @file
/// A trained network out of a file, ready for use.

namespace saccade::ssl {

/// A trunk with what is needed to use it.
struct Network {
  std::shared_ptr<nn::Trunk> trunk;
  TrunkInfo info;                ///< which it is, and how images are shown to it
  std::filesystem::path file{};  ///< that it was read from
  nn::KeyMatch match{};          ///< what of that was taken
};

/// What is known better than the file says. What is left empty, or 0, is as the file says.
struct NetworkOptions {
  std::string trunk{};  ///< as nn::trunk() takes it
  int size = 0;         ///< pixels a side
  std::vector<float> mean{}, std{};
  std::string view{};          ///< "middle" or "whole": see data::ViewRule
  bool allow_partial = false;  ///< weights may fit the network in part
  Device device = Device::cpu;
};

/// Builds the network that a file of weights holds (a run's folder, a checkpoint, another program's file: all that
/// read_weights() takes) and fills it. Throws Error when the file cannot be read, when nothing tells which network it
/// is, or as load_trunk() does.
Network load_network(const std::filesystem::path& path, const NetworkOptions& options = {});
Network load_network(const Weights& weights, const NetworkOptions& options = {});

}  // namespace saccade::ssl
