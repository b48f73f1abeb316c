#include <gtest/gtest.h>
#include <support/cuda_doubles/cuda_doubles.h>

#include <cstdlib>
#include <fstream>

#include "device_under_test.h"

namespace saccade::testing {

std::string complaint() { return cuda_doubles::last_complaint(); }

namespace {
TEST(CudaDoubles, NoRealLibraryTookPart) {
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);)
    EXPECT_TRUE(line.find("libcublas") == std::string::npos && line.find("libcudnn") == std::string::npos) << line;
}

}  // namespace
}  // namespace saccade::testing

/// The order in which streams run is a matter of CUDA_DOUBLES_SEED.
int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  if (const char* seed = std::getenv("CUDA_DOUBLES_SEED"))
    cuda_doubles::options().seed = static_cast<uint32_t>(std::strtoul(seed, nullptr, 10));
  cuda_doubles::reset();
  return RUN_ALL_TESTS();
}
