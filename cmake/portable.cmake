# TENSOR_BRIDGE_PORTABLE: binaries for older systems than the one that builds them, for the release
# wheel. A symbol that glibc after 2.28 or libstdc++ after GCC 8 moved or added is bound to its older
# version, which newer libraries keep, or is included in the binary. Other builds do not need this.

# tb_stand_in(<name> <soname>): a library of cmake/portable/<name>.cc, with the symbol versions of
# <processor>/<name>.map: glibc's first version differs between processors, and a wrong one fails only
# when the library is loaded. It is linked before the real library of that soname and never installed.
function(tb_stand_in name soname)
  set(target "tb_portable_${name}")
  add_library(${target} SHARED "${PROJECT_SOURCE_DIR}/cmake/portable/${name}.cc")
  # The file has a name of its own, or -l would find it in place of the real one.
  set_target_properties(${target} PROPERTIES NO_SONAME ON INTERPROCEDURAL_OPTIMIZATION OFF)
  set(map "${PROJECT_SOURCE_DIR}/cmake/portable/${CMAKE_SYSTEM_PROCESSOR}/${name}.map")
  if(NOT EXISTS "${map}")
    message(FATAL_ERROR
      "TENSOR_BRIDGE_PORTABLE is for Linux on x86_64 and aarch64, not for ${CMAKE_SYSTEM_PROCESSOR}; "
      "build without it")
  endif()
  target_compile_options(${target} PRIVATE -fno-builtin -w)
  target_link_options(
    ${target} PRIVATE -nostdlib "-Wl,-soname,${soname}" "-Wl,--version-script=${map}")
  set_property(TARGET ${target} APPEND PROPERTY LINK_DEPENDS "${map}")
endfunction()

if(TENSOR_BRIDGE_PORTABLE)
  tb_stand_in(libdl libdl.so.2)
  tb_stand_in(libpthread libpthread.so.0)
  set(portable "${PROJECT_SOURCE_DIR}/cmake/portable")
  add_library(tb_portable_added OBJECT "${portable}/added.cc" "${portable}/added_old_abi.cc")
  set_target_properties(tb_portable_added PROPERTIES POSITION_INDEPENDENT_CODE ON
                                                     INTERPROCEDURAL_OPTIMIZATION OFF)
  target_compile_features(tb_portable_added PRIVATE cxx_std_17)
  tb_harden(tb_portable_added)
endif()

# tb_portable(<target>): lets a library of ours run on older systems, if that was asked for.
function(tb_portable target)
  if(TENSOR_BRIDGE_PORTABLE)
    target_sources(${target} PRIVATE $<TARGET_OBJECTS:tb_portable_added>)
    # By file: as targets they would have to be exported with the SDK. Not as needed: before code is
    # generated at link time, the linker sees no need.
    target_link_libraries(
      ${target}
      PRIVATE -Wl,--push-state,--no-as-needed $<TARGET_FILE:tb_portable_libdl>
              $<TARGET_FILE:tb_portable_libpthread> -Wl,--pop-state)
    add_dependencies(${target} tb_portable_libdl tb_portable_libpthread)
  endif()
endfunction()
