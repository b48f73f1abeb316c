#include <fmt/format.h>
#include <omp.h>
#include <saccade/kernels/cpu/conv_plan.h>
#include <saccade/kernels/cpu/cpu_backend.h>
#include <saccade/kernels/cpu/isa.h>
#include <saccade/kernels/error.h>

#include <algorithm>

#include "onednn_version.h"

namespace saccade::kernels {
namespace cpu::onednn {
namespace {

struct MatMulKey {
  MatMul shape;
  bool bias;
  int threads;
  bool operator==(const MatMulKey&) const = default;
};

struct MatMulKeyHash {
  size_t operator()(const MatMulKey& key) const {
    const MatMul& s = key.shape;
    return KeyHash()(s.m)(s.n)(s.k)(s.transpose_a)(s.transpose_b)(std::bit_cast<int32_t>(s.alpha))(
               std::bit_cast<int32_t>(s.beta))(static_cast<int64_t>(s.dtype))(static_cast<int64_t>(s.out_dtype))(
               key.bias)(key.threads)
        .value;
  }
};

MatMulPlan make_plan(const MatMul& s, bool bias) {
  using Desc = dnnl::memory::desc;
  using Dims = dnnl::memory::dims;
  const auto in = type_of(s.dtype), out = type_of(s.out_dtype);
  const Desc a({s.m, s.k}, in, s.transpose_a ? Dims{1, s.m} : Dims{s.k, 1});
  const Desc b({s.k, s.n}, in, s.transpose_b ? Dims{1, s.k} : Dims{s.n, 1});
  const Desc c({s.m, s.n}, out, Dims{s.n, 1}), row({1, s.n}, out, Dims{s.n, 1});

  dnnl::primitive_attr attr = user_scratchpad();
  dnnl::post_ops after;
  // The scale covers oneDNN's own bias too, which alpha must not: then the bias is added behind the scale.
  const bool bias_behind = bias && s.alpha != 1.f;
  if (s.alpha != 1.f) scale_result(s.alpha, attr, after);
  if (s.beta != 0.f) after.append_sum(s.beta);
  if (bias_behind) after.append_binary(dnnl::algorithm::binary_add, row);
  attr.set_post_ops(after);

  const auto chosen =
      bias && !bias_behind ? describe<dnnl::matmul>(attr, a, b, row, c) : describe<dnnl::matmul>(attr, a, b, c);
  const dnnl::matmul primitive(chosen);
  const int bias_argument =
      bias_behind ? DNNL_ARG_ATTR_MULTIPLE_POST_OP(after.len() - 1) | DNNL_ARG_SRC_1 : DNNL_ARG_BIAS;
  const Desc scratch = chosen.scratchpad_desc();

  auto run = [=](const void* pa, const void* pb, const void* pbias, void* pc, void* workspace) {
    std::unordered_map<int, dnnl::memory> arguments{{DNNL_ARG_SRC, at(a, pa)},
                                                    {DNNL_ARG_WEIGHTS, at(b, pb)},
                                                    {DNNL_ARG_DST, at(c, pc)},
                                                    {DNNL_ARG_SCRATCHPAD, at(scratch, workspace)}};
    if (bias) arguments.emplace(bias_argument, at(row, pbias));
    primitive.execute(stream(), arguments);
  };
  return {scratch.get_size(), run};
}

/// On copies in f32 of what is not, for types that the instruction set does not compute in.
MatMulPlan make_widened(const MatMul& s, bool bias) {
  MatMul wide = s;
  wide.dtype = wide.out_dtype = DType::f32;
  const MatMulPlan plan = make_plan(wide, bias);
  const int64_t a_elements = s.m * s.k, b_elements = s.k * s.n, c_elements = s.m * s.n;
  const bool copy_in = s.dtype != DType::f32, copy_out = s.out_dtype != DType::f32;
  WorkspaceLayout layout;
  const auto add = [&](bool copied, int64_t n) {
    return layout.add(copied ? static_cast<size_t>(n) * sizeof(float) : 0);
  };
  const size_t a_at = add(copy_in, a_elements), b_at = add(copy_in, b_elements), c_at = add(copy_out, c_elements),
               bias_at = add(copy_out && bias, s.n), scratch_at = layout.add(plan.workspace);
  return {layout.bytes, [=](const void* a, const void* b, const void* row, void* c, void* workspace) {
            const auto widened = [&](bool copied, DType from, int64_t n, const void* x, size_t at) -> const void* {
              if (!copied) return x;
              cast_floating(from, DType::f32, n, x, plus(workspace, at));
              return plus(workspace, at);
            };
            void* result = copy_out ? plus(workspace, c_at) : c;
            if (s.beta != 0.f) widened(copy_out, s.out_dtype, c_elements, c, c_at);
            plan.run(widened(copy_in, s.dtype, a_elements, a, a_at), widened(copy_in, s.dtype, b_elements, b, b_at),
                     widened(copy_out && bias, s.out_dtype, s.n, row, bias_at), result, plus(workspace, scratch_at));
            if (copy_out) cast_floating(DType::f32, s.out_dtype, c_elements, result, c);
          }};
}

}  // namespace

const MatMulPlan& matmul_plan(const MatMul& shape, bool bias) {
  static PlanCache<MatMulKey, MatMulPlan, MatMulKeyHash> plans;
  return plans.get({shape, bias, omp_get_max_threads()}, [&] {
    try {
      require_floating(shape.dtype, "matmul");
      require_floating(shape.out_dtype, "matmul");
      const bool mixed = shape.dtype == DType::f32 && shape.out_dtype != DType::f32;
      return !mixed && computes_in(shape.dtype) && computes_in(shape.out_dtype) ? make_plan(shape, bias)
                                                                                : make_widened(shape, bias);
    } catch (const dnnl::error& error) {
      rethrow(error, fmt::format("matmul of ({}, {}) by ({}, {}) in {}", shape.m, shape.k, shape.k, shape.n,
                                 name_of(shape.dtype)));
    }
  });
}

}  // namespace cpu::onednn

size_t CpuBackend::scratch(const MatrixProduct& call) const {
  const MatMul& shape = call.product;
  if (shape.m == 0 || shape.n == 0) return 0;
  return std::max(cpu::onednn::matmul_plan(shape, false).workspace, cpu::onednn::matmul_plan(shape, true).workspace);
}

void CpuBackend::compute(const MatrixProduct& call) {
  if (call.product.m == 0 || call.product.n == 0) return;
  cpu::onednn::matmul_plan(call.product, call.bias != nullptr).run(call.a, call.b, call.bias, call.c, call.workspace);
}

}  // namespace saccade::kernels
