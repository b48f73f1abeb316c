#include <saccade/kernels/cpu/conv_plan.h>

#include <cstring>

#include "onednn.h"

namespace saccade::kernels::cpu {
namespace {

/// Rows of output pixels, each the inputs under the kernel (kernel, kernel, in_channels): the order of a weight.
void unfold(const Conv2d& c, const Segment& in, const void* x, void* rows) {
  const Segment out = c.output(in);
  const size_t pixel = static_cast<size_t>(c.in_channels) * size_of(c.dtype);
  const auto step = static_cast<int64_t>(pixel);
#pragma omp parallel for schedule(static)
  for (int64_t row = 0; row < out.rows(); ++row) {
    const int64_t image = row / (out.h * out.w), y = row / out.w % out.h * c.stride - c.padding,
                  x0 = row % out.w * c.stride - c.padding;
    char* to = plus(rows, static_cast<size_t>(row * c.kernel * c.kernel * step));
    for (int64_t ky = 0; ky < c.kernel; ++ky)
      for (int64_t kx = 0; kx < c.kernel; ++kx, to += pixel) {
        const int64_t iy = y + ky, ix = x0 + kx;
        if (iy < 0 || iy >= in.h || ix < 0 || ix >= in.w) {
          std::memset(to, 0, pixel);
        } else {
          std::memcpy(to, plus(x, static_cast<size_t>(((image * in.h + iy) * in.w + ix) * step)), pixel);
        }
      }
  }
}

}  // namespace

bool unfold_is_possible(const Conv2d& c, ConvPass pass) { return c.groups == 1 && pass != ConvPass::backward_data; }

ConvPlan plan_unfold(const Conv2d& c, const Segments& in, ConvPass pass) {
  const int64_t patch = c.kernel * c.kernel * c.in_channels;
  int64_t rows = 0;
  for (const Segment& s : in) rows += c.output(s).rows();
  const bool weight = pass == ConvPass::backward_weight;
  const MatMul shape = weight ? MatMul{c.out_channels, patch, rows, true, false, 1.f, 0.f, c.dtype, DType::f32}
                              : MatMul{rows, c.out_channels, patch, false, true, 1.f, 0.f, c.dtype, c.dtype};
  const onednn::MatMulPlan& product = onednn::matmul_plan(shape, false);
  const std::vector<SegmentOffsets> offsets = segment_offsets(c, in);
  WorkspaceLayout layout;
  layout.add(static_cast<size_t>(rows * patch) * size_of(c.dtype));
  const size_t scratch_at = layout.add(product.workspace);
  return {layout.bytes, [=, &product](const void* x, const void* b, void* out, void* ws) {
            size_t row = 0;
            for (size_t i = 0; i < in.size(); ++i) {
              unfold(c, in[i], plus(x, offsets[i].in), plus(ws, row));
              row += static_cast<size_t>(c.output(in[i]).rows() * patch) * size_of(c.dtype);
            }
            void* scratch = plus(ws, scratch_at);
            weight ? product.run(b, ws, nullptr, out, scratch) : product.run(ws, b, nullptr, out, scratch);
          }};
}

}  // namespace saccade::kernels::cpu
