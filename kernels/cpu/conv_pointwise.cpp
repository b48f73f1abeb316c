#include <saccade/kernels/cpu/conv_plan.h>

#include <algorithm>
#include <cstring>

#include "onednn.h"

namespace saccade::kernels::cpu {
namespace {

/// Copies the pixels of the input that a stride lands on to rows of their own.
void gather(const Segment& in, const Segment& out, int64_t stride, size_t pixel_bytes, const void* x, void* rows) {
  const auto pixel = static_cast<int64_t>(pixel_bytes);
#pragma omp parallel for schedule(static)
  for (int64_t line = 0; line < out.n * out.h; ++line) {
    const char* from = plus(x, static_cast<size_t>((line / out.h * in.h + line % out.h * stride) * in.w * pixel));
    char* to = plus(rows, static_cast<size_t>(line * out.w * pixel));
    for (int64_t i = 0; i < out.w; ++i) std::memcpy(to + i * pixel, from + i * stride * pixel, pixel_bytes);
  }
}

/// The reverse: all other pixels of dx are zero.
void scatter(const Segment& in, const Segment& out, int64_t stride, size_t pixel_bytes, const void* rows, void* dx) {
  const auto pixel = static_cast<int64_t>(pixel_bytes);
#pragma omp parallel for schedule(static)
  for (int64_t line = 0; line < in.n * in.h; ++line) {
    const int64_t n = line / in.h, y = line % in.h;
    char* to = plus(dx, static_cast<size_t>(line * in.w * pixel));
    if (y % stride != 0) {
      std::memset(to, 0, static_cast<size_t>(in.w) * pixel_bytes);
      continue;
    }
    const char* from = plus(rows, static_cast<size_t>((n * out.h + y / stride) * out.w * pixel));
    for (int64_t i = 0; i < in.w; ++i) {
      if (i % stride == 0) {
        std::memcpy(to + i * pixel, from + i / stride * pixel, pixel_bytes);
      } else {
        std::memset(to + i * pixel, 0, pixel_bytes);
      }
    }
  }
}

}  // namespace

bool is_pointwise(const Conv2d& c) { return c.kernel == 1 && c.padding == 0 && c.groups == 1; }

ConvPlan plan_pointwise(const Conv2d& c, const Segments& in, ConvPass pass) {
  int64_t rows = 0;
  for (const Segment& s : in) rows += c.output(s).rows();
  const MatMul shape = product_of(c, rows, pass);
  const onednn::MatMulPlan& product = onednn::matmul_plan(shape, false);
  const bool weight = pass == ConvPass::backward_weight;
  if (c.stride == 1)
    return {product.workspace, [&product, weight](const void* a, const void* b, void* out, void* ws) {
              weight ? product.run(b, a, nullptr, out, ws) : product.run(a, b, nullptr, out, ws);
            }};

  const size_t pixel = static_cast<size_t>(c.in_channels) * size_of(c.dtype);
  const std::vector<SegmentOffsets> offsets = segment_offsets(c, in);
  WorkspaceLayout layout;
  layout.add(static_cast<size_t>(rows) * pixel);  // the pixels of x or dx that take part
  const size_t scratch_at = layout.add(product.workspace);
  const auto for_segments = [=](auto body) {
    size_t row = 0;
    for (size_t i = 0; i < in.size(); ++i) {
      body(in[i], c.output(in[i]), offsets[i].in, row);
      row += static_cast<size_t>(c.output(in[i]).rows()) * pixel;
    }
  };
  return {layout.bytes, [=, &product](const void* a, const void* b, void* out, void* ws) {
            void* scratch = plus(ws, scratch_at);
            if (pass == ConvPass::backward_data) {
              product.run(a, b, nullptr, ws, scratch);
              for_segments([&](const Segment& s, const Segment& o, size_t at, size_t row) {
                scatter(s, o, c.stride, pixel, plus(ws, row), plus(out, at));
              });
              return;
            }
            for_segments([&](const Segment& s, const Segment& o, size_t at, size_t row) {
              gather(s, o, c.stride, pixel, plus(a, at), plus(ws, row));
            });
            weight ? product.run(b, ws, nullptr, out, scratch) : product.run(ws, b, nullptr, out, scratch);
          }};
}

}  // namespace saccade::kernels::cpu
