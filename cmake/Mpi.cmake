# saccade::mpi: what joins processes on CPUs. Needed here, and by every project that links an installed Saccade with MPI.
# By pkg-config: CMake's own module wants the C language to be enabled.
find_package(PkgConfig REQUIRED)
foreach(saccade_name mpi-c ompi-c mpich)
  if(NOT TARGET saccade::mpi)
    pkg_check_modules(SACCADE_MPI_${saccade_name} QUIET IMPORTED_TARGET GLOBAL ${saccade_name})
    if(SACCADE_MPI_${saccade_name}_FOUND)
      add_library(saccade::mpi INTERFACE IMPORTED)
      target_link_libraries(saccade::mpi INTERFACE PkgConfig::SACCADE_MPI_${saccade_name})
    endif()
  endif()
endforeach()
