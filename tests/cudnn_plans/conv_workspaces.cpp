// Workspaces recorded for planners (core/plan/conv_workspaces): what the real cuDNN answers for described devices.
// SACCADE_RECORD_WORKSPACES=DIRECTORY writes the tables anew.
#include <cudnn.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>
#include <saccade/core/plan/conv_workspaces.h>
#include <saccade/core/plan/devices.h>
#include <saccade/kernels/cuda/conv_cudnn.h>
#include <saccade/kernels/cuda/workspace.h>
#include <saccade/nn/regnet.h>

#include <cmath>
#include <cstdlib>
#include <fstream>

#include "described_devices.h"

namespace saccade::testing {
namespace {

using kernels::Conv2d;
using kernels::ConvPass;
using kernels::cuda::CudnnConvolutions;
using Line = plan::ConvWorkspaces::Line;

struct Point {
  int64_t elements;
  size_t bytes;
};

/// What plans of the pass take for parts of 4 to 64 images.
std::vector<Point> probe(CudnnConvolutions& convolutions, const Conv2d& conv, const Segments& resolutions,
                         ConvPass pass) {
  std::vector<Point> points;
  for (const Segment& resolution : resolutions)
    for (const int64_t n : {4, 8, 16, 32, 64}) {
      const Segments segment{{n, resolution.h, resolution.w}};
      for (const CudnnConvolutions::Part& part : convolutions.parts(conv, segment, pass))
        points.push_back({part.problem.in.rows() * conv.in_channels, part.plans->front().workspace});
    }
  return points;
}

/// The line of least squares, raised until no point lies above it.
Line line_above(const std::vector<Point>& points) {
  double mean_x = 0, mean_y = 0, xx = 0, xy = 0;
  for (const Point& p : points) {
    mean_x += static_cast<double>(p.elements) / static_cast<double>(points.size());
    mean_y += static_cast<double>(p.bytes) / static_cast<double>(points.size());
  }
  for (const Point& p : points) {
    const double x = static_cast<double>(p.elements) - mean_x;
    xx += x * x;
    xy += x * (static_cast<double>(p.bytes) - mean_y);
  }
  Line line{.slope = xx > 0 ? std::max(0.0, std::ceil(xy / xx * 1e3) * 1e-3) : 0};
  for (const Point& p : points)
    line.constant =
        std::max(line.constant, std::ceil(static_cast<double>(p.bytes) - line.slope * static_cast<double>(p.elements)));
  return line;
}

/// The major one.
int compute_capability(const std::string& device) {
  const std::string json = properties_of(device), name = "\"deviceVer\": ";
  return std::stoi(json.substr(json.find(name) + name.size())) / 100;
}

plan::ConvWorkspaces::Rows rows_of(const std::string& device, const std::vector<std::string>& nets) {
  CudnnConvolutions convolutions(properties_of(device));
  plan::ConvWorkspaces::Rows rows;
  const Line product{.constant = static_cast<double>(kernels::cuda::matmul_workspace(compute_capability(device)))};
  rows[plan::ConvWorkspaces::kProduct] = {product, product, product};
  for (const std::string& net : nets)
    for (const auto& [conv, resolutions] : convolutions_of(net, DType::f16)) {
      const auto key = plan::ConvWorkspaces::key_of(conv);
      if (conv.is_matmul() || rows.contains(key)) continue;
      for (const ConvPass pass : {ConvPass::forward, ConvPass::backward_data, ConvPass::backward_weight})
        rows[key][static_cast<size_t>(pass)] = line_above(probe(convolutions, conv, resolutions, pass));
    }
  return rows;
}

std::string heading() {
  return fmt::format(
      "# cuDNN {}, f16\n# kernel, stride, padding, channels in and out, groups; slope (bytes an element of the images) "
      "and constant (bytes): forward, backward to the images, backward to the weights\n",
      cudnnGetVersion());
}

void write(const std::string& path, const plan::ConvWorkspaces::Rows& rows) {
  std::ofstream file(path);
  file << heading();
  for (const auto& [key, passes] : rows) {
    file << fmt::format("{}", fmt::join(key, ","));
    for (const Line& line : passes) file << fmt::format(",{:g},{:.0f}", line.slope, line.constant);
    file << "\n";
  }
  EXPECT_TRUE(file.good()) << path;
}

class ConvWorkspaces : public ::testing::TestWithParam<std::string> {
 protected:
  void expect_as_recorded(const std::vector<std::string>& nets) {
    const std::string device = GetParam();
    if (const std::string why_not = refusal(device); !why_not.empty()) GTEST_SKIP() << why_not;
    for (const plan::DeviceFile& file : plan::conv_workspace_files())
      if (file.name == device && !file.text.starts_with(heading()))
        GTEST_SKIP() << "recorded with another cuDNN: " << file.text.substr(0, file.text.find('\n'));
    const plan::ConvWorkspaces recorded(device);
    for (const auto& [key, passes] : rows_of(device, nets)) {
      const auto row = recorded.rows().find(key);
      ASSERT_NE(row, recorded.rows().end()) << fmt::format("{}", fmt::join(key, ","));
      for (size_t pass = 0; pass < 3; ++pass) {
        const double scale = std::max(1.0, passes[pass].constant);
        EXPECT_NEAR(row->second[pass].slope, passes[pass].slope, 1e-4 * std::max(1.0, passes[pass].slope));
        EXPECT_NEAR(row->second[pass].constant, passes[pass].constant, 1e-3 * scale);
      }
    }
  }
};

TEST_P(ConvWorkspaces, AreAsRecorded) { expect_as_recorded({"y_400mf", "y_256gf"}); }

using ConvWorkspacesLong = ConvWorkspaces;
TEST_P(ConvWorkspacesLong, OfEveryRegNetAreAsRecorded) {
  if (const char* directory = std::getenv("SACCADE_RECORD_WORKSPACES"))
    write(fmt::format("{}/{}.csv", directory, GetParam()), rows_of(GetParam(), nn::regnet_names()));
  else
    expect_as_recorded(nn::regnet_names());
}

const auto kDevices = ::testing::Values("v100", "a100", "h100");
const auto name_of_device = [](const auto& info) { return info.param; };
INSTANTIATE_TEST_SUITE_P(Devices, ConvWorkspaces, kDevices, name_of_device);
INSTANTIATE_TEST_SUITE_P(Devices, ConvWorkspacesLong, kDevices, name_of_device);

}  // namespace
}  // namespace saccade::testing
