# Finds the installed torch and TensorFlow packages by asking the Python interpreter where they are.
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
        "import importlib.util as u; s = u.find_spec('${package}'); \
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

# tb_provide_dlpack(<torch dirs> <tensorflow dir>): copies a DLPack header of version 1 or newer out
# of an installed framework, or of tvm-ffi, and sets TB_DLPACK_INCLUDE_DIR. torch 2.8 brings
# 0.8, TensorFlow 2.14 brings 0.6. Not committed and not installed: the public headers only
# forward-declare its structs.
function(tb_provide_dlpack torch_dirs tensorflow_dir)
  set(candidates ${torch_dirs})
  list(TRANSFORM candidates APPEND "/include/ATen/dlpack.h")
  if(tensorflow_dir)
    list(APPEND candidates "${tensorflow_dir}/include/external/dlpack/include/dlpack/dlpack.h")
  endif()
  tb_find_wheel(tvm_ffi "" tvm_ffi_dir)
  if(tvm_ffi_dir)
    list(APPEND candidates "${tvm_ffi_dir}/include/dlpack/dlpack.h")
  endif()
  set(rejected "")
  foreach(header IN LISTS candidates)
    if(NOT EXISTS "${header}")
      string(APPEND rejected "\n  ${header}: no such file")
      continue()
    endif()
    file(STRINGS "${header}" line REGEX "#define DLPACK_MAJOR_VERSION")
    if(line MATCHES "DLPACK_MAJOR_VERSION +([0-9]+)" AND CMAKE_MATCH_1 GREATER_EQUAL 1)
      set(include_dir "${PROJECT_BINARY_DIR}/include")
      configure_file("${header}" "${include_dir}/dlpack/dlpack.h" COPYONLY)
      set(TB_DLPACK_INCLUDE_DIR "${include_dir}" PARENT_SCOPE)
      message(STATUS "DLPack header: ${header}")
      return()
    endif()
    string(APPEND rejected "\n  ${header}: older than DLPack 1.0")
  endforeach()
  if(NOT candidates)
    set(rejected " the interpreter '${Python_EXECUTABLE}' has neither torch nor tensorflow")
  endif()
  message(FATAL_ERROR
    "No DLPack header of version 1.0 or newer:${rejected}\n"
    "Install torch 2.10, TensorFlow 2.18 or newer ones for that interpreter, or apache-tvm-ffi, which "
    "has the header alone (pip install apache-tvm-ffi), or set TENSOR_BRIDGE_TORCH_DIR or "
    "TENSOR_BRIDGE_TENSORFLOW_DIR. With pip, add --no-build-isolation.")
endfunction()
