// An application of the SDK: it compiles against the installed headers, links, and runs.
#include <tensor_bridge/c_api.h>
#include <tensor_bridge/version.h>

#include <cstdio>
#include <cstring>

int main() {
  if (std::strcmp(tb_version(), TENSOR_BRIDGE_VERSION) != 0) {
    std::fprintf(stderr, "headers %s, library %s\n", TENSOR_BRIDGE_VERSION, tb_version());
    return 1;
  }
  return 0;
}
