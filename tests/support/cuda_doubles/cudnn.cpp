#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

#include "cudnn_descriptors.h"

// The calls: handles, descriptors, their attributes, execution.
namespace cuda_doubles {
namespace cudnn {
namespace {

struct Handle {
  cudaStream_t stream = nullptr;
  bool stream_set = false;
};
struct Objects {
  std::map<const void*, Handle> handles;
  std::map<const void*, Reference> descriptors;
};
Objects& objects() {
  static Objects& objects = *new Objects;
  return objects;
}

thread_local std::string last_error;

/// That something is not supported breaks no contract: the caller looks for something else.
template <class Body>
cudnnStatus_t call(const char* function, Body body) {
  last_error.clear();
  return guarded<cudnnStatus_t>(function, [&] {
    try {
      body();
    } catch (Refusal& refusal) {
      last_error = refusal.sentence;
      if (CUDNN_STATUS_CATEGORY(refusal.code) == CUDNN_STATUS_NOT_SUPPORTED) refusal.sentence.clear();
      throw;
    }
  });
}

Handle& handle_of(cudnnHandle_t handle) {
  const auto found = objects().handles.find(handle);
  if (found == objects().handles.end()) {
    refuse(CUDNN_STATUS_BAD_PARAM, "{} is no cuDNN handle, or was destroyed", static_cast<void*>(handle));
  }
  return found->second;
}

Reference descriptor_of(cudnnBackendDescriptor_t descriptor) {
  const auto found = objects().descriptors.find(descriptor);
  if (found == objects().descriptors.end()) {
    refuse(CUDNN_STATUS_BAD_PARAM, "{} is no descriptor, or was destroyed", descriptor);
  }
  return found->second;
}

const Attribute& attribute_of(const Descriptor& d, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type) {
  for (const Attribute& attribute : attributes_of(d.type)) {
    if (attribute.name != name) continue;
    if (attribute.type != type) {
      refuse(CUDNN_STATUS_BAD_PARAM_ATTRIBUTE_TYPE, "attribute {} has type {}, got {}", static_cast<int>(name),
             static_cast<int>(attribute.type), static_cast<int>(type));
    }
    return attribute;
  }
  refuse(CUDNN_STATUS_BAD_PARAM, "descriptors of type {} have no attribute {} in the double", static_cast<int>(d.type),
         static_cast<int>(name));
}

/// Numbers of an enumeration, handles: whatever can be wrong in itself.
void check_elements(cudnnBackendAttributeType_t type, int64_t count, const void* elements) {
  const auto check = [&](int most) {
    for (int64_t i = 0; i < count; ++i) {
      const int value = static_cast<const int*>(elements)[i];
      if (value < 0 || value > most)
        refuse(CUDNN_STATUS_BAD_PARAM, "{} is no value of type {}", value, static_cast<int>(type));
    }
  };
  if (type == CUDNN_TYPE_DATA_TYPE) check(CUDNN_DATA_COMPLEX_FP64);
  if (type == CUDNN_TYPE_CONVOLUTION_MODE) check(CUDNN_CROSS_CORRELATION);
  if (type == CUDNN_TYPE_HEUR_MODE) check(CUDNN_HEUR_MODES_COUNT - 1);
  if (type == CUDNN_TYPE_HANDLE) {
    if (!*static_cast<const cudnnHandle_t*>(elements))
      refuse(CUDNN_STATUS_BAD_PARAM_NULL_POINTER, "the handle is null");
    handle_of(*static_cast<const cudnnHandle_t*>(elements));
  }
}

void set(Descriptor& d, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, int64_t count,
         const void* elements) {
  if (d.finalized) refuse(CUDNN_STATUS_BAD_PARAM, "the descriptor is finalised already");
  const Attribute& attribute = attribute_of(d, name, type);
  if (attribute.use == Use::result)
    refuse(CUDNN_STATUS_BAD_PARAM, "attribute {} is not settable", static_cast<int>(name));
  if (count < attribute.least || count > attribute.most) {
    refuse(CUDNN_STATUS_BAD_PARAM, "attribute {} has {} to {} elements, got {}", static_cast<int>(name),
           attribute.least, attribute.most, count);
  }
  if (!elements) refuse(CUDNN_STATUS_BAD_PARAM, "no elements for attribute {}", static_cast<int>(name));
  check_elements(type, count, elements);
  Value value = {type, count, {}, {}};
  if (type == CUDNN_TYPE_BACKEND_DESCRIPTOR) {
    for (int64_t i = 0; i < count; ++i) {
      const Reference child = descriptor_of(static_cast<const cudnnBackendDescriptor_t*>(elements)[i]);
      if (attribute.holds >= 0 && child->type != attribute.holds) {
        refuse(CUDNN_STATUS_BAD_PARAM_DESCRIPTOR_TYPE, "attribute {} takes descriptors of type {}, got {}",
               static_cast<int>(name), attribute.holds, static_cast<int>(child->type));
      }
      if (!child->finalized) {
        refuse(CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED, "the descriptor for attribute {} is not finalised",
               static_cast<int>(name));
      }
      value.descriptors.push_back(child);
    }
  } else {
    const auto* bytes = static_cast<const std::byte*>(elements);
    value.bytes.assign(bytes, bytes + static_cast<size_t>(count) * element_bytes(type));
  }
  d.values[name] = std::move(value);
}

/// Into descriptors that the caller made.
void give(const Value& value, const Attribute& attribute, int64_t count, const void* elements) {
  for (int64_t i = 0; i < count; ++i) {
    Descriptor& to = *descriptor_of(static_cast<const cudnnBackendDescriptor_t*>(elements)[i]);
    const Descriptor& from = *value.descriptors[static_cast<size_t>(i)];
    if (to.type != from.type) {
      refuse(CUDNN_STATUS_BAD_PARAM_DESCRIPTOR_TYPE, "attribute {} gives descriptors of type {}, {} is of type {}",
             static_cast<int>(attribute.name), static_cast<int>(from.type), i, static_cast<int>(to.type));
    }
    if (to.finalized) refuse(CUDNN_STATUS_BAD_PARAM, "descriptor {} to be filled is finalised already", i);
    to = from;
  }
}

void get(const Descriptor& d, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, int64_t requested,
         int64_t* count, void* elements) {
  if (!d.finalized) refuse(CUDNN_STATUS_NOT_INITIALIZED, "the descriptor is not finalised");
  const Attribute& attribute = attribute_of(d, name, type);
  if (requested < 0) refuse(CUDNN_STATUS_BAD_PARAM, "{} elements of attribute {}", requested, static_cast<int>(name));
  if (!d.has(name)) refuse(CUDNN_STATUS_BAD_PARAM, "attribute {} was not set", static_cast<int>(name));
  const Value& value = d.values.at(name);
  if (requested == 0) {
    if (!count) refuse(CUDNN_STATUS_BAD_PARAM_NULL_POINTER, "no place for the number of elements");
    *count = value.count;
    return;
  }
  if (!elements) refuse(CUDNN_STATUS_BAD_PARAM, "no place for elements of attribute {}", static_cast<int>(name));
  const int64_t given = std::min(requested, value.count);
  if (type == CUDNN_TYPE_BACKEND_DESCRIPTOR) {
    give(value, attribute, given, elements);
  } else if (given > 0) {
    std::memcpy(elements, value.bytes.data(), static_cast<size_t>(given) * element_bytes(type));
  }
  if (count) *count = given;
}

struct Part {
  std::string name;
  void* address;
  size_t bytes;
};

bool overlap(const Part& x, const Part& y) {
  const auto *at_x = static_cast<const char*>(x.address), *at_y = static_cast<const char*>(y.address);
  return at_x < at_y + y.bytes && at_y < at_x + x.bytes;
}

void check_part(const Part& part, int64_t alignment) {
  if (!part.address) refuse(CUDNN_STATUS_BAD_PARAM_NULL_POINTER, "{} is null", part.name);
  if (!is_device_address(part.address)) {
    refuse(CUDNN_STATUS_BAD_PARAM, "{} at {} is not the device's memory", part.name, part.address);
  }
  if (reinterpret_cast<uintptr_t>(part.address) % static_cast<uintptr_t>(alignment) != 0) {
    refuse(CUDNN_STATUS_BAD_PARAM_MISALIGNED_POINTER, "{} at {} is not aligned to {} bytes, as was promised", part.name,
           part.address, alignment);
  }
}

}  // namespace

void execute(cudaStream_t stream, const Descriptor& plan, const Descriptor& pack) {
  const auto ids = pack.all<int64_t>(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS);
  const auto pointers = pack.all<void*>(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS);
  const Operation& op = plan.operation;
  if (ids.size() > 3) refuse(CUDNN_STATUS_BAD_PARAM, "{} tensors in the variant pack, the plan has 3", ids.size());
  std::vector<Part> parts;
  for (const Tensor* t : {&op.x, &op.w, &op.y}) {
    const auto found = std::ranges::find(ids, t->id);
    if (found == ids.end()) refuse(CUDNN_STATUS_BAD_PARAM, "tensor {} is not in the variant pack", t->id);
    parts.push_back({fmt::format("tensor {}", t->id), pointers[static_cast<size_t>(found - ids.begin())], t->bytes()});
    check_part(parts.back(), t->alignment);
  }
  parts.push_back({"the workspace", pack.one<void*>(CUDNN_ATTR_VARIANT_PACK_WORKSPACE),
                   static_cast<size_t>(plan.one<int64_t>(CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE))});
  check_part(parts[3], 256);  // as whatever cudaMalloc gives
  const size_t output = op.pass == Pass::forward ? 2 : op.pass == Pass::backward_data ? 0 : 1;
  for (const size_t written : {output, size_t{3}}) {
    for (size_t i = 0; i < parts.size(); ++i) {
      if (i != written && overlap(parts[i], parts[written])) {
        refuse(CUDNN_STATUS_BAD_PARAM, "{} and {} overlap", parts[written].name, parts[i].name);
      }
    }
  }
  const auto work = [op, engine = plan.engine, parts] {
    for (const Part& part : parts) require_readable(part.address, part.bytes, part.name.c_str());
    std::memset(parts[3].address, 0xff, parts[3].bytes);  // NaN, to whoever counted on it
    convolve(op, engine, parts[0].address, parts[1].address, parts[2].address);
  };
  if (!enqueue(stream, work, "cudnnBackendExecute")) {
    refuse(CUDNN_STATUS_EXECUTION_FAILED_CUDART, "the handle's stream takes nothing: {}", last_complaint());
  }
}

}  // namespace cudnn

void reset_cudnn() { cudnn::objects() = {}; }

}  // namespace cuda_doubles

using namespace cuda_doubles;
using namespace cuda_doubles::cudnn;

cudnnStatus_t cudnnCreate(cudnnHandle_t* handle) {
  return call("cudnnCreate", [=] {
    if (!handle) refuse(CUDNN_STATUS_BAD_PARAM, "no place for the handle");
    if (options().devices == 0) throw Refusal{CUDNN_STATUS_NOT_INITIALIZED};
    *handle = static_cast<cudnnHandle_t>(new_handle());
    objects().handles[*handle] = {};
    ++live_cudnn();
  });
}

cudnnStatus_t cudnnDestroy(cudnnHandle_t handle) {
  return call("cudnnDestroy", [=] {
    if (!handle) return;
    handle_of(handle);
    objects().handles.erase(handle);
    --live_cudnn();
  });
}

cudnnStatus_t cudnnSetStream(cudnnHandle_t handle, cudaStream_t stream) {
  return call("cudnnSetStream", [=] {
    Handle& h = handle_of(handle);
    if (!is_stream(stream)) {
      refuse(CUDNN_STATUS_BAD_PARAM, "{} is no stream, or was destroyed", static_cast<void*>(stream));
    }
    h = {stream, true};
  });
}

size_t cudnnGetVersion() { return CUDNN_VERSION; }

const char* cudnnGetErrorString(cudnnStatus_t status) {
#define NAMED(name) \
  case name:        \
    return #name;
  switch (static_cast<int>(status)) {
    NAMED(CUDNN_STATUS_SUCCESS)
    NAMED(CUDNN_STATUS_NOT_INITIALIZED)
    NAMED(CUDNN_STATUS_BAD_PARAM)
    NAMED(CUDNN_STATUS_BAD_PARAM_NULL_POINTER)
    NAMED(CUDNN_STATUS_BAD_PARAM_MISALIGNED_POINTER)
    NAMED(CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED)
    NAMED(CUDNN_STATUS_BAD_PARAM_DUPLICATED_ENTRIES)
    NAMED(CUDNN_STATUS_BAD_PARAM_ATTRIBUTE_TYPE)
    NAMED(CUDNN_STATUS_BAD_PARAM_DESCRIPTOR_TYPE)
    NAMED(CUDNN_STATUS_NOT_SUPPORTED)
    NAMED(CUDNN_STATUS_NOT_SUPPORTED_GRAPH_PATTERN)
    NAMED(CUDNN_STATUS_NOT_SUPPORTED_SHAPE)
    NAMED(CUDNN_STATUS_NOT_SUPPORTED_DATA_TYPE)
    NAMED(CUDNN_STATUS_INTERNAL_ERROR)
    NAMED(CUDNN_STATUS_EXECUTION_FAILED)
    NAMED(CUDNN_STATUS_EXECUTION_FAILED_CUDART)
    default:
      return "a status that the double never returns by itself";
  }
#undef NAMED
}

void cudnnGetLastErrorString(char* message, size_t max_size) {
  if (!message || max_size == 0) return;
  const size_t length = std::min(last_error.size(), max_size - 1);
  std::memcpy(message, last_error.data(), length);
  message[length] = '\0';
  last_error.clear();
}

cudnnStatus_t cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t type, cudnnBackendDescriptor_t* descriptor) {
  return call("cudnnBackendCreateDescriptor", [=] {
    attributes_of(type);
    if (!descriptor) refuse(CUDNN_STATUS_BAD_PARAM_NULL_POINTER, "no place for the descriptor");
    *descriptor = new_handle();
    objects().descriptors[*descriptor] = std::make_shared<Descriptor>(Descriptor{.type = type});
    ++live_cudnn();
  });
}

cudnnStatus_t cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t descriptor) {
  return call("cudnnBackendDestroyDescriptor", [=] {
    // What was made of it lives on: cuDNN copies what is set.
    descriptor_of(descriptor);
    objects().descriptors.erase(descriptor);
    --live_cudnn();
  });
}

cudnnStatus_t cudnnBackendFinalize(cudnnBackendDescriptor_t descriptor) {
  return call("cudnnBackendFinalize", [=] { finalize(*descriptor_of(descriptor)); });
}

cudnnStatus_t cudnnBackendSetAttribute(cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, int64_t count, const void* elements) {
  return call("cudnnBackendSetAttribute", [=] { cudnn::set(*descriptor_of(descriptor), name, type, count, elements); });
}

cudnnStatus_t cudnnBackendGetAttribute(cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, int64_t requested, int64_t* count,
                                       void* elements) {
  return call("cudnnBackendGetAttribute",
              [=] { cudnn::get(*descriptor_of(descriptor), name, type, requested, count, elements); });
}

cudnnStatus_t cudnnBackendExecute(cudnnHandle_t handle, cudnnBackendDescriptor_t plan, cudnnBackendDescriptor_t pack) {
  return call("cudnnBackendExecute", [=] {
    const Handle& h = handle_of(handle);
    const Reference p = descriptor_of(plan), v = descriptor_of(pack);
    if (p->type != CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR || v->type != CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR) {
      refuse(CUDNN_STATUS_BAD_PARAM_DESCRIPTOR_TYPE, "descriptors of type {} and {}, not a plan and a variant pack",
             static_cast<int>(p->type), static_cast<int>(v->type));
    }
    if (!p->finalized || !v->finalized) {
      refuse(CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED, "the {} is not finalised", p->finalized ? "variant pack" : "plan");
    }
    // Legal, but it is the default stream then, which nobody means who has streams of his own.
    if (!h.stream_set) refuse(CUDNN_STATUS_BAD_PARAM, "cudnnSetStream was never called with this handle");
    execute(h.stream, *p, *v);
  });
}
