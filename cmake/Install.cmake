# cmake --install: headers under include/saccade, static libraries, the CMake package Saccade (saccade::saccade),
# and the tools (each installs itself, in tools/).
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

get_property(libraries GLOBAL PROPERTY SACCADE_LIBRARIES)
install(TARGETS saccade ${libraries} EXPORT SaccadeTargets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}
  COMPONENT library)

# The folders themselves: include/saccade holds only links to them. Folders of one device or instruction set are private,
# and so are headers that sources share among themselves (parts of parsers and of the ways to data); saccade.h leads to
# every other (tests/consumer/run.cmake looks).
set(private_headers
  "core/dist/mpi"
  "core/io/(foreign_file|memory_budget|pickle|pickle_names|pickle_opcodes|pytorch_file|quoted_text|zip_archive)"
  "core/(plan/call_timer|plan/devices|utf8)"
  "data/(census|decode_formats|exif|file_kind|files|idx_files|labelled|layout|listing|table|table_paths)"
  "ssl/eval/lbfgs")
list(JOIN private_headers "|" private_headers)
foreach(floor kernels core nn ssl data vision)
  install(DIRECTORY ${PROJECT_SOURCE_DIR}/${floor}/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/saccade/${floor}
    COMPONENT library FILES_MATCHING PATTERN "*.h" PATTERN "cpu" EXCLUDE PATTERN "cuda" EXCLUDE PATTERN "meta" EXCLUDE PATTERN "simd" EXCLUDE
    REGEX "/(${private_headers})\\.h$" EXCLUDE)
endforeach()
install(FILES ${PROJECT_SOURCE_DIR}/include/saccade/saccade.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/saccade
  COMPONENT library)

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/Saccade)
install(EXPORT SaccadeTargets NAMESPACE saccade:: DESTINATION ${package_dir} COMPONENT library)
configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/SaccadeConfig.cmake.in ${PROJECT_BINARY_DIR}/SaccadeConfig.cmake
  INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/SaccadeConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/SaccadeConfig.cmake ${PROJECT_BINARY_DIR}/SaccadeConfigVersion.cmake
  ${CMAKE_CURRENT_LIST_DIR}/LinkedPackages.cmake ${CMAKE_CURRENT_LIST_DIR}/CudaLibraries.cmake
  ${CMAKE_CURRENT_LIST_DIR}/Mpi.cmake DESTINATION ${package_dir}
  COMPONENT library)
