# tb_read_version(<header> <out>): the version as version.h states it. The header is the one place
# where it is written; its numbers and its string must agree.
function(tb_read_version header out)
  file(READ "${header}" text)
  # A changed header reconfigures, as a changed list file does.
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${header}")
  set(numbers "")
  foreach(part IN ITEMS MAJOR MINOR PATCH)
    if(NOT text MATCHES "#define TENSOR_BRIDGE_VERSION_${part} ([0-9]+)")
      message(FATAL_ERROR "${header} does not define TENSOR_BRIDGE_VERSION_${part}")
    endif()
    list(APPEND numbers "${CMAKE_MATCH_1}")
  endforeach()
  list(JOIN numbers "." version)
  if(NOT text MATCHES "#define TENSOR_BRIDGE_VERSION \"${version}([a-z]+[0-9]+)?\"")
    message(FATAL_ERROR "${header}: TENSOR_BRIDGE_VERSION is not \"${version}\"")
  endif()
  set(${out} "${version}" PARENT_SCOPE)
endfunction()
