#include <saccade/core/io/toml.h>

#include "target.h"

/// The bytes as a document, and as a string that is to be stored in one.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace saccade;
  const std::string text(data, data + size);
  const auto stored = io::parse_toml("key = " + io::toml_value(text), "stored");
  fuzz::require(stored.size() == 1 && stored[0].values == std::vector{text}, "every string is read as it was written");
  std::vector<io::TomlSetting> settings;
  try {
    settings = io::parse_toml(text, "settings");
  } catch (const Error&) {
    return 0;
  }
  for (const io::TomlSetting& setting : settings) {
    const auto again = io::parse_toml("key = " + io::toml_array(setting.values), "again");
    fuzz::require(again.size() == 1 && again[0].values == setting.values, "settings are read as they were written");
  }
  return 0;
}
