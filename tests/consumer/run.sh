#!/usr/bin/env bash
# Builds and runs applications of the SDK the way their authors would: with find_package, against the
# install tree and against the build tree. Expects the preset `test` to be built.
#
#   tests/consumer/run.sh PYTHON
set -euo pipefail
cd "$(dirname "$0")/../.."

python=$1
build=$PWD/build/test
work=$PWD/build/consumers
sdk=$work/sdk

package_dir() {
  "$python" -c "import importlib.util as u; print(u.find_spec('$1').submodule_search_locations[0])"
}
tensorflow=$(package_dir tensorflow)
torch=$(package_dir torch)

rm -rf "$work"
cmake --install "$build" --prefix "$sdk" >/dev/null

# run NAME SOURCE PROGRAM TREE: configures SOURCE against TREE, builds it, runs PROGRAM.
run() {
  local name=$1 source=$2 program=$3 tree=$4
  echo "consumer: $name"
  local log=$work/$name.log
  if ! {
    cmake -S "$source" -B "$work/$name" -G Ninja -DCMAKE_BUILD_TYPE=Release \
      "-DCMAKE_PREFIX_PATH=$tree;$torch/share/cmake" \
      "-DTENSORFLOW_DIR=$tensorflow" "-DTORCH_DIR=$torch" &&
      cmake --build "$work/$name"
  } >"$log" 2>&1; then
    cat "$log"
    echo "consumer: $name does not build" >&2
    exit 1
  fi
  # Nothing but the program's own run path may lead to the libraries.
  env -u LD_LIBRARY_PATH -u PYTHONPATH "$work/$name/$program"
}

run cpp-install-tree tests/consumer consumer "$sdk"
run cpp-build-tree tests/consumer consumer "$build"
run c-install-tree tests/c_consumer c_consumer "$sdk"
run c-build-tree tests/c_consumer c_consumer "$build"

# An application that asks for an SDK of another series is told so when it configures.
mkdir -p "$work/wrong-version"
cat >"$work/wrong-version/CMakeLists.txt" <<'EOF'
cmake_minimum_required(VERSION 3.26...4.0)
project(wrong_version LANGUAGES NONE)
find_package(tensor_bridge 99 REQUIRED)
EOF
if cmake -S "$work/wrong-version" -B "$work/wrong-version/build" -G Ninja \
  "-DCMAKE_PREFIX_PATH=$sdk" >"$work/wrong-version.log" 2>&1; then
  echo "consumer: find_package accepted a version that is not there" >&2
  exit 1
fi
grep -q 'compatible with requested version' "$work/wrong-version.log"
echo 'consumer: all passed'
