#pragma once

#include <saccade/kernels/conv.h>
#include <saccade/kernels/matmul.h>

#include <functional>
#include <memory>
#include <mutex>
#include <oneapi/dnnl/dnnl.hpp>
#include <unordered_map>

/// What our convolutions and matrix products need of oneDNN. Private to kernels/cpu.
namespace saccade::kernels::cpu::onednn {

/// The CPU engine. The first use caps oneDNN at cpu_isa().
dnnl::engine& engine();

/// A stream of the calling thread (work runs synchronously on it).
dnnl::stream& stream();

/// f32 always, bf16 where the processor has AVX512_BF16 (elsewhere oneDNN refuses or emulates it). What it does not
/// compute in needs copies in f32.
bool computes_in(DType dtype);

/// Of a type it computes in.
dnnl::memory::data_type type_of(DType dtype);

/// Primitives take their scratch memory from the caller.
dnnl::primitive_attr user_scratchpad();

/// A memory object over the caller's bytes.
dnnl::memory at(const dnnl::memory::desc& desc, const void* bytes);

/// Runs oneDNN calls; its exceptions become an Error: "<what>: oneDNN says ...".
[[noreturn]] void rethrow(const dnnl::error& error, const std::string& what);

/// A planned matrix product: how much scratch it needs and what runs it (bias null unless planned with one).
struct MatMulPlan {
  size_t workspace = 0;
  std::function<void(const void* a, const void* b, const void* bias, void* c, void* workspace)> run;
};

/// Cached by shape, presence of a bias and number of threads. Thread-safe.
const MatMulPlan& matmul_plan(const MatMul& shape, bool bias);

/// Mixes the fields of a cache key.
struct KeyHash {
  size_t value = 0xcbf29ce484222325u;
  KeyHash& operator()(int64_t field) {
    value = (value ^ static_cast<uint64_t>(field)) * 0x9e3779b97f4a7c15u;
    value ^= value >> 29;
    return *this;
  }
};

/// Plans by key, made at the first use and kept for the life of the process.
template <class Key, class Plan, class Hash>
class PlanCache {
 public:
  template <class Make>
  const Plan& get(const Key& key, Make make) {
    std::lock_guard lock(mutex_);
    auto& slot = plans_[key];
    if (!slot) slot = std::make_unique<Plan>(make());
    return *slot;
  }

 private:
  std::mutex mutex_;
  std::unordered_map<Key, std::unique_ptr<Plan>, Hash> plans_;
};

}  // namespace saccade::kernels::cpu::onednn
