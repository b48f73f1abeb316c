# What a release carries, by CPack: saccade-tools and libsaccade-dev as packages of Debian's kind, and a tarball of both.
# ./dev package makes them, and ./dev package --try tries them on a bare system.
set(SACCADE_LINKED_DEBS "" CACHE STRING "Packages that a program which links the library needs, by Debian's names")
if(NOT SACCADE_LINKED_DEBS)
  return()
endif()
# Where Debian's packages have what is not a program or a header.
foreach(package saccade-tools libsaccade-dev)
  set(component library)
  if(package STREQUAL "saccade-tools")
    set(component tools)
  endif()
  install(FILES ${PROJECT_SOURCE_DIR}/LICENSE DESTINATION share/doc/${package} RENAME copyright COMPONENT ${component})
  install(FILES ${PROJECT_SOURCE_DIR}/CHANGELOG.md DESTINATION share/doc/${package} COMPONENT ${component})
endforeach()
install(DIRECTORY ${PROJECT_SOURCE_DIR}/docs/ DESTINATION share/doc/saccade-tools COMPONENT tools
  FILES_MATCHING PATTERN "*.md")
install(DIRECTORY ${PROJECT_SOURCE_DIR}/recipes DESTINATION share/doc/saccade-tools COMPONENT tools)

set(CPACK_GENERATOR DEB TGZ)
set(CPACK_PACKAGE_NAME saccade)
set(CPACK_PACKAGE_VENDOR "Saccade")
set(CPACK_PACKAGE_CONTACT "Saccade's authors")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "learning visual features from images that nobody labelled")
set(CPACK_RESOURCE_FILE_LICENSE ${PROJECT_SOURCE_DIR}/LICENSE)
set(CPACK_PACKAGE_FILE_NAME saccade-${PROJECT_VERSION}-${CMAKE_SYSTEM_PROCESSOR}-linux)
set(CPACK_OUTPUT_FILE_PREFIX ${PROJECT_BINARY_DIR}/packages)
set(CPACK_STRIP_FILES ON)
set(CPACK_COMPONENTS_ALL library tools)

set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_TOOLS_PACKAGE_NAME saccade-tools)
set(CPACK_DEBIAN_TOOLS_PACKAGE_SECTION science)
set(CPACK_DEBIAN_TOOLS_PACKAGE_SHLIBDEPS ON)
set(CPACK_COMPONENT_TOOLS_DESCRIPTION
  "Pre-trains networks on folders of images, judges them, writes their features, and plans their memory.")
set(CPACK_DEBIAN_LIBRARY_PACKAGE_NAME libsaccade-dev)
set(CPACK_DEBIAN_LIBRARY_PACKAGE_SECTION libdevel)
list(JOIN SACCADE_LINKED_DEBS ", " depends)
set(CPACK_DEBIAN_LIBRARY_PACKAGE_DEPENDS "${depends}")
set(CPACK_COMPONENT_LIBRARY_DESCRIPTION
  "Headers, static libraries and a CMake package: find_package(Saccade), saccade::saccade.")
include(CPack)
