# saccade::cuda: the toolkit's headers and the libraries that the CUDA backend calls. Needed here, and by every project
# that links an installed Saccade with CUDA.
if(SACCADE_NVCC)
  get_filename_component(saccade_nvcc_path ${SACCADE_NVCC} REALPATH)
  set(CUDAToolkit_NVCC_EXECUTABLE ${saccade_nvcc_path})
endif()
# Of a project for CMake 3.25 or later that version's module wants to deprecate a target which CUDA 13 no longer has, and
# fails.
set(saccade_minimum ${CMAKE_MINIMUM_REQUIRED_VERSION})
set(CMAKE_MINIMUM_REQUIRED_VERSION 3.24)
find_package(CUDAToolkit 12.5 QUIET)
set(CMAKE_MINIMUM_REQUIRED_VERSION ${saccade_minimum})
find_path(CUDNN_INCLUDE_DIR cudnn.h HINTS ${CUDAToolkit_INCLUDE_DIRS})
find_library(CUDNN_LIBRARY cudnn HINTS ${CUDAToolkit_LIBRARY_DIR})
# From 9.8 on cuDNN plans for a device that is only described.
set(CUDNN_VERSION 0)
if(EXISTS ${CUDNN_INCLUDE_DIR}/cudnn_version.h)
  file(STRINGS ${CUDNN_INCLUDE_DIR}/cudnn_version.h saccade_cudnn REGEX "#define CUDNN_(MAJOR|MINOR) ")
  string(REGEX REPLACE "[^0-9]*([0-9]+)[^0-9]+([0-9]+).*" "\\1.\\2" CUDNN_VERSION "${saccade_cudnn}")
endif()
if(CUDAToolkit_FOUND AND CUDNN_LIBRARY AND CUDNN_VERSION VERSION_GREATER_EQUAL 9.8 AND NOT TARGET saccade::cuda)
  add_library(saccade::cuda INTERFACE IMPORTED)
  set_target_properties(saccade::cuda PROPERTIES
    INTERFACE_INCLUDE_DIRECTORIES "${CUDAToolkit_INCLUDE_DIRS};${CUDNN_INCLUDE_DIR}"
    INTERFACE_LINK_LIBRARIES "CUDA::cudart_static;CUDA::cublasLt;${CUDNN_LIBRARY}")
endif()
