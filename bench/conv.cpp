// Convolutions and matrix products of the CPU backend: GFLOP/s and % of the machine's fp32 peak, measured on the spot.
//   bench_conv --benchmark_filter=group --dtype=f32,bf16
// Rows: shape/pass/way/dtype; way: chosen (what the backend does), onednn, own, pairs, product, unfold, widened.
#include <benchmark/benchmark.h>
#include <fmt/format.h>
#include <saccade/kernels/backend.h>
#include <saccade/kernels/cpu/conv_plan.h>

#include <algorithm>
#include <iterator>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "peak.h"

using namespace saccade;
using namespace saccade::kernels;

namespace {

void report(benchmark::State& state, double flops) {
  const double gflops = flops * static_cast<double>(state.iterations()) * 1e-9;
  state.counters["GFLOP/s"] = benchmark::Counter(gflops, benchmark::Counter::kIsRate);
  state.counters["%peak"] =
      benchmark::Counter(100 * gflops / (bench::peak_flops() * 1e-9), benchmark::Counter::kIsRate);
}

struct Shape {
  const char* name;
  Conv2d conv;
  Segments in;
};

// clang-format off
const Shape shapes[] = {
    // The demonstration's network: Fashion-MNIST, 256 images, 2 crops of 28 and 2 of 16.
    {"fashion/stem_1_to_16", {1, 16, 3, 1, 1, 1}, {{512, 28, 28}, {512, 16, 16}}},
    {"fashion/stem_1_to_24_s2", {1, 24, 3, 2, 1, 1}, {{512, 28, 28}, {512, 16, 16}}},
    {"fashion/1x1_16_to_24@28", {16, 24, 1, 1, 0, 1}, {{512, 28, 28}, {512, 16, 16}}},
    {"fashion/1x1_16_to_24_s2", {16, 24, 1, 2, 0, 1}, {{512, 28, 28}, {512, 16, 16}}},
    {"fashion/group8_24_s2@28", {24, 24, 3, 2, 1, 3}, {{512, 28, 28}, {512, 16, 16}}},
    {"fashion/1x1_24@14", {24, 24, 1, 1, 0, 1}, {{512, 14, 14}, {512, 8, 8}}},
    {"fashion/1x1_24_to_24_s2", {24, 24, 1, 2, 0, 1}, {{512, 14, 14}, {512, 8, 8}}},
    {"fashion/1x1_24_to_64@7", {24, 64, 1, 1, 0, 1}, {{512, 7, 7}, {512, 4, 4}}},
    {"fashion/1x1_24_to_64_s2", {24, 64, 1, 2, 0, 1}, {{512, 7, 7}, {512, 4, 4}}},
    {"fashion/1x1_64@4", {64, 64, 1, 1, 0, 1}, {{512, 4, 4}, {512, 2, 2}}},
    {"fashion/1x1_64_to_152_s2", {64, 152, 1, 2, 0, 1}, {{512, 4, 4}, {512, 2, 2}}},
    {"fashion/1x1_152@2", {152, 152, 1, 1, 0, 1}, {{512, 2, 2}, {512, 1, 1}}},
    {"fashion/group8_24@14", {24, 24, 3, 1, 1, 3}, {{512, 14, 14}, {512, 8, 8}}},
    {"fashion/group8_24_s2@14", {24, 24, 3, 2, 1, 3}, {{512, 14, 14}, {512, 8, 8}}},
    {"fashion/group8_64@7", {64, 64, 3, 1, 1, 8}, {{512, 7, 7}, {512, 4, 4}}},
    {"fashion/group8_64_s2@14", {64, 64, 3, 2, 1, 8}, {{512, 14, 14}, {512, 8, 8}}},
    {"fashion/group8_64_s2@7", {64, 64, 3, 2, 1, 8}, {{512, 7, 7}, {512, 4, 4}}},
    {"fashion/group8_64@4", {64, 64, 3, 1, 1, 8}, {{512, 4, 4}, {512, 2, 2}}},
    {"fashion/group8_152_s2@4", {152, 152, 3, 2, 1, 19}, {{512, 4, 4}, {512, 2, 2}}},
    {"fashion/group8_152@2", {152, 152, 3, 1, 1, 19}, {{512, 2, 2}, {512, 1, 1}}},
    {"fashion/group16_64@7", {64, 64, 3, 1, 1, 4}, {{512, 7, 7}, {512, 4, 4}}},
    {"fashion/group16_64_s2@14", {64, 64, 3, 2, 1, 4}, {{512, 14, 14}, {512, 8, 8}}},
    {"fashion/group16_160@4", {160, 160, 3, 1, 1, 10}, {{512, 4, 4}, {512, 2, 2}}},
    // RegNetY-400MF, 32 images, 2 crops of 96 and 4 of 48.
    {"regnet/stem_3_to_32_s2", {3, 32, 3, 2, 1, 1}, {{64, 96, 96}, {128, 48, 48}}},
    {"regnet/1x1_32_to_48_s2", {32, 48, 1, 2, 0, 1}, {{64, 48, 48}, {128, 24, 24}}},
    {"regnet/1x1_32_to_48", {32, 48, 1, 1, 0, 1}, {{64, 48, 48}, {128, 24, 24}}},
    {"regnet/1x1_104", {104, 104, 1, 1, 0, 1}, {{64, 12, 12}, {128, 6, 6}}},
    {"regnet/1x1_104_to_208_s2", {104, 208, 1, 2, 0, 1}, {{64, 12, 12}, {128, 6, 6}}},
    {"regnet/1x1_208", {208, 208, 1, 1, 0, 1}, {{64, 6, 6}, {128, 3, 3}}},
    {"regnet/1x1_440", {440, 440, 1, 1, 0, 1}, {{64, 3, 3}, {128, 2, 2}}},
    {"regnet/group8_48_s2@48", {48, 48, 3, 2, 1, 6}, {{64, 48, 48}, {128, 24, 24}}},
    {"regnet/group8_104_s2@24", {104, 104, 3, 2, 1, 13}, {{64, 24, 24}, {128, 12, 12}}},
    {"regnet/group8_104@12", {104, 104, 3, 1, 1, 13}, {{64, 12, 12}, {128, 6, 6}}},
    {"regnet/group8_208_s2@12", {208, 208, 3, 2, 1, 26}, {{64, 12, 12}, {128, 6, 6}}},
    {"regnet/group8_208@6", {208, 208, 3, 1, 1, 26}, {{64, 6, 6}, {128, 3, 3}}},
    {"regnet/group8_440_s2@6", {440, 440, 3, 2, 1, 55}, {{64, 6, 6}, {128, 3, 3}}},
    {"regnet/group8_440@3", {440, 440, 3, 1, 1, 55}, {{64, 3, 3}, {128, 2, 2}}},
    {"regnet/group16_144@12", {144, 144, 3, 1, 1, 9}, {{64, 12, 12}, {128, 6, 6}}},
    {"regnet/group16_320@6", {320, 320, 3, 1, 1, 20}, {{64, 6, 6}, {128, 3, 3}}},
    {"regnet/group24_120@12", {120, 120, 3, 1, 1, 5}, {{64, 12, 12}, {128, 6, 6}}},
    {"regnet/group24_336@6", {336, 336, 3, 1, 1, 14}, {{64, 6, 6}, {128, 3, 3}}},
    {"regnet/group56_448@12", {448, 448, 3, 1, 1, 8}, {{8, 12, 12}, {16, 6, 6}}},
    // ResNet-50.
    {"resnet/stem_7x7", {3, 64, 7, 2, 3, 1}, {{16, 96, 96}, {32, 48, 48}}},
    {"resnet/3x3_64@24", {64, 64, 3, 1, 1, 1}, {{16, 24, 24}, {32, 12, 12}}},
    {"resnet/3x3_128_s2@24", {128, 128, 3, 2, 1, 1}, {{16, 24, 24}, {32, 12, 12}}},
    {"resnet/3x3_256@6", {256, 256, 3, 1, 1, 1}, {{16, 6, 6}, {32, 3, 3}}},
    {"resnet/3x3_512@3", {512, 512, 3, 1, 1, 1}, {{16, 3, 3}, {32, 2, 2}}},
    {"resnet/1x1_256_to_512_s2", {256, 512, 1, 2, 0, 1}, {{16, 24, 24}, {32, 12, 12}}},
    {"resnet/1x1_256_to_64", {256, 64, 1, 1, 0, 1}, {{16, 24, 24}, {32, 12, 12}}},
};
// clang-format on

/// Values in [-1, 1) of a type, on a cache line.
struct Values {
  explicit Values(size_t n, DType dtype = DType::f32)
      : data(::operator new(n* size_of(dtype) + 64, std::align_val_t(64))) {
    std::vector<float> values(n);
    for (size_t i = 0; i < n; ++i) values[i] = static_cast<float>(i * 2654435761u % 1000) * 0.002f - 1.f;
    backend(Device::cpu).run(Cast{DType::f32, dtype, static_cast<int64_t>(n), values.data(), data});
  }
  ~Values() { ::operator delete(data, std::align_val_t(64)); }
  Values(const Values&) = delete;
  void* data;
};

void run(benchmark::State& state, const Shape& shape, ConvPass pass, const std::string& way) {
  const Conv2d& c = shape.conv;
  int64_t output_rows = 0;
  double flops = 0;
  for (const Segment& s : shape.in) output_rows += c.output(s).rows(), flops += c.flops(s);
  const bool weight = pass == ConvPass::backward_weight;
  const Values x(static_cast<size_t>(total_rows(shape.in) * c.in_channels), c.dtype),
      y(static_cast<size_t>(output_rows * c.out_channels), c.dtype),
      w(static_cast<size_t>(c.weight_elements()), weight ? DType::f32 : c.dtype);
  const cpu::ConvPlan plan = way == "unfold"                    ? cpu::plan_unfold(c, shape.in, pass)
                             : way == "product"                 ? cpu::plan_pointwise(c, shape.in, pass)
                             : way == "onednn"                  ? cpu::plan_onednn(c, shape.in, pass)
                             : way == "widened"                 ? cpu::plan_widened(c, shape.in, pass)
                             : (way == "own" || way == "pairs") ? cpu::plan_grouped(c, shape.in, pass, way == "pairs")
                                                                : cpu::conv_plan(c, shape.in, pass);
  const Values workspace(plan.workspace / sizeof(float) + 1);
  const void* a = pass == ConvPass::backward_data ? y.data : x.data;
  const void* b = weight ? y.data : w.data;
  void* out = pass == ConvPass::forward ? y.data : weight ? w.data : x.data;
  plan.run(a, b, out, workspace.data);
  for (auto _ : state) plan.run(a, b, out, workspace.data);
  report(state, flops);
}

void run_product(benchmark::State& state, const MatMul& s) {
  const Values a(static_cast<size_t>(s.m * s.k), s.dtype), b(static_cast<size_t>(s.k * s.n), s.dtype),
      c(static_cast<size_t>(s.m * s.n), s.out_dtype);
  Backend& backend = kernels::backend(Device::cpu);
  const Values workspace(backend.workspace(MatrixProduct{s}) / sizeof(float) + 1);
  for (auto _ : state) backend.run(MatrixProduct{s, a.data, b.data, nullptr, c.data, workspace.data});
  report(state, s.flops());
}

/// Whether the machine and the shape have a way.
bool possible(const Conv2d& c, ConvPass pass, std::string_view way) {
  const bool native = cpu::onednn_computes_in(c.dtype);
  if (way == "own") return cpu::grouped_is_possible(c);
  if (way == "pairs") return cpu::grouped_is_possible(c) && c.in_channels == 8 * c.groups;
  if (way == "widened") return c.dtype != DType::f32;
  if (way == "onednn") return native;
  if (way == "product") return native && cpu::is_pointwise(c);
  if (way == "unfold") return native && !cpu::is_pointwise(c) && cpu::unfold_is_possible(c, pass);
  return true;
}

/// Takes --dtype=a,b out of the arguments.
std::vector<DType> take_dtypes(int& argc, char** argv) {
  constexpr std::string_view flag = "--dtype=";
  constexpr DType all[] = {DType::f32, DType::bf16, DType::f16};
  std::vector<DType> chosen;
  int kept = 1;
  for (int i = 1; i < argc; ++i) {
    const std::string_view text = argv[i];
    if (!text.starts_with(flag)) {
      argv[kept++] = argv[i];
      continue;
    }
    for (std::string_view list = text.substr(flag.size()); !list.empty();) {
      const std::string_view name = list.substr(0, list.find(','));
      list.remove_prefix(std::min(list.size(), name.size() + 1));
      const auto found = std::find_if(std::begin(all), std::end(all), [&](DType d) { return name_of(d) == name; });
      if (found == std::end(all)) throw std::runtime_error(fmt::format("{}: expected f32, bf16 or f16", text));
      chosen.push_back(*found);
    }
  }
  argc = kept;
  return chosen.empty() ? std::vector{DType::f32} : chosen;
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<DType> dtypes = take_dtypes(argc, argv);
  benchmark::AddCustomContext("fp32 peak", fmt::format("{:.0f} GFLOP/s on {} threads ({})", bench::peak_flops() * 1e-9,
                                                       cpu_threads(), name_of(cpu_isa())));
  const std::pair<const char*, ConvPass> passes[] = {
      {"forward", ConvPass::forward}, {"data", ConvPass::backward_data}, {"weight", ConvPass::backward_weight}};
  for (Shape shape : shapes)
    for (const auto& [pass_name, pass] : passes) {
      if (pass == ConvPass::backward_data && shape.conv.in_channels <= 3) continue;  // images need no gradient
      for (const char* way : {"chosen", "onednn", "own", "pairs", "product", "unfold", "widened"})
        for (const DType dtype : dtypes) {
          shape.conv.dtype = dtype;
          if (!possible(shape.conv, pass, way)) continue;
          benchmark::RegisterBenchmark(fmt::format("{}/{}/{}/{}", shape.name, pass_name, way, name_of(dtype)).c_str(),
                                       run, shape, pass, std::string(way))
              ->Unit(benchmark::kMillisecond)
              ->UseRealTime();
        }
    }
  const std::pair<const char*, MatMul> products[] = {
      {"product/prototypes", {512, 256, 128, false, true}},
      {"product/head_hidden", {512, 1024, 440, false, true}},
      {"product/head_hidden_gradient", {1024, 440, 512, true, false}},
      {"product/square_1024", {1024, 1024, 1024}},
  };
  for (const auto& [name, shape] : products)
    for (const DType dtype : dtypes) {
      MatMul product = shape;
      product.dtype = product.out_dtype = dtype;
      benchmark::RegisterBenchmark(fmt::format("{}/{}", name, name_of(dtype)).c_str(), run_product, product)
          ->Unit(benchmark::kMillisecond)
          ->UseRealTime();
    }
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}
