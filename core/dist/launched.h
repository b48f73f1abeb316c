#pragma once

#include <saccade/core/dist/communicator.h>

#include <chrono>
#include <memory>
#include <string>

namespace saccade::dist {

/// This process's place among those that were started together.
struct Launched {
  int rank = 0, size = 1;
  int local_rank = 0, local_size = 1;  ///< among those of the same machine
  std::string by = {};                 ///< what said so: "torchrun", "srun", "mpirun"; empty: nothing did
};

/// As the environment says: RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE (torchrun's names), else what srun sets for
/// a step, else what mpirun sets (OMPI_COMM_WORLD_*, or PMI_* of other MPIs). Throws Error where it contradicts itself.
Launched launched();

/// All processes that were started with this one: on the CPU joined by MPI. One alone where nothing else was said.
/// Throws Error with what to do where they cannot be joined: without MPI, without mpirun, on a GPU.
/// @param limit  how long a process may keep the others waiting, anywhere but in a barrier: then the exchange throws
/// Error,
///               which names those that do not answer. 0: for ever
std::unique_ptr<Communicator> world(Device device, std::chrono::duration<double> limit = std::chrono::minutes(10));

/// What world() joins by: "Open MPI 4.1.4", empty where the library was built without MPI.
std::string mpi_version();

}  // namespace saccade::dist
