#pragma once

#include <string>

namespace saccade::ssl {

/// What the settings that advice speaks of are called where its reader can change them: fields of options by default; a
/// program gives its flags. Advice on a setting without a name is left out.
struct SettingNames {
  std::string lr = "TrainerOptions::lr";
  std::string epochs = "TrainerOptions::epochs";
  std::string batch = "LoaderOptions::batch";
  std::string accumulate = "TrainerOptions::accumulate";
  std::string precision = "TrainerOptions::precision";
  std::string crops = "MultiCrop::crops", jitter = "MultiCrop::jitter_p";
  std::string prototypes = "SwAVOptions::prototypes", eps = "SwAVOptions::eps";
  std::string queue = "SwAVOptions::queue_length", queue_start = "SwAVOptions::queue_start_iteration";
  std::string freeze = "SwAVOptions::freeze_prototypes_iterations";
  std::string hard = "SwAVOptions::hard_assignment_iterations";
  std::string head_bn = "SwAVOptions::head_bn";
  std::string unit_embeddings = "SwAVOptions::unit_embeddings";
};

}  // namespace saccade::ssl
