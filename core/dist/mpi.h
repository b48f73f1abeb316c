#pragma once

#include <saccade/core/dist/communicator.h>

namespace saccade::dist {

/// MPI's processes. MPI is left when the last communicator of it is gone. Throws Error in a build without MPI.
std::unique_ptr<Communicator> mpi_world();

}  // namespace saccade::dist
