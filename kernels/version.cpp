#include <fmt/format.h>
#include <saccade/kernels/backend.h>
#include <saccade/kernels/cuda_device.h>
#include <saccade/kernels/version.h>

#include <oneapi/dnnl/dnnl.hpp>

namespace saccade {

std::string_view version() { return SACCADE_VERSION; }

std::string build_and_machine() {
  const kernels::CudaStatus cuda = kernels::cuda_status();
  const dnnl::version_t& onednn = *dnnl::version();
  return fmt::format("CPU: {}, {} threads\nCUDA: {}\noneDNN: {}.{}.{}\ncompiler: {} {}\n",
                     kernels::name_of(kernels::cpu_isa()), kernels::cpu_threads(),
                     cuda.devices > 0 ? fmt::format("{} devices", cuda.devices) : "no (" + cuda.why_none + ")",
                     onednn.major, onednn.minor, onednn.patch,
#ifdef __clang__
                     "clang",
#else
                     "g++",
#endif
                     __VERSION__);
}

}  // namespace saccade
