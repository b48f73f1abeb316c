// The way of a training knows no method: no file of it names one.
#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

namespace saccade::ssl {
namespace {

std::string lower(std::string text) {
  std::ranges::transform(text, text.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

TEST(TheWayOfATraining, NamesNoMethodAndNoneOfItsParts) {
  int files = 0;
  for (const char* folder : {"ssl/train", "ssl/report"})
    for (const auto& entry :
         std::filesystem::recursive_directory_iterator(std::filesystem::path(SACCADE_SOURCE) / folder)) {
      if (!entry.is_regular_file()) continue;
      ++files;
      std::ifstream file(entry.path());
      const std::string text = lower({std::istreambuf_iterator<char>(file), {}});
      for (const char* word : {"swav", "simclr", "dino", "prototype", "queue", "sinkhorn", "ssl/methods"})
        EXPECT_EQ(text.find(word), std::string::npos) << entry.path() << " says " << word;
    }
  EXPECT_GT(files, 30);
}

}  // namespace
}  // namespace saccade::ssl
