#include "cudnn_descriptors.h"

// Which attributes there are, of which type and how many elements, by the documentation of the descriptor types.
namespace cuda_doubles::cudnn {
namespace {

constexpr auto descriptor = CUDNN_TYPE_BACKEND_DESCRIPTOR;
constexpr auto tensor = CUDNN_BACKEND_TENSOR_DESCRIPTOR;

constexpr Attribute tensors[] = {
    {CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, 1, Use::required},
    {CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, 1, Use::required},
    {CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, 1, Use::required},
    {CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 1, CUDNN_DIM_MAX, Use::required},
    {CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 1, CUDNN_DIM_MAX, Use::required},
    {CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, 1, Use::optional},
    {CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_TYPE_BOOLEAN, 1, 1, Use::optional},
};

constexpr Attribute convolutions[] = {
    {CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, 1, Use::required},
    {CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, 1, Use::required},
    {CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, 1, 1, Use::required},
    {CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, 1, CUDNN_DIM_MAX, Use::required},
    {CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, 1, CUDNN_DIM_MAX, Use::required},
    {CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, 1, CUDNN_DIM_MAX, Use::required},
    {CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, 1, CUDNN_DIM_MAX, Use::required},
};

// With arithmetic in f32 the scales are f32.
constexpr Attribute forward[] = {
    {CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, CUDNN_TYPE_FLOAT, 1, 1, Use::required},
    {CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA, CUDNN_TYPE_FLOAT, 1, 1, Use::required},
    {CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, descriptor, 1, 1, Use::required,
     CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR},
    {CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, descriptor, 1, 1, Use::required, tensor},
    {CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W, descriptor, 1, 1, Use::required, tensor},
    {CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, descriptor, 1, 1, Use::required, tensor},
};

constexpr Attribute backward_data[] = {
    {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA, CUDNN_TYPE_FLOAT, 1, 1, Use::required},
    {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA, CUDNN_TYPE_FLOAT, 1, 1, Use::required},
    {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC, descriptor, 1, 1, Use::required,
     CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR},
    {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX, descriptor, 1, 1, Use::required, tensor},
    {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W, descriptor, 1, 1, Use::required, tensor},
    {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY, descriptor, 1, 1, Use::required, tensor},
};

constexpr Attribute backward_filter[] = {
    {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA, CUDNN_TYPE_FLOAT, 1, 1, Use::required},
    {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA, CUDNN_TYPE_FLOAT, 1, 1, Use::required},
    {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC, descriptor, 1, 1, Use::required,
     CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR},
    {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X, descriptor, 1, 1, Use::required, tensor},
    {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW, descriptor, 1, 1, Use::required, tensor},
    {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY, descriptor, 1, 1, Use::required, tensor},
};

constexpr auto device = CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR;

// Newer versions deprecate the handle here and in plans, older ones require it.
constexpr Attribute graphs[] = {
    {CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, 1, Use::optional},
    {CUDNN_ATTR_OPERATIONGRAPH_OPS, descriptor, 1, 1 << 20, Use::required},
};

constexpr Attribute heuristics[] = {
    {CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, descriptor, 1, 1, Use::required, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR},
    {CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, 1, Use::required},
    {CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, descriptor, 1, 1, Use::optional, device},
    {CUDNN_ATTR_ENGINEHEUR_RESULTS, descriptor, 0, 0, Use::result, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR},
};

constexpr Attribute configurations[] = {
    {CUDNN_ATTR_ENGINECFG_ENGINE, descriptor, 1, 1, Use::required, CUDNN_BACKEND_ENGINE_DESCRIPTOR},
};

constexpr Attribute engines[] = {
    {CUDNN_ATTR_ENGINE_OPERATION_GRAPH, descriptor, 1, 1, Use::required, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR},
    {CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1, 1, Use::required},
    {CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE, 0, 0, Use::result},
    {CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE, CUDNN_TYPE_BEHAVIOR_NOTE, 0, 0, Use::result},
};

constexpr Attribute plans[] = {
    {CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, 1, Use::optional},
    {CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, descriptor, 1, 1, Use::required, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR},
    {CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, descriptor, 1, 1, Use::optional, device},
    {CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, 1, Use::result},
};

constexpr Attribute packs[] = {
    {CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, 1, 1 << 20, Use::required},
    {CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, 1, 1 << 20, Use::required},
    {CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, 1, Use::required},
};

constexpr Attribute devices[] = {
    {CUDNN_ATTR_DEVICEPROP_HANDLE, CUDNN_TYPE_HANDLE, 1, 1, Use::optional},
    {CUDNN_ATTR_DEVICEPROP_DEVICE_ID, CUDNN_TYPE_INT32, 1, 1, Use::optional},
    {CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, 2, 1 << 20, Use::optional},
};

}  // namespace

std::span<const Attribute> attributes_of(int type) {
  switch (type) {
    case CUDNN_BACKEND_TENSOR_DESCRIPTOR:
      return tensors;
    case CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR:
      return convolutions;
    case CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR:
      return forward;
    case CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR:
      return backward_data;
    case CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR:
      return backward_filter;
    case CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR:
      return graphs;
    case CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR:
      return heuristics;
    case CUDNN_BACKEND_ENGINECFG_DESCRIPTOR:
      return configurations;
    case CUDNN_BACKEND_ENGINE_DESCRIPTOR:
      return engines;
    case CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR:
      return plans;
    case CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR:
      return packs;
    case CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR:
      return devices;
    default:
      refuse(CUDNN_STATUS_NOT_SUPPORTED, "the double does not know descriptors of type {}", type);
  }
}

size_t element_bytes(cudnnBackendAttributeType_t type) {
  switch (type) {
    case CUDNN_TYPE_BOOLEAN:
    case CUDNN_TYPE_CHAR:
      return 1;
    case CUDNN_TYPE_HANDLE:
    case CUDNN_TYPE_INT64:
    case CUDNN_TYPE_VOID_PTR:
    case CUDNN_TYPE_BACKEND_DESCRIPTOR:
      return 8;
    default:  // f32, int32, enumerations
      return 4;
  }
}

}  // namespace cuda_doubles::cudnn
