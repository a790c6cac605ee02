# The torch adapters: which releases share one binary, and how one is built.
#
# Inside a group the layout of StorageImpl and TensorImpl is the same; a binary of another group
# links and then aborts. So a minor that is not listed here is an error, not a guess.
# A group is named for its first minor.
set(TB_TORCH_GROUPS "2.6" "2.7" "2.8 2.9" "2.10 2.11 2.12" "2.13 2.14 2.15")

# tb_write_torch_groups(<header>): the list above for C++, and the texts that name its ends.
function(tb_write_torch_groups header)
  set(rows "")
  foreach(group IN LISTS TB_TORCH_GROUPS)
    string(REGEX REPLACE "^2\\.([0-9]+).*$" "\\1" first "${group}")
    string(REGEX REPLACE "^.*2\\.([0-9]+)$" "\\1" last "${group}")
    string(APPEND rows "{${first}, ${last}}, ")
    if(NOT DEFINED lowest)
      set(lowest "${first}")
    endif()
  endforeach()
  math(EXPR next "${last} + 1")
  file(CONFIGURE OUTPUT "${header}" @ONLY CONTENT [[
// Made by cmake/torch_groups.cmake.
#pragma once

namespace tensor_bridge {

// Groups of torch 2 minors whose classes have the same layout; an adapter is named for the first
// of its group.
struct TorchGroup {
  int first;
  int last;
};
constexpr TorchGroup kTorchGroups[] = {@rows@};
constexpr int kLastTorchMinor = @last@;

}  // namespace tensor_bridge

#define TB_TORCH_RANGE "2.@lowest@ to 2.@last@"
#define TB_TORCH_REQUIREMENT "'torch>=2.@lowest@,<2.@next@'"
]])
endfunction()

# tb_torch_version(<torch dir> <out>): "major.minor" as torch's own headers state it.
function(tb_torch_version torch_dir out)
  set(headers torch/headeronly/version.h torch/csrc/api/include/torch/version.h)
  foreach(header IN LISTS headers)
    set(path "${torch_dir}/include/${header}")
    if(EXISTS "${path}")
      file(READ "${path}" text)
      if(text MATCHES "#define TORCH_VERSION_MAJOR ([0-9]+)")
        set(major "${CMAKE_MATCH_1}")
        if(text MATCHES "#define TORCH_VERSION_MINOR ([0-9]+)")
          set(${out} "${major}.${CMAKE_MATCH_1}" PARENT_SCOPE)
          return()
        endif()
      endif()
    endif()
  endforeach()
  message(FATAL_ERROR "${torch_dir}: no version in include/{${headers}}")
endfunction()

# tb_torch_group(<major.minor> <out>): the adapter's name, e.g. 2_13, or an error.
function(tb_torch_group version out)
  foreach(group IN LISTS TB_TORCH_GROUPS)
    separate_arguments(minors UNIX_COMMAND "${group}")
    if(version IN_LIST minors)
      list(GET minors 0 first)
      string(REPLACE "." "_" first "${first}")
      set(${out} "${first}" PARENT_SCOPE)
      return()
    endif()
  endforeach()
  list(JOIN TB_TORCH_GROUPS " | " known)
  message(FATAL_ERROR
    "torch ${version} is not supported: its object layout is unknown to this release of "
    "tensor_bridge. Known: ${known}. Install one of those, or update tensor_bridge.")
endfunction()

# tb_torch_headers(<target> <torch dir>): what code needs that includes torch's headers.
function(tb_torch_headers target torch_dir)
  target_include_directories(
    ${target} SYSTEM PRIVATE "${torch_dir}/include" "${torch_dir}/include/torch/csrc/api/include")
  tb_torch_version("${torch_dir}" version)
  if(version VERSION_GREATER_EQUAL 2.13)
    target_compile_features(${target} PRIVATE cxx_std_20)
  else()
    target_compile_features(${target} PRIVATE cxx_std_17)
  endif()
  if(version VERSION_LESS 2.7)
    # PyPI's builds for x86-64 have the old ABI, those for aarch64 and some others of 2.6 the new one;
    # torch says which.
    set(abi 0)
    set(config "${torch_dir}/share/cmake/Torch/TorchConfig.cmake")
    if(EXISTS "${config}")
      file(STRINGS "${config}" new_abi REGEX "_GLIBCXX_USE_CXX11_ABI=1")
      if(new_abi)
        set(abi 1)
      endif()
    endif()
    target_compile_definitions(${target} PRIVATE _GLIBCXX_USE_CXX11_ABI=${abi})
  endif()
endfunction()

# tb_torch_libraries(<torch dir> <out>): by file, so that neither libtorch.so nor CUDA comes along.
function(tb_torch_libraries torch_dir out)
  set(${out} "${torch_dir}/lib/libc10.so" "${torch_dir}/lib/libtorch_cpu.so" PARENT_SCOPE)
endfunction()

# tb_add_torch_adapter(<torch dir> <out>): the target of the adapter for that torch. Its object
# files are in <target>_objects, for tests of what the library does not export.
function(tb_add_torch_adapter torch_dir out)
  tb_torch_version("${torch_dir}" version)
  tb_torch_group("${version}" group)
  set(name "tensor_bridge_torch_${group}")
  message(STATUS "torch ${version}: adapter ${name}")
  file(GLOB sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/src/adapters/torch/*.cc")
  if(NOT sources)
    message(FATAL_ERROR "src/adapters/torch holds no source file")
  endif()
  # How a storage copies on write is a file for each way; adapters/torch/torch_version.h has the rest
  # of what differs.
  if(version VERSION_GREATER_EQUAL 2.13)
    list(FILTER sources EXCLUDE REGEX "/copy_on_write_guard\\.cc$")
  else()
    list(FILTER sources EXCLUDE REGEX "/(copy_on_write_hook|list_writers)\\.cc$")
  endif()

  add_library(${name}_objects OBJECT ${sources})
  target_include_directories(
    ${name}_objects PRIVATE "${PROJECT_SOURCE_DIR}/include" "${PROJECT_SOURCE_DIR}/src")
  target_include_directories(${name}_objects SYSTEM PRIVATE "${TB_DLPACK_INCLUDE_DIR}")
  tb_torch_headers(${name}_objects "${torch_dir}")
  tb_compile_options(${name}_objects)

  add_library(${name} MODULE $<TARGET_OBJECTS:${name}_objects>)
  tb_torch_libraries("${torch_dir}" libraries)
  target_link_libraries(${name} PRIVATE ${libraries})
  # The torch that the process has already loaded is the one to use: no path leads to another.
  set_target_properties(
    ${name} PROPERTIES LINKER_LANGUAGE CXX SKIP_BUILD_RPATH ON INSTALL_RPATH "")
  tb_link_options(${name} torch_adapter)
  tb_portable(${name})
  tb_no_undefined(${name})
  set(${out} ${name} PARENT_SCOPE)
endfunction()
