// Every row of the op table on emulated CUDA, in all three types, against the same row on the CPU.
#include <gtest/gtest.h>
#include <saccade/core/autocast.h>
#include <saccade/core/ops.h>
#include <saccade/kernels/error.h>
#include <support/op_table.h>
#include <support/own_op.h>

#include <algorithm>
#include <cmath>

namespace saccade::testing {
namespace {

struct Result {
  Tensor output;
  std::vector<Tensor> gradients;
};

/// Output and gradients, brought to the CPU as f32. Inputs that are images are in the type; parameters stay f32.
Result run(const OpCase& c, Device device, DType dtype) {
  const DeviceScope scope(device);
  const AutocastScope precision(dtype);
  std::vector<Tensor> inputs = make_inputs(c);
  for (size_t i = 0; i < inputs.size(); ++i)
    if (dtype != DType::f32 && inputs[i].is_images())
      inputs[i] = inputs[i].to(dtype).requires_grad_(c.inputs[i].differentiable);
  Result result;
  result.output = c.op(inputs);
  if (result.output.requires_grad()) {
    const Tensor y = result.output.dtype() == DType::f32 ? result.output : cast(result.output, DType::f32);
    inner_product(y, functional_of(c, y)).backward();
  }
  const auto here = [](const Tensor& t) { return t.defined() ? t.to(Device::cpu).to(DType::f32) : t; };
  for (const Tensor& t : inputs) result.gradients.push_back(here(t.grad()));
  result.output = here(result.output);
  return result;
}

void expect_close(const Tensor& got, const Tensor& expected, double tolerance, const std::string& what) {
  ASSERT_EQ(got.defined(), expected.defined()) << what;
  if (!got.defined()) return;
  ASSERT_EQ(got.shape(), expected.shape()) << what;
  const auto a = got.data<float>(), b = expected.data<float>();
  double top = 1e-3;
  for (const float v : b) top = std::max(top, std::abs(double{v}));
  for (size_t i = 0; i < a.size(); ++i)
    ASSERT_NEAR(double{a[i]}, double{b[i]}, tolerance * top) << what << ", element " << i;
}

/// All but the op that a user of the library wrote, on the memory of the CPU.
std::vector<OpCase> ops_of_the_library() {
  std::vector<OpCase> cases = op_table();
  std::erase_if(cases, [](const OpCase& c) { return c.name == "own_silu"; });
  return cases;
}

class CudaOpTable : public ::testing::TestWithParam<std::tuple<OpCase, DType>> {};

TEST_P(CudaOpTable, AgreesWithTheCpu) {
  const auto& [c, dtype] = GetParam();
  const Result cpu = run(c, Device::cpu, dtype), cuda = run(c, Device::cuda, dtype);
  // Rounded to a type's 11 or 8 bits a few times on the way, by either.
  const double rounding = dtype == DType::f32 ? 0 : dtype == DType::f16 ? 0x1p-9 : 0x1p-6;
  expect_close(cuda.output, cpu.output, std::max(c.tolerance, rounding), "output");
  for (size_t i = 0; i < cpu.gradients.size(); ++i)
    expect_close(cuda.gradients[i], cpu.gradients[i], std::max(1e-5, rounding), "gradient " + std::to_string(i));
}

TEST_P(CudaOpTable, TheSameCallGivesTheSameBits) {
  const auto& [c, dtype] = GetParam();
  const Result a = run(c, Device::cuda, dtype), b = run(c, Device::cuda, dtype);
  expect_close(a.output, b.output, 0, "output");
  for (size_t i = 0; i < a.gradients.size(); ++i) expect_close(a.gradients[i], b.gradients[i], 0, "gradient");
}

TEST(OwnOp, RefusesMemoryThatItsKernelCannotReach) {
  const DeviceScope scope(Device::cuda);
  try {
    silu(Tensor::zeros({4}));
    FAIL() << "an op of the CPU ran on a GPU";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("bring it to the cpu first"), std::string::npos) << error.what();
  }
}

INSTANTIATE_TEST_SUITE_P(AllOps, CudaOpTable,
                         ::testing::Combine(::testing::ValuesIn(ops_of_the_library()),
                                            ::testing::Values(DType::f32, DType::f16, DType::bf16)),
                         [](const auto& info) {
                           return std::get<0>(info.param).name + "_" + std::string(name_of(std::get<1>(info.param)));
                         });

}  // namespace
}  // namespace saccade::testing
