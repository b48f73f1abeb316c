#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

namespace saccade::data {

/// How many there are of each kind.
class Census {
 public:
  void add(std::string_view kind, int64_t count = 1);
  bool empty() const { return counts_.empty(); }
  int64_t total() const;
  /// "40 hidden, 12 .mov, 3 .txt and 4 others": the most frequent first, of bounded length however many there are.
  std::string words(size_t kinds = 10) const;

 private:
  std::map<std::string, int64_t, std::less<>> counts_;
};

}  // namespace saccade::data
