# The C++ SDK: libraries, public headers and the package files for find_package(tensor_bridge).
# In a wheel all of it lies in the Python package, the libraries beside the extension module.
include(CMakePackageConfigHelpers)

if(SKBUILD)
  set(TB_LIB_DIR tensor_bridge)
  set(TB_INCLUDE_DIR tensor_bridge/include)
  set(TB_CMAKE_DIR tensor_bridge/cmake)
else()
  set(TB_LIB_DIR "${CMAKE_INSTALL_LIBDIR}")
  set(TB_INCLUDE_DIR "${CMAKE_INSTALL_INCLUDEDIR}")
  set(TB_CMAKE_DIR "${CMAKE_INSTALL_LIBDIR}/cmake/tensor_bridge")
endif()
set(TB_TORCH_ADAPTER_NAMES ${TB_TORCH_ADAPTERS})
list(TRANSFORM TB_TORCH_ADAPTER_NAMES REPLACE "^tensor_bridge_torch_" "")

# The adapters are opened at run time from beside libtensor_bridge.so, so they are no link targets.
install(TARGETS ${TB_TORCH_ADAPTERS} LIBRARY DESTINATION "${TB_LIB_DIR}")
install(TARGETS tensor_bridge EXPORT tensor_bridgeTargets LIBRARY DESTINATION "${TB_LIB_DIR}"
        INCLUDES DESTINATION "${TB_INCLUDE_DIR}")
install(DIRECTORY "${PROJECT_SOURCE_DIR}/include/tensor_bridge" DESTINATION "${TB_INCLUDE_DIR}"
        FILES_MATCHING PATTERN "*.h")
install(EXPORT tensor_bridgeTargets NAMESPACE tensor_bridge:: DESTINATION "${TB_CMAKE_DIR}")

configure_package_config_file(
  cmake/tensor_bridgeConfig.cmake.in "${PROJECT_BINARY_DIR}/tensor_bridgeConfig.cmake"
  INSTALL_DESTINATION "${TB_CMAKE_DIR}" NO_SET_AND_CHECK_MACRO)
# Before 1.0 a minor release may change the SDK.
write_basic_package_version_file(
  "${PROJECT_BINARY_DIR}/tensor_bridgeConfigVersion.cmake" COMPATIBILITY SameMinorVersion)
install(FILES "${PROJECT_BINARY_DIR}/tensor_bridgeConfig.cmake"
              "${PROJECT_BINARY_DIR}/tensor_bridgeConfigVersion.cmake"
        DESTINATION "${TB_CMAKE_DIR}")

# The build tree can be used in place: -Dtensor_bridge_DIR=<build>.
export(EXPORT tensor_bridgeTargets NAMESPACE tensor_bridge::
       FILE "${PROJECT_BINARY_DIR}/tensor_bridgeTargets.cmake")
