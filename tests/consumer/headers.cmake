# cmake -DBUILD=... -DWORK=... -DCOMPILER=... -P headers.cmake: every installed header compiles alone.
file(REMOVE_RECURSE ${WORK})
execute_process(COMMAND ${CMAKE_COMMAND} --install ${BUILD} --prefix ${WORK} OUTPUT_QUIET COMMAND_ERROR_IS_FATAL ANY)
file(GLOB_RECURSE headers RELATIVE ${WORK}/include ${WORK}/include/*.h)
foreach(header IN LISTS headers)
  file(WRITE ${WORK}/alone.cpp "#include <${header}>\n")
  execute_process(COMMAND ${COMPILER} -std=c++20 -Wall -Wextra -Werror -I${WORK}/include -fsyntax-only ${WORK}/alone.cpp
    COMMAND_ERROR_IS_FATAL ANY)
endforeach()
