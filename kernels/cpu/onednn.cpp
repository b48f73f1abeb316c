#include "onednn.h"

#include <saccade/kernels/backend.h>
#include <saccade/kernels/error.h>

namespace saccade::kernels::cpu::onednn {

dnnl::engine& engine() {
  static dnnl::engine engine = [] {
    cpu_isa();  // its first use caps oneDNN, which must come before anything is made
    return dnnl::engine(dnnl::engine::kind::cpu, 0);
  }();
  return engine;
}

dnnl::stream& stream() {
  thread_local dnnl::stream stream(engine());
  return stream;
}

bool computes_in(DType dtype) {
  static const bool bf16 = cpu_isa() == Isa::avx512 && __builtin_cpu_supports("avx512bf16");
  return dtype == DType::f32 || (dtype == DType::bf16 && bf16);
}

dnnl::memory::data_type type_of(DType dtype) {
  return dtype == DType::bf16 ? dnnl::memory::data_type::bf16 : dnnl::memory::data_type::f32;
}

dnnl::primitive_attr user_scratchpad() {
  dnnl::primitive_attr attr;
  attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  return attr;
}

dnnl::memory at(const dnnl::memory::desc& desc, const void* bytes) {
  return dnnl::memory(desc, engine(), const_cast<void*>(bytes));
}

void rethrow(const dnnl::error& error, const std::string& what) {
  throw Error(what + ": oneDNN says \"" + error.what() + "\" (status " + std::to_string(error.status) + ")");
}

}  // namespace saccade::kernels::cpu::onednn
