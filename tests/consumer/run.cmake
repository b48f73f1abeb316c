# cmake -DBUILD=... -DSOURCE=... -DWORK=... -P run.cmake
# Installs the build into an empty prefix, looks at its headers, then configures, builds and runs the consumer against it:
# one step on noise.
file(REMOVE_RECURSE ${WORK})
file(MAKE_DIRECTORY ${WORK}/run)
set(ENV{XDG_CACHE_HOME} ${WORK}/cache)  # for the times that a budget is planned by

function(step)
  execute_process(COMMAND ${ARGN} WORKING_DIRECTORY ${WORK}/run RESULT_VARIABLE status OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(NOT status EQUAL 0)
    message(FATAL_ERROR "${ARGN}\nended with ${status}:\n${output}")
  endif()
endfunction()

step(${CMAKE_COMMAND} --install ${BUILD} --prefix ${WORK}/prefix)

# saccade.h leads to every installed header, and whole_library.cpp uses every op.
set(include ${WORK}/prefix/include)
execute_process(COMMAND ${COMPILER} -std=c++20 -I${include} -MM ${include}/saccade/saccade.h
  OUTPUT_VARIABLE reached COMMAND_ERROR_IS_FATAL ANY)
file(GLOB_RECURSE headers ${include}/*.h)
foreach(header IN LISTS headers)
  string(FIND "${reached}" "${header}" place)
  if(place EQUAL -1)
    message(FATAL_ERROR "${header} is installed, but saccade.h does not lead to it: include it there, or name it private in "
      "cmake/Install.cmake")
  endif()
endforeach()
file(READ ${SOURCE}/whole_library.cpp program)
file(STRINGS ${include}/saccade/core/ops.h ops REGEX "^Tensor [a-z0-9_]+\\(")
foreach(op IN LISTS ops)
  string(REGEX REPLACE "^Tensor ([a-z0-9_]+)\\(.*" "\\1" op "${op}")
  if(NOT program MATCHES "[^a-z0-9_]${op}\\(")
    message(FATAL_ERROR "whole_library.cpp does not use ${op}(): add it to its network")
  endif()
endforeach()

step(${CMAKE_COMMAND} -S ${SOURCE} -B ${WORK}/build -G ${GENERATOR} -DCMAKE_PREFIX_PATH=${WORK}/prefix
  -DCMAKE_CXX_COMPILER=${COMPILER} -DCMAKE_CXX_FLAGS=${FLAGS})
step(${CMAKE_COMMAND} --build ${WORK}/build)
step(${WORK}/build/whole_library)

foreach(i RANGE 1 64)
  string(RANDOM LENGTH 768 RANDOM_SEED ${i} pixels)
  file(WRITE ${WORK}/run/photos/${i}.ppm "P6\n16 16\n255\n${pixels}")
endforeach()
step(${WORK}/build/consumer photos 1)
if(NOT EXISTS ${WORK}/run/trunk.safetensors)
  message(FATAL_ERROR "the consumer wrote no trunk.safetensors")
endif()
