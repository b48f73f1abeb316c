# cmake --install: headers under include/saccade, static libraries, the CMake package Saccade (saccade::saccade),
# and the tools (each installs itself, in tools/).
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

get_property(libraries GLOBAL PROPERTY SACCADE_LIBRARIES)
install(TARGETS saccade ${libraries} EXPORT SaccadeTargets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})

# The folders themselves: include/saccade holds only links to them. Folders of one device or instruction set are private.
foreach(floor kernels core nn ssl data)
  install(DIRECTORY ${PROJECT_SOURCE_DIR}/${floor}/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/saccade/${floor}
    FILES_MATCHING PATTERN "*.h" PATTERN "cpu" EXCLUDE PATTERN "cuda" EXCLUDE PATTERN "meta" EXCLUDE PATTERN "simd" EXCLUDE)
endforeach()
install(FILES ${PROJECT_SOURCE_DIR}/include/saccade/saccade.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/saccade)

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/Saccade)
install(EXPORT SaccadeTargets NAMESPACE saccade:: DESTINATION ${package_dir})
configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/SaccadeConfig.cmake.in ${PROJECT_BINARY_DIR}/SaccadeConfig.cmake
  INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/SaccadeConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/SaccadeConfig.cmake ${PROJECT_BINARY_DIR}/SaccadeConfigVersion.cmake
  ${CMAKE_CURRENT_LIST_DIR}/LinkedPackages.cmake ${CMAKE_CURRENT_LIST_DIR}/CudaLibraries.cmake DESTINATION ${package_dir})
