# Finds the installed torch and TensorFlow packages by asking the Python interpreter where they are.
# pip's isolated build hides them from imports, not from sysconfig; uv's has an interpreter of its own.
# Neither is imported, and find_package(Torch) is not used: it would add flags, CUDA and libtorch.so
# to targets that need two libraries and three include directories.

# tb_find_wheel(<package> <given> <out>): directories given by hand (checked), or the interpreter's.
function(tb_find_wheel package given out)
  set(dirs "")
  if(given)
    foreach(dir IN LISTS given)
      if(NOT IS_DIRECTORY "${dir}/include")
        message(FATAL_ERROR "${dir} is not a ${package} package directory: it has no include folder")
      endif()
      cmake_path(ABSOLUTE_PATH dir BASE_DIRECTORY "${CMAKE_BINARY_DIR}" NORMALIZE)
      list(APPEND dirs "${dir}")
    endforeach()
  elseif(Python_EXECUTABLE)
    execute_process(
      COMMAND
        "${Python_EXECUTABLE}" -c
        "import importlib.machinery as m, importlib.util as u, sysconfig as c; \
s = u.find_spec('${package}') or m.PathFinder.find_spec('${package}', [c.get_path('purelib'), c.get_path('platlib')]); \
print(s.submodule_search_locations[0] if s and s.submodule_search_locations else '', end='')"
      OUTPUT_VARIABLE dir COMMAND_ERROR_IS_FATAL ANY)
    if(dir AND IS_DIRECTORY "${dir}/include")
      set(dirs "${dir}")
    endif()
  endif()
  if(dirs)
    message(STATUS "Found ${package}: ${dirs}")
  endif()
  set(${out} "${dirs}" PARENT_SCOPE)
endfunction()

# What our sources take from DLPack's header. The number is not enough: of the headers that say 1.0,
# TensorFlow 2.16's lacks IS_COPIED and torch 2.9's has it. The exchange API (python/dlpack.cc) comes with
# 1.2. tests/lint/test_dlpack_header.py holds the lists against the compiler.
set(TB_DLPACK_NEEDED DLManagedTensorVersioned DLPACK_FLAG_BITMASK_READ_ONLY
                     DLPACK_FLAG_BITMASK_IS_COPIED)
set(TB_DLPACK_NEEDED_FROM_1_2 DLPackExchangeAPI managed_tensor_allocator
    managed_tensor_from_py_object_no_sync managed_tensor_to_py_object_no_sync
    dltensor_from_py_object_no_sync current_work_stream)

# tb_look_at_dlpack(<header> <version> <unfit>): its version, and why it cannot be used; empty if it can.
function(tb_look_at_dlpack header version unfit)
  set(${version} "" PARENT_SCOPE)
  if(NOT EXISTS "${header}")
    set(${unfit} "no such file" PARENT_SCOPE)
    return()
  endif()
  file(READ "${header}" text)
  set(define "#[ \t]*define[ \t]+DLPACK")
  if(text MATCHES "${define}_MAJOR_VERSION[ \t]+([0-9]+)")
    set(major "${CMAKE_MATCH_1}")
    set(minor 0)
    if(text MATCHES "${define}_MINOR_VERSION[ \t]+([0-9]+)")
      set(minor "${CMAKE_MATCH_1}")
    endif()
  elseif(text MATCHES "${define}_VERSION[ \t]+([0-9]+)([0-9])[^0-9]")
    # Before 1.0 one number: 80 is 0.8.
    set(major 0)
    set(minor "${CMAKE_MATCH_1}")
  else()
    set(${unfit} "no DLPack header: it defines no version" PARENT_SCOPE)
    return()
  endif()
  set(found "${major}.${minor}")
  set(${version} "${found}" PARENT_SCOPE)
  if(NOT major EQUAL 1)
    # Another major version is another layout of the structs.
    set(${unfit} "DLPack ${found} is not of version 1" PARENT_SCOPE)
    return()
  endif()
  set(needed ${TB_DLPACK_NEEDED})
  if(found VERSION_GREATER_EQUAL 1.2)
    list(APPEND needed ${TB_DLPACK_NEEDED_FROM_1_2})
  endif()
  set(missing "")
  foreach(name IN LISTS needed)
    if(name MATCHES "^DLPACK_")
      # A comment may speak of a flag that another release has.
      set(pattern "#[ \t]*define[ \t]+${name}[^A-Za-z0-9_]")
    else()
      set(pattern "[^A-Za-z0-9_]${name}[^A-Za-z0-9_]")
    endif()
    if(NOT text MATCHES "${pattern}")
      list(APPEND missing ${name})
    endif()
  endforeach()
  if(missing)
    list(JOIN missing ", " missing)
    set(missing "DLPack ${found} without ${missing}")
  endif()
  set(${unfit} "${missing}" PARENT_SCOPE)
endfunction()

# tb_choose_dlpack(<headers> <chosen> <said>): the newest that can be used, of equal ones the first, or
# empty; and a line for each, what it is.
function(tb_choose_dlpack headers chosen said)
  set(best "")
  set(best_version 0)
  set(lines "")
  foreach(header IN LISTS headers)
    tb_look_at_dlpack("${header}" version unfit)
    if(unfit)
      string(APPEND lines "\n  ${header}: ${unfit}")
      continue()
    endif()
    string(APPEND lines "\n  ${header}: DLPack ${version}")
    if(version VERSION_GREATER best_version)
      set(best "${header}")
      set(best_version "${version}")
    endif()
  endforeach()
  set(${chosen} "${best}" PARENT_SCOPE)
  set(${said} "${lines}" PARENT_SCOPE)
endfunction()

# tb_provide_dlpack(<torch dirs> <tensorflow dir>): copies a DLPack header out of an installed framework,
# or of tvm-ffi, and sets TB_DLPACK_INCLUDE_DIR. torch has one that can be used from 2.9 on, TensorFlow
# from 2.20 on. Not committed and not installed: the public headers only forward-declare its structs.
function(tb_provide_dlpack torch_dirs tensorflow_dir)
  set(headers ${torch_dirs})
  list(TRANSFORM headers APPEND "/include/ATen/dlpack.h")
  if(tensorflow_dir)
    list(APPEND headers "${tensorflow_dir}/include/external/dlpack/include/dlpack/dlpack.h")
  endif()
  tb_find_wheel(tvm_ffi "" tvm_ffi_dir)
  if(tvm_ffi_dir)
    list(APPEND headers "${tvm_ffi_dir}/include/dlpack/dlpack.h")
  endif()
  tb_choose_dlpack("${headers}" header said)
  if(NOT header)
    if(NOT headers)
      set(said " none: the interpreter '${Python_EXECUTABLE}' has neither torch nor tensorflow")
    endif()
    message(FATAL_ERROR
      "Install apache-tvm-ffi for the interpreter that builds (pip install apache-tvm-ffi), and with pip "
      "add --no-build-isolation: it has the DLPack header that the build needs, and nothing else that "
      "was found has. torch 2.9, TensorFlow 2.20 and newer ones have it too; TENSOR_BRIDGE_TORCH_DIR and "
      "TENSOR_BRIDGE_TENSORFLOW_DIR say where they are. Found:${said}")
  endif()
  message(STATUS "DLPack header: ${header}")
  set(include_dir "${PROJECT_BINARY_DIR}/include")
  configure_file("${header}" "${include_dir}/dlpack/dlpack.h" COPYONLY)
  set(TB_DLPACK_INCLUDE_DIR "${include_dir}" PARENT_SCOPE)
endfunction()
