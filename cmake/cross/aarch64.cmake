# Toolchain: Linux on aarch64 from another machine, with Debian's cross compiler (tools/system_deps.sh
# PYTHON cross). Programs run under qemu's user mode emulation.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
