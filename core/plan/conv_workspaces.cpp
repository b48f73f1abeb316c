#include <fmt/format.h>
#include <saccade/core/plan/conv_workspaces.h>
#include <saccade/core/plan/devices.h>
#include <saccade/kernels/cuda/workspace.h>
#include <saccade/kernels/error.h>

#include <algorithm>
#include <sstream>

namespace saccade::plan {

ConvWorkspaces::ConvWorkspaces(std::string_view name) {
  const auto files = conv_workspace_files();
  const auto file = std::ranges::find(files, name, &DeviceFile::name);
  if (file == files.end()) throw Error(fmt::format("convolutions' workspaces: none are recorded of \"{}\"", name));
  std::istringstream lines{std::string(file->text)};
  std::string line;
  while (std::getline(lines, line)) {
    if (line.empty() || line.front() == '#') continue;
    std::ranges::replace(line, ',', ' ');
    std::istringstream fields(line);
    Key key;
    std::array<Line, 3> passes;
    for (int64_t& field : key) fields >> field;
    for (Line& pass : passes) fields >> pass.slope >> pass.constant;
    if (!fields) throw Error(fmt::format("convolutions' workspaces of {}: cannot read \"{}\"", name, line));
    rows_.emplace(key, passes);
  }
  if (!rows_.contains(kProduct)) throw Error(fmt::format("convolutions' workspaces of {}: none of products", name));
}

size_t ConvWorkspaces::operator()(const kernels::Conv2d& conv, std::span<const Segment> in,
                                  kernels::ConvPass pass) const {
  using namespace kernels::cuda;
  const auto row = rows_.find(conv.is_matmul() ? kProduct : key_of(conv));
  if (conv.is_matmul()) return with_room_to_align(static_cast<size_t>(row->second[0].constant));
  const auto bytes_of = [&](int64_t images, const Segment& segment) {
    const int64_t elements = images * segment.h * segment.w * conv.in_channels;
    if (row != rows_.end())
      // Recorded in f16; in f32 copies are twice as large.
      return static_cast<size_t>(row->second[static_cast<size_t>(pass)].at(elements)) * size_of(conv.dtype) / 2;
    const Segment out = conv.output(segment);
    return static_cast<size_t>(elements + images * out.h * out.w * conv.out_channels) * size_of(conv.dtype);
  };
  size_t most = 0, parts = 0;
  for (const Segment& segment : in) {
    if (segment.n == 0) continue;
    const auto bytes = [&](int64_t images) { return bytes_of(images, segment); };
    const int64_t together = images_together(segment.n, kConvWorkspaceLimit, bytes);
    most = std::max(most, bytes(together));
    parts += static_cast<size_t>((segment.n + together - 1) / together);
  }
  return with_room_to_align(
      pass == kernels::ConvPass::backward_weight ? WeightGradientWorkspace(conv, parts, most).total() : most);
}

}  // namespace saccade::plan
