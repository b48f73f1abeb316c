# Every outside package in one place. Debian names: see ./dev.
include(LinkedPackages)

# Headers only, used inside our sources: programs that link the installed library do without them.
find_package(nlohmann_json REQUIRED)
find_package(Eigen3 REQUIRED NO_MODULE)

option(SACCADE_MPI "Join processes on CPUs where an MPI is found" ON)
set(SACCADE_MPI_FOUND FALSE)
if(SACCADE_MPI)
  include(Mpi)
  if(TARGET saccade::mpi)
    set(SACCADE_MPI_FOUND TRUE)
  else()
    message(STATUS "No MPI was found: a training is one process")
  endif()
endif()
