#pragma once

/// @file
/// The settings of saccade-pretrain.

#include <saccade/data/loader.h>
#include <saccade/ssl/eval/knn.h>
#include <saccade/vision/choose.h>

#include <string>
#include <vector>

#include "../images.h"
#include "../program.h"
#include "../run_data.h"

namespace saccade::program {

struct PretrainSettings {
  std::string data, run;
  std::string names = "torchvision", knn_data, precision = "f32", momentum = "f32", memory_budget = "none";
  std::string init, view = "middle";
  std::vector<float> mean{0.485f, 0.456f, 0.406f}, std{0.229f, 0.224f, 0.225f};
  int64_t knn_every = 5;
  double minutes = 0, timeout = 10;
  double max_unreadable = data::LoaderOptions{}.max_unreadable;
  bool baselines = true, fresh = false, allow_partial = false;
  vision::Training train;
  vision::Choice method;  ///< if it was chosen, why
  ssl::KnnOptions knn;
  ImageFlags images;
  RunData run_data;
  Machine machine;

  void flags(CLI::App& app);
};

}  // namespace saccade::program
