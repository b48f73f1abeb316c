#include <saccade/kernels/backend.h>

#include <cstdlib>

/// In place of the kernels, which parsers never reach.
namespace saccade::kernels {

Backend& backend(Device) { std::abort(); }

}  // namespace saccade::kernels
