"""The order of imports: torch uses the CUDA that it was built for, or its use is refused."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from fresh import Done, run_python

pytestmark = pytest.mark.alone

# The GPUs that this process sees; `run_python` hides them otherwise.
VISIBLE = {"CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "0")}
# Fails with another CUDA than torch's own, because the struct of another version is read.
USE = """
import torch
import tensorflow as tf
import tensor_bridge
for gpu in tf.config.list_physical_devices("GPU"):
    tf.config.experimental.set_memory_growth(gpu, True)
assert torch.cuda.get_device_properties(0).name == torch.cuda.get_device_name(0)
with tf.device("CPU:0"):
    host = tf.constant([1.0, 2.0])
with tf.device("GPU:0"):
    t = tf.identity(host)
x = tensor_bridge.to_torch(t)
assert x.is_cuda, x.device
assert tensor_bridge.to_tf(x, device="GPU:0").numpy().tolist() == [1.0, 2.0]
print(x.tolist())
"""


def run(code: str) -> Done:
    return run_python(code, **VISIBLE)


@pytest.mark.parametrize(
    "imports",
    [
        "import tensor_bridge\nimport tensorflow",
        "import tensor_bridge\ntensor_bridge.prepare()\nimport tensorflow",
        "import torch\nimport tensorflow",
        "import torch\nimport tensor_bridge\nimport tensorflow",
    ],
    ids=["tensor_bridge", "prepare", "torch", "torch and tensor_bridge"],
)
def test_imported_before_tensorflow_torch_has_its_own_cuda(imports: str) -> None:
    done = run(imports + USE)
    assert done.code == 0, done.err
    assert done.out.strip() == "[1.0, 2.0]"


def test_torch_s_python_code_is_not_imported_for_it() -> None:
    done = run(
        "import sys\nimport tensor_bridge\nimport tensorflow\n"
        "print('torch' in sys.modules, 'libtorch_cuda.so' in open('/proc/self/maps').read())"
    )
    assert done.code == 0, done.err
    from tensorflow.python.platform.build_info import build_info

    assert done.out.split() == ["False", str(build_info["is_cuda_build"])]


HIDDEN = """
import ctypes, sys
import tensor_bridge
plain = ctypes.CDLL
class Refusing(plain):
    def __init__(self, name, *args, **kwargs):
        if "torch_python" in str(name) and "torch" not in sys.modules:
            raise OSError("libcudart.so.13: cannot open shared object file")
        super().__init__(name, *args, **kwargs)
ctypes.CDLL = Refusing
import tensorflow
ctypes.CDLL = plain
assert "torch" in sys.modules
"""


def test_torch_is_imported_where_its_libraries_need_its_python_code() -> None:
    done = run(HIDDEN + USE)
    assert done.code == 0, done.err


REFUSED = """
import tensorflow as tf
import torch
import tensor_bridge
from tensor_bridge.data import loader
with tf.device("CPU:0"):
    host = tf.constant([1.0, 2.0])
    ds = tf.data.Dataset.from_tensors([1.0])
with tf.device("GPU:0"):
    t = tf.identity(host)
assert tensor_bridge.to_torch(host).tolist() == [1.0, 2.0]
uses = {
    "to_torch": lambda: tensor_bridge.to_torch(t),
    "device": lambda: tensor_bridge.to_torch(host, device="cuda"),
    "dlpack": lambda: tensor_bridge.dlpack.from_dlpack(t),
    "to_tf": lambda: tensor_bridge.to_tf(torch.ones(2), device="cuda"),
    "loader": lambda: loader(ds, device="cuda"),
    "pin": lambda: loader(ds, pin_memory=True),
}
for name, use in uses.items():
    try:
        use()
        print(name, "works")
    except tensor_bridge.FrameworkError as e:
        assert "import tensor_bridge (or torch) before TensorFlow" in str(e), e
        print(name, "refused")
print("explain", tensor_bridge.explain(t).action)
"""


def test_tensorflow_first_is_refused_where_torch_would_use_another_cuda() -> None:
    """It works if both are built for the same version of CUDA."""
    done = run(REFUSED)
    assert done.code == 0, done
    answers = dict(line.split() for line in done.out.splitlines())
    explained = answers.pop("explain")
    assert len(answers) == 6
    assert set(answers.values()) in ({"works"}, {"refused"})
    assert (explained == "refused") == (set(answers.values()) == {"refused"})


BOUND = re.compile(r"binding file (\S+) \[0\] to (\S+) \[0\]: normal symbol .(cu[a-zA-Z_]\w+)")


def test_no_call_of_torch_s_reaches_tensorflow_s_cuda(tmp_path: Path) -> None:
    """Checked with the linker's log, including linear algebra, which torch loads on first use."""
    subprocess.run(
        [
            sys.executable,
            "-c",
            "import tensor_bridge, tensorflow, torch, ctypes, pathlib\n"
            "lib = pathlib.Path(torch.__file__).parent / 'lib'\n"
            "[ctypes.CDLL(str(lib / f'libtorch_cuda{x}.so')) for x in ('', '_linalg')]\n",
        ],
        env=os.environ | VISIBLE | {"LD_DEBUG": "bindings", "LD_DEBUG_OUTPUT": f"{tmp_path}/ld"},
        check=True,
        capture_output=True,
    )
    bound: set[tuple[str, str]] = set()
    for file in tmp_path.iterdir():
        with file.open(errors="replace") as lines:
            for line in lines:
                if found := BOUND.search(line):
                    one, other = (Path(name).name for name in found.groups()[:2])
                    bound.add((one, other))
    of_torch = {other for one, other in bound if one.startswith(("libtorch", "libc10"))}
    of_tensorflow = {other for one, other in bound if one.startswith("libtensorflow")}
    assert any("cudart" in name for name in of_torch)
    assert not any("tensorflow" in name for name in of_torch)
    assert of_tensorflow
    assert not any("libcu" in name for name in of_tensorflow)
