/// Where no MPI was found when this was built.
#include <saccade/core/dist/launched.h>
#include <saccade/core/dist/mpi.h>
#include <saccade/kernels/error.h>

namespace saccade::dist {

std::unique_ptr<Communicator> mpi_world(std::chrono::duration<double>) { throw Error("this build has no MPI"); }
std::string mpi_version() { return ""; }

}  // namespace saccade::dist
