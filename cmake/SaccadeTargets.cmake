# Flags shared by every target, and the function that declares a library floor.

add_library(saccade_flags INTERFACE)
target_compile_options(saccade_flags INTERFACE -Wall -Wextra)
if(SACCADE_WERROR)
  target_compile_options(saccade_flags INTERFACE -Werror)
endif()
if(SACCADE_SANITIZE)
  add_compile_options(-fsanitize=${SACCADE_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  add_link_options(-fsanitize=${SACCADE_SANITIZE})
endif()

# saccade_library(core DEPENDS saccade_kernels): every .cpp of the folder (not of folders built apart) becomes saccade_core.
function(saccade_library name)
  cmake_parse_arguments(arg "" "" "DEPENDS;PRIVATE_DEPENDS" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS *.cpp)
  list(FILTER sources EXCLUDE REGEX "/(simd|cuda)/")
  add_library(saccade_${name} STATIC ${sources})
  target_include_directories(saccade_${name} PUBLIC
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include> $<INSTALL_INTERFACE:include>)
  target_link_libraries(saccade_${name} PUBLIC ${arg_DEPENDS}
    PRIVATE $<BUILD_INTERFACE:saccade_flags> ${arg_PRIVATE_DEPENDS})
  target_compile_features(saccade_${name} PUBLIC cxx_std_20)
  set_target_properties(saccade_${name} PROPERTIES EXPORT_NAME ${name})
  set_property(GLOBAL APPEND PROPERTY SACCADE_LIBRARIES saccade_${name})
endfunction()
