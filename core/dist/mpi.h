#pragma once

#include <saccade/core/dist/communicator.h>

#include <chrono>

namespace saccade::dist {

/// MPI's processes. MPI is left when the last communicator of it is gone. Throws Error in a build without MPI.
/// @param limit  see world()
std::unique_ptr<Communicator> mpi_world(std::chrono::duration<double> limit);

}  // namespace saccade::dist
