# cmake -DBUILD=... -DSOURCE=... -DWORK=... -P run.cmake
# Installs the build into an empty prefix, then configures, builds and runs the consumer against it: one step on noise.
file(REMOVE_RECURSE ${WORK})
file(MAKE_DIRECTORY ${WORK}/run)

function(step)
  execute_process(COMMAND ${ARGN} WORKING_DIRECTORY ${WORK}/run RESULT_VARIABLE status OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(NOT status EQUAL 0)
    message(FATAL_ERROR "${ARGN}\nended with ${status}:\n${output}")
  endif()
endfunction()

step(${CMAKE_COMMAND} --install ${BUILD} --prefix ${WORK}/prefix)
step(${CMAKE_COMMAND} -S ${SOURCE} -B ${WORK}/build -G ${GENERATOR} -DCMAKE_PREFIX_PATH=${WORK}/prefix
  -DCMAKE_CXX_COMPILER=${COMPILER} -DCMAKE_CXX_FLAGS=${FLAGS})
step(${CMAKE_COMMAND} --build ${WORK}/build)

foreach(i RANGE 1 64)
  string(RANDOM LENGTH 768 RANDOM_SEED ${i} pixels)
  file(WRITE ${WORK}/run/photos/${i}.ppm "P6\n16 16\n255\n${pixels}")
endforeach()
step(${WORK}/build/consumer photos 1)
if(NOT EXISTS ${WORK}/run/trunk.safetensors)
  message(FATAL_ERROR "the consumer wrote no trunk.safetensors")
endif()
