"""Frameworks that are missing, foreign, broken or in conflict, and every order of imports.

The simulated installations are folders on the module path of a process with the real TensorFlow.
The last claims use the real torch, so they also show that a repaired installation works without a
restart.
"""

from __future__ import annotations

import _ctypes
from pathlib import Path

import needs
import pytest
from claims import claims_test
from fresh import TENSORFLOW_FIRST, TORCH_FIRST, WITHOUT_TORCH, run_forked, run_python

from tensor_bridge._frameworks import adapters

TF_VERSION = needs.tensorflow_release

INSTALLED = '''
import contextlib, gc, importlib, sys, tempfile
from pathlib import Path

@contextlib.contextmanager
def installed(files, framework="torch"):
    """Makes these files importable, and takes the real installations off the path."""
    path = list(sys.path)
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            file = Path(folder) / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        sys.path[:] = [folder] + [p for p in path if not p.endswith("-packages")]
        importlib.invalidate_caches()
        try:
            yield
        finally:
            sys.path[:] = path
            importlib.invalidate_caches()
            for name in list(sys.modules):
                if name == framework or name.startswith(framework + "."):
                    del sys.modules[name]
'''

PRELUDE = (
    INSTALLED
    + """
import tensorflow as tf
import tensor_bridge
from tensor_bridge.testing import live_owners

assert "torch" not in sys.modules
INTERFACES = (tensor_bridge, tensor_bridge.TensorBridge())
VALUES = (tf.constant([1.0, 2.0]), tf.Variable([1.0, 2.0]))
gc.freeze()

def fails_with(*words, name="torch"):
    for interface in INTERFACES:
        for value in VALUES:
            for options in ({}, {"copy": True}):
                try:
                    interface.to_torch(value, **options)
                except ImportError as e:
                    assert type(e) is tensor_bridge.FrameworkError, e
                    assert isinstance(e, tensor_bridge.TensorBridgeError)
                    for word in words:
                        assert word in str(e), (word, str(e))
                    assert name is None or e.name == name
                    explanation = interface.explain(value, **options)
                    assert explanation.action == "refused"
                    assert explanation.error is tensor_bridge.FrameworkError
                    assert explanation.reason == str(e)
                else:
                    raise AssertionError("converted")
    gc.collect()
    assert live_owners() == 0

def torch_that(code):
    return installed({"torch/__init__.py": code})
"""
)

RANGE = '"expected torch 2.6 to 2.15", "pip install \'torch>=2.6,<2.16\'"'
BROKEN = '"torch is installed but cannot be imported", "pip install --force-reinstall torch"'

CLAIMS = {
    "torch is not installed": """
        with installed({}):
            fails_with("torch is not installed", "2.6 to 2.15")
            fails_with("Install it: pip install 'torch>=2.6,<2.16'")
        """,
    "torch is barred": """
        sys.modules["torch"] = None
        try:
            fails_with("torch is not installed", "pip install")
        finally:
            del sys.modules["torch"]
        """,
    "torch is too old": f"""
        for version in ("2.5.1", "2.5.1+cu124", "1.13.1", "0.4"):
            with torch_that(f"__version__ = {{version!r}}"):
                fails_with(f"got torch {{version}}", {RANGE})
        """,
    # A newer torch is used with copies (test_copying.py), but only a real one.
    "what says that it is a newer torch is not loaded": """
        for version in ("2.99.0", "2.99.0.dev20270101+cpu", "3.0.0a0+git1234567", "10.0"):
            with torch_that(f"__version__ = {version!r}"):
                fails_with("torch is not loaded in this process", "import torch", name=None)
        """,
    "torch has no readable version": f"""
        for version in ("", "unknown", "2", "2.x", "two.thirteen"):
            with torch_that(f"__version__ = {{version!r}}"):
                fails_with("got torch", {RANGE})
        """,
    "torch raises when it is imported": f"""
        for error in (
            "ImportError('libcudart.so.12: cannot open shared object file')",
            "OSError('libtorch_cpu.so: undefined symbol')",
            "RuntimeError('the driver is too old')",
            "AttributeError('partially initialized module')",
            "ZeroDivisionError()",
        ):
            with torch_that(f"raise {{error}}"):
                fails_with(error.split("(")[0], {BROKEN})
        """,
    "torch lacks something that it needs": f"""
        with torch_that("import sympy_that_is_not_there"):
            fails_with("No module named 'sympy_that_is_not_there'", {BROKEN})
        with torch_that("import torch.part_that_is_not_there"):
            fails_with("No module named 'torch.part_that_is_not_there'", {BROKEN})
        """,
    "torch's files are damaged": f"""
        with torch_that("def ("):
            fails_with("SyntaxError", {BROKEN})
        """,
    "only a folder is left of torch": """
        with installed({"torch/lib/left_over.txt": ""}):
            fails_with("something else of that name", "/torch;", "--force-reinstall torch")
        """,
    "a file of the caller's has torch's name": """
        with installed({"torch.py": "x = 1"}):
            fails_with("something else of that name", "torch.py;", "rename or remove it")
        """,
    "torch ends the program": """
        for interface in INTERFACES:
            with torch_that("raise SystemExit(3)"):
                try:
                    interface.to_torch(VALUES[0])
                except SystemExit as e:
                    assert e.code == 3
                else:
                    raise AssertionError("the exit was swallowed")
        """,
    "torch is imported without its library": """
        with torch_that("__version__ = '2.13.0'"):
            fails_with("torch is not loaded in this process", "import torch", name=None)
        """,
    "the other project of the name is installed": """
        for kind in ("dist-info/METADATA", "egg-info/PKG-INFO"):
            metadata = "Metadata-Version: 2.1\\nName: tensor-bridge\\nVersion: 0.3.1\\n"
            with installed({f"tensor_bridge-0.3.1.{kind}": metadata}):
                fails_with(
                    "tensor-bridge 0.3.1",
                    "another project",
                    "pip uninstall -y tensor-bridge tf-torch-tensor-bridge",
                    "from a checkout (pip install --no-build-isolation",
                    name="tensor_bridge",
                )
        """,
    # From here on the real torch is loaded, because a process cannot have two.
    "no adapter for this torch": """
        import torch
        version = torch.__version__
        for other, release in (("2.6.0", "2.6"), ("2.12.1+cpu", "2.12")):
            torch.__version__ = other
            fails_with(f"adapter for torch {release}", "Build it again where", name=None)
        torch.__version__ = version
        """,
    "TensorFlow is too old or too new": """
        version = tf.__version__
        for other in ("2.11.1", "1.15.5", "2.22.0", "2.22.0-dev20270101", "3.0.0", "next"):
            tf.__version__ = other
            fails_with(
                "expected tensorflow 2.12 to 2.21",
                f"got tensorflow {other}",
                "pip install 'tensorflow>=2.12,<2.22'",
                name="tensorflow",
            )
        tf.__version__ = version
        """,
    "a mended installation works without a restart": """
        for interface in INTERFACES:
            for value in VALUES:
                assert interface.to_torch(value).tolist() == [1.0, 2.0]
                assert interface.explain(value).action == "shared"
        gc.collect()
        assert live_owners() == 0
        """,
    "what was checked once is not checked again": """
        tf.__version__, version = "1.0", tf.__version__
        for interface in INTERFACES:
            assert interface.to_torch(VALUES[0]).tolist() == [1.0, 2.0]
        tf.__version__ = version
        """,
    "another torch afterwards is refused": """
        import torch
        other = 7 if torch.__version__.startswith("2.6.") else 6
        status = INTERFACES[1]._library.tb_use_torch(2, other)
        assert status == 10, status
        message = INTERFACES[1]._library.tb_last_error().decode()
        assert "already uses torch" in message, message
        assert INTERFACES[1].to_torch(VALUES[0]).tolist() == [1.0, 2.0]
        """,
}


HAS_ALL = len(adapters()) > 1
MARKS = {
    "no adapter for this torch": pytest.mark.skipif(HAS_ALL, reason="the wheel has every adapter")
}


LEFT_OUT = MARKS if HAS_ALL else {}
test_when = claims_test(
    PRELUDE,
    {name: code for name, code in CLAIMS.items() if name not in LEFT_OUT},
    run_python,
    needs.parameters(CLAIMS, MARKS),
)


# ---- the conversion to TensorFlow, which does import it ------------------------------------------

TO_TF_PRELUDE = (
    INSTALLED
    + """
import torch
import tensor_bridge

assert "tensorflow" not in sys.modules
X = torch.ones(2)
INTERFACES = (tensor_bridge, tensor_bridge.TensorBridge())

def fails_with(*words):
    for interface in INTERFACES:
        for options in ({}, {"copy": True}):
            try:
                interface.to_tf(X, **options)
            except ImportError as e:
                assert type(e) is tensor_bridge.FrameworkError, e
                for word in words:
                    assert word in str(e), (word, str(e))
                assert e.name == "tensorflow"
            else:
                raise AssertionError("converted")
    explanation = tensor_bridge.explain(X)
    assert explanation.action == "refused"
    assert explanation.error is tensor_bridge.FrameworkError

def tensorflow_that(code):
    return installed({"tensorflow/__init__.py": code}, "tensorflow")
"""
)

TF_RANGE = '"expected tensorflow 2.12 to 2.21", "pip install \'tensorflow>=2.12,<2.22\'"'
TF_BROKEN = (
    '"TensorFlow is installed but cannot be imported", "pip install --force-reinstall tensorflow"'
)

TO_TF_CLAIMS = {
    "TensorFlow is not installed": """
        with installed({}, "tensorflow"):
            fails_with("TensorFlow is not installed", "2.12 to 2.21")
            fails_with("Install it: pip install 'tensorflow>=2.12,<2.22'")
        """,
    "TensorFlow is barred": """
        sys.modules["tensorflow"] = None
        try:
            fails_with("TensorFlow is not installed", "pip install")
        finally:
            del sys.modules["tensorflow"]
        """,
    "TensorFlow is too old or too new": f"""
        for version in ("2.11.1", "1.15.5", "2.22.0", "3.0.0", "next", ""):
            with tensorflow_that(f"__version__ = {{version!r}}"):
                fails_with(f"got tensorflow {{version}}", {TF_RANGE})
        """,
    "TensorFlow raises when it is imported": f"""
        for error in ("ImportError('DLL')", "OSError('x')", "RuntimeError('y')", "TypeError('z')"):
            with tensorflow_that(f"raise {{error}}"):
                fails_with(error.split("(")[0], {TF_BROKEN})
        """,
    "TensorFlow lacks something that it needs": f"""
        with tensorflow_that("import absl_that_is_not_there"):
            fails_with("No module named 'absl_that_is_not_there'", {TF_BROKEN})
        with tensorflow_that("__version__ = '2.21.0'"):
            fails_with("No module named 'tensorflow.python'", {TF_BROKEN})
        """,
    "only a folder is left of TensorFlow": """
        with installed({"tensorflow/left_over.txt": ""}, "tensorflow"):
            fails_with("something else of that name", "/tensorflow;", "remove it")
        """,
    "a mended installation works without a restart": """
        for interface in INTERFACES:
            assert interface.to_tf(X).numpy().tolist() == [1.0, 1.0]
        assert "tensorflow" in sys.modules
        """,
}


test_to_tf_when = claims_test(TO_TF_PRELUDE, TO_TF_CLAIMS, run_python)


# ---- TensorFlow is never imported ----------------------------------------------------------------


def test_to_torch_never_imports_tensorflow() -> None:
    run_python(
        """
        import sys
        import tensor_bridge

        class Barrier:
            def find_spec(self, name, path=None, target=None):
                assert name.split(".")[0] not in ("tensorflow", "keras"), name
                return None

        sys.meta_path.insert(0, Barrier())
        values = [None, 3, "text", b"bytes", object(), int, ..., range(3), {1, 2}]
        for interface in (tensor_bridge, tensor_bridge.TensorBridge()):
            for value in values:
                try:
                    interface.to_torch(value)
                except TypeError as e:
                    assert type(e) is tensor_bridge.UnsupportedTypeError
                    assert "TensorFlow is not loaded in this process" in str(e), e
                else:
                    raise AssertionError(f"{value!r} was converted")
                assert interface.explain(value).error is tensor_bridge.UnsupportedTypeError
        assert "torch" not in sys.modules

        import torch
        for interface in (tensor_bridge, tensor_bridge.TensorBridge()):
            try:
                interface.to_torch(torch.ones(2))
            except TypeError as e:
                assert "nothing to convert" in str(e)
            else:
                raise AssertionError("converted")
        assert not any(name.startswith("tensorflow") for name in sys.modules)
        """
    ).check()


# ---- orders --------------------------------------------------------------------------------------

USE = """
t = tensorflow.constant([1.0, 2.0]) * 1
v = tensorflow.Variable([3.0, 4.0])
for interface in (tensor_bridge, tensor_bridge.TensorBridge()):
    x, y = interface.to_torch(t), interface.to_torch(v)
    assert tensor_bridge.testing.shares_memory(t, x)
    assert tensor_bridge.testing.shares_memory(v, y)
    assert (x + y).tolist() == [4.0, 6.0]
    x.zero_(), y.zero_()
    assert t.numpy().tolist() == [1.0, 2.0]
    assert v.numpy().tolist() == [3.0, 4.0]
    del x, y
assert tensor_bridge.testing.live_owners() == 0
import torch
a = tensorflow.random.uniform([64, 64])
assert torch.linalg.svd(tensor_bridge.to_torch(tensorflow.linalg.matmul(a, a))).S.shape == (64,)
"""


IMPORTED = {
    ("tensor_bridge", "tensorflow"): WITHOUT_TORCH,
    ("torch", "tensorflow"): TORCH_FIRST,
    ("tensorflow", "torch"): TENSORFLOW_FIRST,
}


@pytest.mark.parametrize(
    "order",
    [
        ("tensor_bridge", "tensorflow"),  # torch is imported by the first conversion
        ("tensor_bridge", "torch", "tensorflow"),
        ("torch", "tensorflow", "tensor_bridge"),
        ("tensorflow", "torch", "tensor_bridge"),
    ],
    ids=" ".join,
)
def test_any_order_of_imports_works(order: tuple[str, ...]) -> None:
    # With triton installed, importing TensorFlow first gives a warning: test_triton.py.
    code = "\n".join(f"import {name}" for name in order) + USE
    code = "import warnings\nwarnings.filterwarnings('ignore', 'TensorFlow')\n" + code
    if order[:2] in IMPORTED:
        run_forked(code, after=(IMPORTED[order[:2]],)).check()
    else:
        run_python(code).check()


# ---- triton ----------------------------------------------------------------------------------


loaded_globally = pytest.mark.skipif(
    not (2, 19) <= TF_VERSION <= (2, 21), reason="TensorFlow loads locally, so triton is safe"
)


@pytest.fixture
def triton(tmp_path: Path) -> str:
    """A folder for the path with a triton that ends the process, like the real one."""
    (tmp_path / "triton").mkdir()
    (tmp_path / "triton" / "__init__.py").write_text("import os\nos.abort()\n")
    return str(tmp_path)


@pytest.mark.parametrize(
    "value",
    [
        "tf.constant([1.0])",
        "tf.Variable([1.0])",
        "tf.constant(['a'])",
        "[tf.constant([1.0])]",
        "tf.sparse.from_dense([[1.0, 0.0]])",
        pytest.param("tf.ragged.constant([[1], [2, 3]])", marks=loaded_globally),
    ],
)
def test_a_conversion_does_not_load_triton(value: str, triton: str) -> None:
    """TensorFlow 2.19 to 2.21 are loaded globally: triton after them ends the process."""
    run_forked(
        f"""
        import sys, warnings
        import tensor_bridge
        # torch 2.12 says so although check_invariants=False is given.
        warnings.filterwarnings("ignore", "Sparse invariant checks are implicitly disabled")
        # What is to come is told once; here it does not come.
        warnings.filterwarnings("ignore", "TensorFlow .* was imported before tensor_bridge")
        sys.path.insert(0, {triton!r})
        assert "torch._dynamo" not in sys.modules
        x = tensor_bridge.to_torch({value})
        tensor_bridge.to_tf(x)
        assert "torch._dynamo" not in sys.modules
        assert "triton" not in sys.modules
        """,
        after=(TENSORFLOW_FIRST,),
    ).check()


GLOBAL = "import ctypes\nassert hasattr(ctypes.CDLL(None), 'TFE_NewContext') is {}\n"
NESTED = """
import sys, warnings
warnings.filterwarnings("ignore", "TensorFlow .* was imported before tensor_bridge")
sys.path.insert(0, {!r})
import tensor_bridge, torch
from tensor_bridge._triton import import_aborts
x = tensor_bridge.to_torch(tf.ragged.constant([[1], [2, 3]]))
assert [y.tolist() for y in x.unbind()] == [[1], [2, 3]]
"""


@loaded_globally
def test_global_loading_is_seen_and_row_lengths_are_known_without_triton(triton: str) -> None:
    run_forked(
        GLOBAL.format(True) + NESTED.format(triton) + "assert import_aborts()\n"
        "assert 'torch._dynamo' not in sys.modules\n"
        "assert x._maybe_max_seqlen == 2 and x._maybe_min_seqlen == 1\n"
        "try:\n"
        "    tensor_bridge.prepare()\n"
        "except tensor_bridge.FrameworkError as e:\n"
        "    assert 'before TensorFlow is imported' in str(e), e\n"
        "else:\n"
        "    raise AssertionError('too late, and not refused')\n",
        after=(TENSORFLOW_FIRST,),
    ).check()


@loaded_globally
def test_after_prepare_triton_may_come_to_the_path_and_tensorflow_is_as_it_is(triton: str) -> None:
    library = Path(triton, "triton", "_C", "libtriton.so")
    library.parent.mkdir()
    library.symlink_to(_ctypes.__file__)  # Any library; the code below sees which one is loaded.
    run_python(
        "import tensor_bridge\ntensor_bridge.prepare()\ntensor_bridge.prepare()\n"
        f"import sys\nsys.path.insert(0, {triton!r})\n"
        "import tensorflow as tf\n"
        + GLOBAL.format(True)
        + "from tensor_bridge._triton import import_aborts\n"
        "assert not import_aborts()\n"
        "tensor_bridge.prepare()\n"
        "t = tf.constant([1.0]) * 2\n"
        "assert tensor_bridge.testing.shares_memory(t, tensor_bridge.to_torch(t))\n"
    ).check()


@loaded_globally
@pytest.mark.parametrize(
    "library", [pytest.param(None, marks=pytest.mark.exhaustive), "no library"]
)
def test_a_triton_that_cannot_be_loaded_before_is_told_of(library: str | None, triton: str) -> None:
    """Its import might end the process."""
    if library is not None:
        Path(triton, "triton", "_C").mkdir()
        Path(triton, "triton", "_C", "libtriton.so").write_text(library)
    run_python(
        f"import sys\nsys.path.insert(0, {triton!r})\n"
        "import tensor_bridge\nimport tensorflow as tf\n"
        "from tensor_bridge._triton import import_aborts\n"
        "assert import_aborts()\n"
    ).check()
