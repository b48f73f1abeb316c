#pragma once

#include <saccade/nn/stem.h>

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

/// @file
/// How trunks are described: "NAME", or "NAME:KEY=VALUE,KEY=VALUE". For those who read a family's descriptions
/// (regnet.h, resnet.h); errors are sentences that begin with the family.

namespace saccade::nn {

/// One KEY=VALUE of a description. What reads the value throws where it is something else.
struct DescribedSetting {
  std::string_view family, key, value;

  int64_t whole_number() const;
  double number() const;
  size_t one_of(std::initializer_list<std::string_view> words) const;  ///< which of them
  Stem stem() const;                                                   ///< simple, cifar, resnet
  /// Throws that there is no such key; `known` lists those there are.
  [[noreturn]] void refuse(std::string_view known) const;
};

struct Description {
  std::string_view name;
  std::vector<DescribedSetting> settings;  ///< behind the colon, in order
};

/// Views of the text. Throws where a setting is not KEY=VALUE.
Description parse_description(std::string_view family, std::string_view text);

/// The three of the names that are the fewest edits away.
std::vector<std::string> nearest(std::vector<std::string> names, std::string_view name);

}  // namespace saccade::nn
