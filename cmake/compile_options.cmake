# Warnings, visibility and sanitizers for our own targets. Not for imported ones.

# Everything is hidden unless a declaration says otherwise: the exported lists are short and checked.
function(tb_compile_options target)
  set_target_properties(
    ${target} PROPERTIES POSITION_INDEPENDENT_CODE ON CXX_VISIBILITY_PRESET hidden
                         VISIBILITY_INLINES_HIDDEN ON)
  # torch's error texts carry __FILE__: the path in the project, not on the build machine.
  target_compile_options(${target} PRIVATE "-ffile-prefix-map=${PROJECT_SOURCE_DIR}/=" -fno-plt)
  tb_harden(${target})
  tb_warnings(${target})
  tb_sanitize(${target})
endfunction()

# Optimised builds: a conversion crosses several files in 100 ns, and what one inlines from another
# is 5 % of its instructions. Without PLT stubs for the same reason.
function(tb_optimise_at_link_time)
  include(CheckIPOSupported)
  check_ipo_supported(RESULT supported OUTPUT ignored LANGUAGES CXX)
  if(supported AND NOT TENSOR_BRIDGE_SANITIZE)
    set(CMAKE_INTERPROCEDURAL_OPTIMIZATION_RELEASE ON PARENT_SCOPE)
  endif()
endfunction()

# Bytes of files and of other programs pass through: a write past an array on the stack, or past one whose
# size the compiler knows, ends the process there. tools/binaries.py looks for it in what was built.
# glibc wants optimisation for the second, and sanitizers want to see the calls themselves. Functions on
# the way of every conversion that have no array are [[gnu::no_stack_protector]]: the check takes six
# instructions in each, 2 % of a call together.
function(tb_harden target)
  target_compile_options(${target} PRIVATE -fstack-protector-strong)
  if(NOT TENSOR_BRIDGE_SANITIZE)
    target_compile_options(
      ${target} PRIVATE -U_FORTIFY_SOURCE $<$<NOT:$<CONFIG:Debug>>:-D_FORTIFY_SOURCE=2>)
  endif()
endfunction()

function(tb_warnings target)
  target_compile_options(${target} PRIVATE -Wall -Wextra -Wpedantic -Wshadow -Wnon-virtual-dtor)
  if(TENSOR_BRIDGE_WERROR)
    target_compile_options(${target} PRIVATE -Werror)
  endif()
endfunction()

function(tb_sanitize target)
  if(NOT TENSOR_BRIDGE_SANITIZE)
    return()
  endif()
  target_compile_options(
    ${target} PRIVATE "-fsanitize=${TENSOR_BRIDGE_SANITIZE}" -fno-omit-frame-pointer)
  target_link_options(${target} PRIVATE "-fsanitize=${TENSOR_BRIDGE_SANITIZE}")
  if(TENSOR_BRIDGE_SANITIZE MATCHES "undefined")
    # vptr needs the type information of classes that live in uninstrumented framework libraries.
    target_compile_options(${target} PRIVATE -fno-sanitize-recover=all -fno-sanitize=vptr)
  endif()
endfunction()

# tb_link_options(<target> <map>): exports what cmake/exports/<map>.map lists (hidden visibility
# alone lets the templates of the standard library through), and needs what it uses and no more.
function(tb_link_options target map)
  tb_sanitize(${target})
  set(map_file "${PROJECT_SOURCE_DIR}/cmake/exports/${map}.map")
  target_link_options(${target} PRIVATE -Wl,--as-needed "-Wl,--version-script=${map_file}")
  # Every symbol is bound when the library is loaded, and the table of them is read-only from then on.
  target_link_options(${target} PRIVATE -Wl,-z,relro -Wl,-z,now)
  set_property(TARGET ${target} APPEND PROPERTY LINK_DEPENDS "${map_file}")
endfunction()

# A library that forgot a source file or a dependency fails here and not when it is loaded. Not for
# the extension (the interpreter has CPython's symbols) and not under a sanitizer (the program has its).
function(tb_no_undefined target)
  if(NOT TENSOR_BRIDGE_SANITIZE)
    target_link_options(${target} PRIVATE -Wl,--no-undefined)
  endif()
endfunction()
