#!/usr/bin/env bash
# Installs what pip cannot bring, where it is missing, through apt-get; elsewhere says what to install.
#
#   tools/system_deps.sh PYTHON build         compiler, Python headers, venv
#   tools/system_deps.sh PYTHON build tests   GoogleTest and what the checks of binaries use too
#   tools/system_deps.sh PYTHON docs          doxygen, which reads the headers for the reference
#   tools/system_deps.sh PYTHON browser       Chromium, for make docs-look
#   tools/system_deps.sh PYTHON benchmarks    Google Benchmark
#   tools/system_deps.sh PYTHON fuzz          clang with libFuzzer, for make fuzz
#   tools/system_deps.sh PYTHON valgrind      callgrind, for make bench-compare
#   tools/system_deps.sh PYTHON cross         a compiler for aarch64, for make wheel ARCH=aarch64
#   tools/system_deps.sh PYTHON emulation     an emulator of aarch64 and a root for it, for make test-aarch64
set -euo pipefail

python=$1
shift
missing=()

need() { # need PACKAGE COMMAND...: the Debian package, and how to tell that it is there
  local package=$1
  shift
  if ! "$@" >/dev/null 2>&1; then missing+=("$package"); fi
}

has_header() { # by the compiler, which knows its own search path
  printf '#include <%s>\n' "$1" | g++ -x c++ -fsyntax-only -
}

can_fuzz() {
  local clang
  clang=$(command -v clang++ || ls /usr/bin/clang++-* | head -n 1)
  echo 'extern "C" int LLVMFuzzerTestOneInput(const char*, unsigned long) { return 0; }' |
    "$clang" -x c++ -fsanitize=fuzzer,address -o /dev/null -
}

has_python_headers() {
  "$python" -c 'import os, sysconfig as s; os.stat(os.path.join(s.get_path("include"), "Python.h"))'
}

for what in "$@"; do
  case $what in
    build)
      need g++ command -v g++
      version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
      if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
        echo "$python is Python $version; building and testing need 3.11 or newer (what is built runs" \
          "on 3.10 too). Install it, or name it: make PYTHON=/path/to/python3.11" >&2
        exit 1
      fi
      need "python$version-dev" has_python_headers
      need "python$version-venv" "$python" -c 'import venv, ensurepip'
      ;;
    tests)
      need gcc command -v gcc
      need binutils command -v readelf
      need libgtest-dev has_header gtest/gtest.h
      need libgmock-dev has_header gmock/gmock.h
      ;;
    docs)
      need doxygen command -v doxygen
      ;;
    browser)
      need chromium eval 'command -v chromium || command -v chromium-browser || command -v google-chrome'
      ;;
    benchmarks)
      need libbenchmark-dev has_header benchmark/benchmark.h
      ;;
    fuzz)
      need clang eval 'command -v clang++ || ls /usr/bin/clang++-*'
      # Only recommended by clang: libFuzzer and the sanitizers.
      need libclang-rt-dev can_fuzz
      ;;
    valgrind)
      need gcc command -v gcc
      need valgrind has_header valgrind/callgrind.h
      ;;
    cross)
      need g++-aarch64-linux-gnu command -v aarch64-linux-gnu-g++
      ;;
    emulation)
      need qemu-user-static command -v qemu-aarch64-static
      need debootstrap eval 'command -v debootstrap || test -x /usr/sbin/debootstrap'
      need libgtest-dev test -d /usr/src/googletest
      ;;
    *)
      echo "system_deps: unknown part '$what' (build, tests, docs, browser, benchmarks, fuzz, valgrind, cross, emulation)" >&2
      exit 2
      ;;
  esac
done

if [ ${#missing[@]} -eq 0 ]; then exit 0; fi

as_root=()
if [ "$(id -u)" -ne 0 ]; then
  if command -v sudo >/dev/null; then
    as_root=(sudo)
  else
    as_root=(false)
  fi
fi

if command -v apt-get >/dev/null && [ "${as_root[0]:-}" != false ]; then
  echo "system_deps: installing ${missing[*]}"
  # An image may come without package lists. One list that cannot be had is no reason to stop.
  # A new machine often installs updates meanwhile, and has the lock.
  wait=(-o DPkg::Lock::Timeout=600)
  "${as_root[@]}" apt-get "${wait[@]}" update -qq || true
  if "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get "${wait[@]}" install -y -qq --no-install-recommends "${missing[@]}"; then exit 0; fi
fi

cat >&2 <<EOF
system_deps: these are missing and could not be installed: ${missing[*]}
Install them with your system's package manager (the names are Debian's) and run make again:
  apt-get install ${missing[*]}
EOF
exit 1
