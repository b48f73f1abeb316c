#include <saccade/core/ops.h>
#include <saccade/core/random.h>
#include <support/op_table.h>
#include <support/own_op.h>

#include <numeric>
#include <utility>

namespace saccade::testing {
namespace {

using reference::Values;
using Tensors = std::vector<Tensor>;
using Doubles = std::vector<Values>;

Input images(Segments segments, int64_t channels) { return {{total_rows(segments), channels}, segments}; }
Input parameter(Shape shape, float low = -1.f, float high = 1.f) { return {std::move(shape), {}, true, low, high}; }
Input constant(Shape shape, float low, float high) { return {std::move(shape), {}, false, low, high}; }

const Segments kSquare = {{2, 6, 6}};
const Segments kRagged = {{2, 7, 6}, {3, 4, 5}};
const Segments kTiny = {{3, 2, 2}, {4, 1, 1}};

OpCase conv_case(const std::string& name, const Segments& segments, kernels::Conv2d conv) {
  return {"conv2d_" + name,
          {images(segments, conv.in_channels),
           parameter({conv.out_channels, conv.kernel, conv.kernel, conv.in_channels / conv.groups})},
          [conv](const Tensors& t) {
            return conv2d(t[0], t[1], {.stride = conv.stride, .padding = conv.padding, .groups = conv.groups});
          },
          [conv, segments](const Doubles& v) { return reference::conv2d(conv, segments, v[0], v[1]); }};
}

void add_convolutions(std::vector<OpCase>& table) {
  auto conv = [](int64_t in, int64_t out, int64_t k, int64_t s, int64_t p, int64_t g) {
    return kernels::Conv2d{.in_channels = in, .out_channels = out, .kernel = k, .stride = s, .padding = p, .groups = g};
  };
  table.push_back(conv_case("1x1", kRagged, conv(5, 7, 1, 1, 0, 1)));
  table.push_back(conv_case("1x1_wide", kRagged, conv(48, 40, 1, 1, 0, 1)));
  table.push_back(conv_case("1x1_stride2", kRagged, conv(6, 9, 1, 2, 0, 1)));
  table.push_back(conv_case("3x3", kSquare, conv(4, 6, 3, 1, 1, 1)));
  table.push_back(conv_case("3x3_stride2", kRagged, conv(3, 8, 3, 2, 1, 1)));
  table.push_back(conv_case("3x3_one_channel", kRagged, conv(1, 16, 3, 1, 1, 1)));
  table.push_back(conv_case("3x3_group8", kRagged, conv(24, 24, 3, 1, 1, 3)));
  table.push_back(conv_case("3x3_group8_stride2", kRagged, conv(16, 16, 3, 2, 1, 2)));
  table.push_back(conv_case("3x3_group8_tiny", kTiny, conv(16, 16, 3, 1, 1, 2)));
  table.push_back(conv_case("3x3_group16", kRagged, conv(32, 32, 3, 1, 1, 2)));
  table.push_back(conv_case("3x3_group16_stride2", kRagged, conv(32, 32, 3, 2, 1, 2)));
  table.push_back(conv_case("3x3_group24", kSquare, conv(48, 48, 3, 1, 1, 2)));
  table.push_back(conv_case("3x3_group13", kSquare, conv(26, 26, 3, 1, 1, 2)));
  table.push_back(conv_case("7x7_stride2", {{2, 11, 10}}, conv(3, 8, 7, 2, 3, 1)));
}

OpCase norm_case(const std::string& name, const Segments& segments, int64_t channels, bool relu, bool residual) {
  const Shape c = {channels};
  std::vector<Input> inputs = {images(segments, channels), parameter(c, 0.5f, 1.5f), parameter(c),
                               constant(c, -1.f, 1.f), constant(c, 0.5f, 1.5f)};
  if (residual) inputs.push_back(images(segments, channels));
  return {"batch_norm_" + name, std::move(inputs),
          [=](const Tensors& t) {
            return batch_norm(t[0], t[1], t[2], t[3].clone(), t[4].clone(), {.relu = relu}, residual ? t[5] : Tensor());
          },
          [=](const Doubles& v) {
            return reference::batch_norm(segments, channels, 1e-5, relu, v[0], v[1], v[2], residual ? v[5] : Values());
          }};
}

OpCase norm_inference_case(const std::string& name, int64_t channels, bool relu, bool residual) {
  const Shape c = {channels};
  std::vector<Input> inputs = {images(kRagged, channels), constant(c, 0.5f, 1.5f), constant(c, -1.f, 1.f),
                               constant(c, -1.f, 1.f),    constant(c, 0.5f, 1.5f), images(kRagged, channels)};
  for (Input& input : inputs) input.differentiable = false;
  return {"batch_norm_inference_" + name, std::move(inputs),
          [=](const Tensors& t) {
            return batch_norm(t[0], t[1], t[2], t[3], t[4], {.training = false, .relu = relu},
                              residual ? t[5] : Tensor());
          },
          [=](const Doubles& v) {
            return reference::batch_norm_inference(channels, 1e-5, relu, v[0], v[1], v[2], v[3], v[4],
                                                   residual ? v[5] : Values());
          }};
}

void add_normalisation(std::vector<OpCase>& table) {
  table.push_back(norm_case("plain", kRagged, 13, false, false));
  table.push_back(norm_case("relu", kRagged, 48, true, false));
  table.push_back(norm_case("residual_relu", kRagged, 24, true, true));
  table.push_back(norm_case("residual", kSquare, 7, false, true));
  table.push_back(norm_case("one_channel", kSquare, 1, true, false));
  table.push_back(norm_inference_case("relu", 13, true, false));
  table.push_back(norm_inference_case("residual_relu", 24, true, true));
  table.push_back({"l2_normalize",
                   {parameter({5, 37})},
                   [](const Tensors& t) { return l2_normalize(t[0]); },
                   [](const Doubles& v) { return reference::l2_normalize(37, 1e-12, v[0]); }});
}

void add_pooling(std::vector<OpCase>& table) {
  table.push_back({"global_avg_pool",
                   {images(kRagged, 19)},
                   [](const Tensors& t) { return global_avg_pool(t[0]); },
                   [](const Doubles& v) { return reference::global_avg_pool(kRagged, 19, v[0]); }});
  for (const Pool2dOptions o : {Pool2dOptions{3, 2, 1}, Pool2dOptions{2, 2, 0}}) {
    const kernels::Conv2d window{
        .in_channels = 9, .out_channels = 9, .kernel = o.kernel, .stride = o.stride, .padding = o.padding, .groups = 9};
    table.push_back({"max_pool2d_" + std::to_string(o.kernel),
                     {images(kRagged, 9)},
                     [o](const Tensors& t) { return max_pool2d(t[0], o); },
                     [window](const Doubles& v) { return reference::max_pool2d(window, kRagged, v[0]); }});
  }
  for (const auto& [channels, reduced] : {std::pair<int64_t, int64_t>{24, 6}, {13, 3}})
    table.push_back({"squeeze_excite_" + std::to_string(channels),
                     {images(kRagged, channels), parameter({reduced, channels}), parameter({reduced}),
                      parameter({channels, reduced}), parameter({channels})},
                     [](const Tensors& t) { return squeeze_excite(t[0], t[1], t[2], t[3], t[4]); },
                     [channels = channels, reduced = reduced](const Doubles& v) {
                       return reference::squeeze_excite(kRagged, channels, reduced, v[0], v[1], v[2], v[3], v[4]);
                     }});
}

void add_elementwise(std::vector<OpCase>& table) {
  auto map = [&](const std::string& name, auto op, double (*f)(double)) {
    table.push_back({name,
                     {images(kRagged, 11)},
                     [op](const Tensors& t) { return op(t[0]); },
                     [f](const Doubles& v) {
                       Values y = v[0];
                       for (double& value : y) value = f(value);
                       return y;
                     }});
  };
  map(
      "relu", [](const Tensor& x) { return relu(x); }, [](double x) { return x > 0 ? x : 0.0; });
  map(
      "sigmoid", [](const Tensor& x) { return sigmoid(x); }, [](double x) { return 1 / (1 + std::exp(-x)); });
  map(
      "gelu", [](const Tensor& x) { return gelu(x); }, [](double x) { return x * std::erfc(-x / std::sqrt(2.0)) / 2; });
  map(
      "scale", [](const Tensor& x) { return scale(x, -2.5f); }, [](double x) { return -2.5 * x; });
  map(
      "reshape", [](const Tensor& x) { return x.reshape({-1}); }, [](double x) { return x; });
  table.push_back({"logsumexp",
                   {parameter({9, 37}, -3.f, 3.f)},
                   [](const Tensors& t) { return logsumexp(t[0]); },
                   [](const Doubles& v) {
                     Values y(9);
                     for (size_t i = 0; i < v[0].size(); ++i) y[i / 37] += std::exp(v[0][i]);
                     for (double& value : y) value = std::log(value);
                     return y;
                   }});
  table.push_back({"add",
                   {parameter({7, 33}), parameter({7, 33})},
                   [](const Tensors& t) { return add(t[0], t[1]); },
                   [](const Doubles& v) {
                     Values y = v[0];
                     for (size_t i = 0; i < y.size(); ++i) y[i] += v[1][i];
                     return y;
                   }});
  table.push_back({"slice",
                   {parameter({7, 5})},
                   [](const Tensors& t) { return t[0].slice(2, 6); },
                   [](const Doubles& v) { return Values(v[0].begin() + 10, v[0].begin() + 30); }});
  table.push_back({"sum",
                   {images(kRagged, 11)},
                   [](const Tensors& t) { return sum(t[0]); },
                   [](const Doubles& v) { return Values{std::accumulate(v[0].begin(), v[0].end(), 0.0)}; }});
  table.push_back(
      {"inner_product",
       {parameter({9, 17}), constant({9, 17}, -1.f, 1.f)},
       [](const Tensors& t) { return inner_product(t[0], t[1]); },
       [](const Doubles& v) { return Values{std::inner_product(v[0].begin(), v[0].end(), v[1].begin(), 0.0)}; }});
  table.push_back({"mean_rows",
                   {constant({9, 17}, -1.f, 1.f)},
                   [](const Tensors& t) { return mean_rows(t[0]); },
                   [](const Doubles& v) {
                     Values mean(17);
                     for (size_t i = 0; i < v[0].size(); ++i) mean[i % 17] += v[0][i] / 9;
                     return mean;
                   }});
  for (const DType dtype : {DType::bf16, DType::f16})
    table.push_back({"cast_" + std::string(name_of(dtype)),
                     {images(kRagged, 11)},
                     [dtype](const Tensors& t) { return cast(cast(t[0], dtype), DType::f32); },
                     [](const Doubles& v) { return v[0]; },
                     dtype == DType::bf16 ? 0x1p-8 : 0x1p-11,
                     dtype == DType::bf16 ? 0x1p-8 : 0x1p-11});
}

void add_products(std::vector<OpCase>& table) {
  for (const bool bias : {false, true}) {
    std::vector<Input> inputs = {parameter({6, 37}), parameter({11, 37})};
    if (bias) inputs.push_back(parameter({11}));
    table.push_back(
        {bias ? "linear_bias" : "linear", std::move(inputs),
         [bias](const Tensors& t) { return linear(t[0], t[1], bias ? t[2] : Tensor()); },
         [bias](const Doubles& v) { return reference::linear(6, 37, 11, v[0], v[1], bias ? v[2] : Values()); }});
  }
}

void add_losses(std::vector<OpCase>& table) {
  for (const auto& [eps, iterations, rows] : {std::tuple{0.05f, 3, int64_t{24}}, {0.03f, 10, int64_t{9}}}) {
    const kernels::Sinkhorn problem{.rows = rows, .prototypes = 15, .eps = eps, .iterations = iterations};
    Input scores = constant({rows, 15}, -1.f, 1.f);
    table.push_back({"sinkhorn_" + std::to_string(iterations),
                     {scores},
                     [eps = eps, iterations = iterations](const Tensors& t) { return sinkhorn(t[0], eps, iterations); },
                     [problem](const Doubles& v) { return reference::sinkhorn(problem, v[0]); },
                     5e-5});
    table.push_back(
        {"sinkhorn_" + std::to_string(iterations) + "_last_rows",
         {scores},
         [eps = eps, iterations = iterations](const Tensors& t) { return sinkhorn(t[0], eps, iterations, 4); },
         [problem](const Doubles& v) {
           const Values q = reference::sinkhorn(problem, v[0]);
           return Values(q.end() - 4 * 15, q.end());
         },
         5e-5});
  }
  table.push_back({"softmax",
                   {constant({9, 15}, -1.f, 1.f), constant({15}, -20.f, 20.f)},
                   [](const Tensors& t) { return softmax(t[0], 0.04f, t[1]); },
                   [](const Doubles& v) {
                     Values q(v[0].size());
                     for (size_t row = 0; row < q.size(); row += 15) {
                       double total = 0;
                       for (size_t k = 0; k < 15; ++k) total += q[row + k] = std::exp(v[0][row + k] / 0.04 + v[1][k]);
                       for (size_t k = 0; k < 15; ++k) q[row + k] /= total;
                     }
                     return q;
                   },
                   5e-5});
  const kernels::SwappedPrediction swap{.batch = 3, .crops = 5, .assigning = 2, .prototypes = 19};
  table.push_back({"swapped_prediction",
                   {parameter({15, 19}), constant({6, 19}, 0.f, 1.f)},
                   [](const Tensors& t) { return swapped_prediction(t[0], t[1], 3, 0.1f); },
                   [swap](const Doubles& v) { return reference::swapped_prediction(swap, v[0], v[1]); }});
  const std::vector<int32_t> labels = {3, 0, 6, 2};
  table.push_back({"cross_entropy",
                   {parameter({4, 7}, -3.f, 3.f)},
                   [labels](const Tensors& t) { return cross_entropy(t[0], Tensor::from(labels, {4})); },
                   [labels](const Doubles& v) { return reference::cross_entropy(7, v[0], labels); }});
  table.push_back({"cross_entropy_without_own",
                   {parameter({4, 7}, -3.f, 3.f)},
                   [labels](const Tensors& t) { return cross_entropy(t[0], Tensor::from(labels, {4}), true); },
                   [labels](const Doubles& v) {
                     reference::Values others = v[0];
                     for (size_t row = 0; row < 4; ++row) others[row * 7 + row] = -1e300;
                     return reference::cross_entropy(7, others, labels);
                   }});
}

uint64_t hash(const std::string& text) {
  uint64_t h = 0;
  for (const char c : text) h = Philox::mix(h, static_cast<uint64_t>(c));
  return h;
}

std::vector<float> uniform(uint64_t key, uint64_t stream, int64_t n, float low, float high) {
  Philox random(key, stream);
  std::vector<float> values(static_cast<size_t>(n));
  for (float& v : values) v = random.uniform(low, high);
  return values;
}

}  // namespace

const std::vector<OpCase>& op_table() {
  static const std::vector<OpCase> table = [] {
    std::vector<OpCase> t;
    add_convolutions(t);
    add_normalisation(t);
    add_pooling(t);
    add_elementwise(t);
    add_products(t);
    add_losses(t);
    t.push_back(silu_case());
    return t;
  }();
  return table;
}

std::vector<Tensor> make_inputs(const OpCase& op_case) {
  std::vector<Tensor> tensors;
  for (const Input& input : op_case.inputs) {
    int64_t n = 1;
    for (const int64_t extent : input.shape) n *= extent;
    Tensor t = Tensor::from(uniform(hash(op_case.name), tensors.size(), n, input.low, input.high), input.shape);
    if (!input.segments.empty()) t = t.with_segments(input.segments);
    if (input.differentiable) t.requires_grad_();
    tensors.push_back(t);
  }
  return tensors;
}

reference::Values to_double(const Tensor& tensor) {
  const auto values = tensor.data<float>();
  return {values.begin(), values.end()};
}

Tensor functional_of(const OpCase& op_case, const Tensor& output) {
  Tensor weights = Tensor::from(uniform(hash(op_case.name), 1000, output.numel(), -1.f, 1.f), {output.numel()});
  return weights;
}

}  // namespace saccade::testing
