# cmake -DREADME=... -DPROGRAM=... -P readme.cmake: the README must show the very program that the tests build.
file(READ ${README} readme)
file(READ ${PROGRAM} program)
string(FIND "${readme}" "```cpp\n${program}```" position)
if(position EQUAL -1)
  message(FATAL_ERROR "the C++ block of ${README} is not ${PROGRAM}; copy the program into it")
endif()
