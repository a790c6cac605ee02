#!/usr/bin/env bash
# Uses tensor_bridge like its users: applications of the SDK with find_package, against the install
# tree, the build tree and the wheel, and the wheel from Python. Expects that the preset `test` is built.
#
#   tests/consumer/run.sh PYTHON [WHEEL]     # by default a wheel of this tree, only for this torch
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

# The applications' build folders are kept, so that unchanged files are not compiled again.
rm -rf "$sdk" "$work/wrong-version" "$work"/wheel/*.whl
cmake --install "$build" --prefix "$sdk" >/dev/null

# run NAME SOURCE PROGRAM TREE [ARGUMENT...]: configures SOURCE against TREE, builds it, runs PROGRAM.
run() {
  local name=$1 source=$2 program=$3 tree=$4
  shift 4
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
  # Only the program's own run path may lead to the libraries.
  env -u LD_LIBRARY_PATH -u PYTHONPATH "$work/$name/$program" "$@"
}

run cpp-install-tree tests/consumer consumer "$sdk"
run cpp-build-tree tests/consumer consumer "$build"
# Two arguments: major and minor.
release=$("$python" -c "import importlib.metadata as m; print(*m.version('torch').split('.')[:2])")
run c-install-tree tests/c_consumer c_consumer "$sdk" $release
run c-build-tree tests/c_consumer c_consumer "$build" $release

# The example must print the lines of its first comment, in a process without Python.
run example examples/cpp example "$sdk" | tee "$work/example.out"
if ldd "$work/example/example" | grep libpython; then
  echo 'consumer: the example loads Python' >&2
  exit 1
fi
"$python" - examples/cpp/main.cc "$work/example.out" <<'EOF'
import pathlib
import sys

source, printed = (pathlib.Path(name).read_text().splitlines() for name in sys.argv[1:])
expected = [line.removeprefix("//   ") for line in source if line.startswith("//   ")]
printed = [line for line in printed if not line.startswith("consumer:")]
if len(expected) != len(printed):
    sys.exit(f"consumer: the example prints {len(printed)} lines, its comment has {len(expected)}")
for want, got in zip(expected, printed):
    if got != want and not (want.endswith("...") and got.startswith(want[:-3])):
        sys.exit(f"consumer: the example prints {got!r}, its comment says {want!r}")
EOF

# CMake must refuse an application that requires an SDK of another series.
mkdir -p "$work/wrong-version"
cat >"$work/wrong-version/CMakeLists.txt" <<'EOF'
cmake_minimum_required(VERSION 3.26...4.0)
project(wrong_version LANGUAGES NONE)
find_package(tensor_bridge 99 REQUIRED)
EOF
if cmake -S "$work/wrong-version" -B "$work/wrong-version/build" -G Ninja \
  "-DCMAKE_PREFIX_PATH=$sdk" >"$work/wrong-version.log" 2>&1; then
  echo "consumer: find_package accepted a wrong version" >&2
  exit 1
fi
grep -q 'compatible with requested version' "$work/wrong-version.log"

echo 'consumer: wheel'
if [ $# -gt 1 ]; then
  wheel=$2
else
  "$python" -m pip wheel --quiet --no-deps --no-build-isolation -w "$work/wheel" . \
    2>"$work/wheel.log" || { cat "$work/wheel.log" >&2; exit 1; }
  wheel=$(echo "$work"/wheel/*-cp310-abi3-linux_*.whl)
fi
unpacked=$work/wheel/unpacked
rm -rf "$unpacked.new"
"$python" -m zipfile -e "$wheel" "$unpacked.new"
# Unchanged files keep their old times, so that nothing is compiled again.
if ! diff -r -x __pycache__ "$unpacked.new" "$unpacked" >/dev/null 2>&1; then
  rm -rf "$unpacked"
  mv "$unpacked.new" "$unpacked"
fi
# -S: without the import hook of an editable installation, which would come first.
config() {
  PYTHONPATH=$unpacked:$(dirname "$torch") "$python" -S -m tensor_bridge.config "$1"
}
for option in --cmakedir --includedir --libdir; do
  case $(config $option) in
    "$unpacked"/tensor_bridge*) ;;
    *) echo "consumer: config $option leads out of the wheel" >&2; exit 1 ;;
  esac
done
run cpp-wheel tests/consumer consumer "$(config --cmakedir)"
run c-wheel tests/c_consumer c_consumer "$(config --cmakedir)" $release

TF_CPP_MIN_LOG_LEVEL=3 PYTHONPATH=$unpacked:$(dirname "$torch") "$python" -S - <<'EOF'
import tensorflow as tf

import tensor_bridge

assert "unpacked" in tensor_bridge._C.__file__, tensor_bridge._C.__file__
constant = tf.constant([1.0, 2.0])
for convert in (tensor_bridge.to_torch, tensor_bridge.TensorBridge().to_torch):
    converted = convert(constant, copy=False)
    assert tensor_bridge.testing.shares_memory(constant, converted)
    converted.add_(1)
    assert converted.tolist() == [2.0, 3.0]
    assert bool(tf.reduce_all(constant == [1.0, 2.0]))
EOF
echo 'consumer: all passed'
