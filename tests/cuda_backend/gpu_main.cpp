// The backend's tests on a real GPU, with NVIDIA's libraries: main.cpp's counterpart. Without a GPU all are skipped.
#include <gtest/gtest.h>
#include <saccade/kernels/cuda_device.h>
#include <saccade/kernels/error.h>

#include "device_under_test.h"

namespace saccade::testing {

std::string complaint() {
  try {
    kernels::cuda_backend().synchronize();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

namespace {
/// Skips each test by itself, for all to see: ctest counts what an Environment skips as passed.
class NeedsGpu : public ::testing::EmptyTestEventListener {
  void OnTestStart(const ::testing::TestInfo&) override {
    if (const kernels::CudaStatus status = kernels::cuda_status(); status.devices == 0) GTEST_SKIP() << status.why_none;
  }
};
}  // namespace
}  // namespace saccade::testing

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  ::testing::UnitTest::GetInstance()->listeners().Append(new saccade::testing::NeedsGpu);
  return RUN_ALL_TESTS();
}
