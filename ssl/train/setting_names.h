#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>

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
  /// The flags of a program for settings of the method, by the settings' names.
  std::optional<std::map<std::string, std::string, std::less<>>> of_method = {};

  /// What a setting of the method is called: the program's flag, empty if it has none; `field`, where no program spoke.
  std::string of(std::string_view setting, std::string_view field) const {
    if (!of_method) return std::string(field);
    const auto flag = of_method->find(setting);
    return flag == of_method->end() ? "" : flag->second;
  }
};

}  // namespace saccade::ssl
