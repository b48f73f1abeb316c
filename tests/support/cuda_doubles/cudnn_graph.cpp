#include <algorithm>
#include <bit>

#include "cudnn_descriptors.h"

// What each descriptor demands when it is finalised, from tensors to plans.
namespace cuda_doubles::cudnn {
namespace {

using Name = cudnnBackendAttributeName_t;

int64_t size_of(cudnnDataType_t type) { return type == CUDNN_DATA_FLOAT ? 4 : 2; }

const char* name_of(cudnnDataType_t type) {
  return type == CUDNN_DATA_FLOAT ? "f32" : type == CUDNN_DATA_HALF ? "f16" : "bf16";
}

/// No two elements in one place.
void check_strides(const Tensor& t) {
  std::array<size_t, 4> order = {0, 1, 2, 3};
  std::ranges::sort(order, {}, [&](size_t i) { return t.strides[i]; });
  int64_t span = 1;
  for (const size_t i : order) {
    if (t.dims[i] > 1 && t.strides[i] < span) {
      refuse(CUDNN_STATUS_BAD_PARAM, "tensor {}: dimension {} of {} has stride {}, and overlaps others", t.id, i,
             t.dims[i], t.strides[i]);
    }
    span += (t.dims[i] - 1) * t.strides[i];
  }
}

void finalize_tensor(Descriptor& d) {
  const auto dims = d.all<int64_t>(CUDNN_ATTR_TENSOR_DIMENSIONS), strides = d.all<int64_t>(CUDNN_ATTR_TENSOR_STRIDES);
  Tensor& t = d.tensor;
  t.id = d.one<int64_t>(CUDNN_ATTR_TENSOR_UNIQUE_ID);
  t.type = d.one<cudnnDataType_t>(CUDNN_ATTR_TENSOR_DATA_TYPE);
  t.alignment = d.one<int64_t>(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT);
  if (dims.size() != strides.size()) {
    refuse(CUDNN_STATUS_BAD_PARAM, "tensor {} has {} dimensions and {} strides", t.id, dims.size(), strides.size());
  }
  if (t.type != CUDNN_DATA_FLOAT && t.type != CUDNN_DATA_HALF && t.type != CUDNN_DATA_BFLOAT16) {
    refuse(CUDNN_STATUS_NOT_SUPPORTED_DATA_TYPE, "tensor {} has data type {}; the double knows f32, f16 and bf16", t.id,
           static_cast<int>(t.type));
  }
  if (t.alignment < size_of(t.type) || !std::has_single_bit(static_cast<uint64_t>(t.alignment))) {
    refuse(CUDNN_STATUS_BAD_PARAM, "tensor {} of {} cannot be aligned to {} bytes", t.id, name_of(t.type), t.alignment);
  }
  for (const Name name : {CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_ATTR_TENSOR_IS_BY_VALUE}) {
    if (d.has(name) && d.one<bool>(name)) refuse(CUDNN_STATUS_NOT_SUPPORTED, "the double's tensors lie in memory");
  }
  if (dims.size() != 4) {
    refuse(CUDNN_STATUS_NOT_SUPPORTED_SHAPE, "tensor {} has {} dimensions; the double knows 4", t.id, dims.size());
  }
  for (size_t i = 0; i < 4; ++i) {
    if (dims[i] < 1 || strides[i] < 1) {
      refuse(CUDNN_STATUS_BAD_PARAM, "tensor {}: dimension {} is {} with stride {}", t.id, i, dims[i], strides[i]);
    }
    t.dims[i] = dims[i];
    t.strides[i] = strides[i];
  }
  check_strides(t);
}

void finalize_window(Descriptor& d) {
  if (d.one<cudnnDataType_t>(CUDNN_ATTR_CONVOLUTION_COMP_TYPE) != CUDNN_DATA_FLOAT) {
    refuse(CUDNN_STATUS_NOT_SUPPORTED_DATA_TYPE, "the double computes in f32");
  }
  if (d.one<cudnnConvolutionMode_t>(CUDNN_ATTR_CONVOLUTION_CONV_MODE) != CUDNN_CROSS_CORRELATION) {
    refuse(CUDNN_STATUS_NOT_SUPPORTED, "the double knows CUDNN_CROSS_CORRELATION only");
  }
  const auto spatial = d.one<int64_t>(CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS);
  const auto take = [&](Name name, const char* what, int64_t least) {
    const auto values = d.all<int64_t>(name);
    if (static_cast<int64_t>(values.size()) != spatial) {
      refuse(CUDNN_STATUS_BAD_PARAM, "{} {} for {} spatial dimensions", values.size(), what, spatial);
    }
    if (spatial != 2) refuse(CUDNN_STATUS_NOT_SUPPORTED_SHAPE, "{} spatial dimensions; the double knows 2", spatial);
    for (const int64_t value : values) {
      if (value < least) refuse(CUDNN_STATUS_BAD_PARAM, "{} of {}", what, value);
    }
    return std::array{values[0], values[1]};
  };
  d.window = {take(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, "paddings before", 0),
              take(CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, "paddings after", 0),
              take(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, "strides", 1),
              take(CUDNN_ATTR_CONVOLUTION_DILATIONS, "dilations", 1)};
}

std::string shape(const Tensor& t) {
  return fmt::format("({}, {}, {}, {})", t.dims[0], t.dims[1], t.dims[2], t.dims[3]);
}

void check_shapes(const Operation& op) {
  const auto &x = op.x.dims, &w = op.w.dims, &y = op.y.dims;
  const std::string text = fmt::format("x {}, w {}, y {}: ", shape(op.x), shape(op.w), shape(op.y));
  if (x[1] % w[1] != 0) refuse(CUDNN_STATUS_BAD_PARAM, "{}the filters' channels do not divide the input's", text);
  if (w[0] % op.groups() != 0)
    refuse(CUDNN_STATUS_BAD_PARAM, "{}{} groups do not divide the filters", text, op.groups());
  if (y[0] != x[0] || y[1] != w[0]) {
    refuse(CUDNN_STATUS_BAD_PARAM, "{}y must have {} images of {} channels", text, x[0], w[0]);
  }
  for (size_t i = 0; i < 2; ++i) {
    const Window& window = op.window;
    const int64_t covered = (w[i + 2] - 1) * window.dilations[i] + 1;
    const int64_t padded = window.before[i] + x[i + 2] + window.after[i];
    const int64_t expected = padded < covered ? 0 : (padded - covered) / window.strides[i] + 1;
    if (y[i + 2] != expected) {
      refuse(CUDNN_STATUS_BAD_PARAM, "{}y must have {} {}", text, expected, i == 0 ? "rows" : "columns");
    }
  }
}

void finalize_operation(Descriptor& d, Pass pass, Name alpha, Name beta, Name window, Name x, Name w, Name y) {
  d.operation = {pass,
                 d.child(x).tensor,
                 d.child(w).tensor,
                 d.child(y).tensor,
                 d.child(window).window,
                 d.one<float>(alpha),
                 d.one<float>(beta)};
  const Operation& op = d.operation;
  if (op.x.id == op.w.id || op.x.id == op.y.id || op.w.id == op.y.id) {
    refuse(CUDNN_STATUS_BAD_PARAM_DUPLICATED_ENTRIES, "the tensors' identifiers are {}, {} and {}", op.x.id, op.w.id,
           op.y.id);
  }
  check_shapes(op);
}

void finalize_graph(Descriptor& d) {
  const auto& operations = d.values.at(CUDNN_ATTR_OPERATIONGRAPH_OPS).descriptors;
  if (operations.size() != 1)
    refuse(CUDNN_STATUS_NOT_SUPPORTED_GRAPH_PATTERN, "the double knows one operation a graph");
  const auto type = operations[0]->type;
  if (type != CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR &&
      type != CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR &&
      type != CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR) {
    refuse(CUDNN_STATUS_BAD_PARAM_DESCRIPTOR_TYPE, "a descriptor of type {} is no operation", static_cast<int>(type));
  }
  d.operation = operations[0]->operation;
}

void set_result(Descriptor& d, Name name, cudnnBackendAttributeType_t type, const void* elements, size_t count) {
  const auto* bytes = static_cast<const std::byte*>(elements);
  d.values[name] = {type, static_cast<int64_t>(count), {bytes, bytes + count * element_bytes(type)}, {}};
}

void set_child(Descriptor& d, Name name, Reference child) {
  d.values[name] = {CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, {}, {std::move(child)}};
}

void finalize_engine(Descriptor& d) {
  d.operation = d.child(CUDNN_ATTR_ENGINE_OPERATION_GRAPH).operation;
  d.engine = engine_of(d.operation, d.one<int64_t>(CUDNN_ATTR_ENGINE_GLOBAL_INDEX));
  set_result(d, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE, d.engine.notes.data(),
             d.engine.notes.size());
  set_result(d, CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE, CUDNN_TYPE_BEHAVIOR_NOTE, nullptr, 0);
}

void finalize_configuration(Descriptor& d) {
  const Descriptor& engine = d.child(CUDNN_ATTR_ENGINECFG_ENGINE);
  d.operation = engine.operation;
  d.engine = engine.engine;
}

void finalize_heuristics(Descriptor& d) {
  const Descriptor& graph = d.child(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH);
  if (!graph.has(CUDNN_ATTR_OPERATIONGRAPH_HANDLE) && !d.has(CUDNN_ATTR_ENGINEHEUR_DEVICEPROP)) {
    refuse(CUDNN_STATUS_BAD_PARAM, "nothing says for which device: neither the graph's handle nor device properties");
  }
  const auto mode = d.one<cudnnBackendHeurMode_t>(CUDNN_ATTR_ENGINEHEUR_MODE);
  const Operation& op = graph.operation;
  const auto& [in, other] = op.pass == Pass::forward         ? std::pair(op.x, op.w)
                            : op.pass == Pass::backward_data ? std::pair(op.y, op.w)
                                                             : std::pair(op.x, op.y);
  if (in.type != other.type || (op.output().type != in.type && op.output().type != CUDNN_DATA_FLOAT)) {
    refuse(CUDNN_STATUS_NOT_SUPPORTED_DATA_TYPE, "no engine takes {} and {} and gives {}", name_of(in.type),
           name_of(other.type), name_of(op.output().type));
  }
  Value results = {CUDNN_TYPE_BACKEND_DESCRIPTOR, 0, {}, {}};
  for (const int64_t index : recommended(op, mode)) {
    const auto engine = std::make_shared<Descriptor>(Descriptor{.type = CUDNN_BACKEND_ENGINE_DESCRIPTOR});
    set_child(*engine, CUDNN_ATTR_ENGINE_OPERATION_GRAPH,
              d.values.at(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH).descriptors[0]);
    set_result(*engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, &index, 1);
    finalize(*engine);
    const auto configuration = std::make_shared<Descriptor>(Descriptor{.type = CUDNN_BACKEND_ENGINECFG_DESCRIPTOR});
    set_child(*configuration, CUDNN_ATTR_ENGINECFG_ENGINE, engine);
    finalize(*configuration);
    results.descriptors.push_back(configuration);
  }
  results.count = static_cast<int64_t>(results.descriptors.size());
  d.values[CUDNN_ATTR_ENGINEHEUR_RESULTS] = std::move(results);
}

void finalize_plan(Descriptor& d) {
  if (!d.has(CUDNN_ATTR_EXECUTION_PLAN_HANDLE) && !d.has(CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP)) {
    refuse(CUDNN_STATUS_BAD_PARAM, "nothing says for which device: neither a handle nor device properties");
  }
  const Descriptor& configuration = d.child(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG);
  d.operation = configuration.operation;
  d.engine = configuration.engine;
  if (d.engine.refuses) refuse(CUDNN_STATUS_NOT_SUPPORTED, "engine {} cannot do this after all", d.engine.index);
  const auto bytes = static_cast<int64_t>(workspace_bytes(d.operation, d.engine));
  set_result(d, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, &bytes, 1);
}

void finalize_pack(Descriptor& d) {
  const auto ids = d.all<int64_t>(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS);
  const auto pointers = d.all<void*>(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS);
  if (ids.size() != pointers.size()) {
    refuse(CUDNN_STATUS_BAD_PARAM, "{} identifiers and {} pointers", ids.size(), pointers.size());
  }
  for (size_t i = 0; i < ids.size(); ++i) {
    if (std::ranges::count(ids, ids[i]) > 1) {
      refuse(CUDNN_STATUS_BAD_PARAM_DUPLICATED_ENTRIES, "identifier {} comes twice", ids[i]);
    }
  }
}

void finalize_device(Descriptor& d) {
  if (d.values.size() != 1)
    refuse(CUDNN_STATUS_BAD_PARAM, "the device is described {} times, not once", d.values.size());
  if (!d.has(CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION)) return;
  const auto text = d.all<char>(CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION);
  if (text.back() != '\0' || text.front() != '{')
    refuse(CUDNN_STATUS_BAD_PARAM, "no JSON object that ends with a null");
}

}  // namespace

size_t Tensor::bytes() const {
  int64_t last = 0;
  for (size_t i = 0; i < 4; ++i) last += (dims[i] - 1) * strides[i];
  return static_cast<size_t>((last + 1) * size_of(type));
}

Engine engine_of(const Operation& op, int64_t index) {
  const bool f32 = (op.pass == Pass::forward ? op.x : op.y).type == CUDNN_DATA_FLOAT;
  const auto tensor_cores = CUDNN_NUMERICAL_NOTE_TENSOR_CORE;
  const std::vector<cudnnBackendNumericalNote_t> plain =
      f32 ? std::vector<cudnnBackendNumericalNote_t>{} : std::vector{tensor_cores};
  switch (index) {
    case 0:
      return {.index = index, .notes = {CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC}, .noise = true};
    case 1:  // tf32, or sums in the type of the inputs; neither is what f32 arithmetic means
      if (f32) {
        return {.index = index, .notes = {tensor_cores, CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS}, .input_bits = 11};
      }
      return {
          .index = index, .notes = {tensor_cores, CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION}, .result_bits = 5};
    case 2:
      return {.index = index, .notes = plain, .refuses = true};
    case 3:
    case 4:
      return {.index = index, .notes = plain};
    default:
      refuse(CUDNN_STATUS_BAD_PARAM, "there is no engine {}", index);
  }
}

std::vector<int64_t> recommended(const Operation& op, cudnnBackendHeurMode_t mode) {
  if (mode == CUDNN_HEUR_MODE_FALLBACK) return {4};
  if (op.groups() > 1) return {0, 1, 2};  // nothing that a careful caller takes
  return {0, 1, 2, 3};
}

size_t workspace_bytes(const Operation& op, const Engine& engine) {
  return static_cast<size_t>(64 * (engine.index + 1) +
                             4 * op.y.dims[0] * op.y.dims[3] * op.w.dims[1] * op.w.dims[2] * op.w.dims[3]);
}

void finalize(Descriptor& d) {
  if (d.finalized) refuse(CUDNN_STATUS_BAD_PARAM, "the descriptor is finalised already");
  for (const Attribute& attribute : attributes_of(d.type)) {
    if (attribute.use == Use::required && !d.has(attribute.name)) {
      refuse(CUDNN_STATUS_BAD_PARAM, "attribute {} was not set", static_cast<int>(attribute.name));
    }
  }
  switch (d.type) {
    case CUDNN_BACKEND_TENSOR_DESCRIPTOR:
      finalize_tensor(d);
      break;
    case CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR:
      finalize_window(d);
      break;
#define SCALES_AND_TENSORS(PASS, X, W, Y)                                                                 \
  CUDNN_ATTR_OPERATION_CONVOLUTION_##PASS##_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_##PASS##_BETA,        \
      CUDNN_ATTR_OPERATION_CONVOLUTION_##PASS##_CONV_DESC, CUDNN_ATTR_OPERATION_CONVOLUTION_##PASS##_##X, \
      CUDNN_ATTR_OPERATION_CONVOLUTION_##PASS##_##W, CUDNN_ATTR_OPERATION_CONVOLUTION_##PASS##_##Y
    case CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR:
      finalize_operation(d, Pass::forward, SCALES_AND_TENSORS(FORWARD, X, W, Y));
      break;
    case CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR:
      finalize_operation(d, Pass::backward_data, SCALES_AND_TENSORS(BWD_DATA, DX, W, DY));
      break;
    case CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR:
      finalize_operation(d, Pass::backward_filter, SCALES_AND_TENSORS(BWD_FILTER, X, DW, DY));
      break;
#undef SCALES_AND_TENSORS
    case CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR:
      finalize_graph(d);
      break;
    case CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR:
      finalize_heuristics(d);
      break;
    case CUDNN_BACKEND_ENGINECFG_DESCRIPTOR:
      finalize_configuration(d);
      break;
    case CUDNN_BACKEND_ENGINE_DESCRIPTOR:
      finalize_engine(d);
      break;
    case CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR:
      finalize_plan(d);
      break;
    case CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR:
      finalize_pack(d);
      break;
    default:
      finalize_device(d);
  }
  d.finalized = true;
}

}  // namespace cuda_doubles::cudnn
