"""Importing the package: it loads no framework, takes little time, and has the public names."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from fresh import run_forked, run_python
from package_copy import FROM_COPY, copy_of_the_package
from tree import ROOT

import tensor_bridge
from tensor_bridge import _C

PACKAGE = Path(tensor_bridge.__file__).parent
FRAMEWORKS = ("tensorflow", "torch", "numpy", "ml_dtypes", "jax", "keras", "triton")

LOADED = f"""
import json, sys
{{code}}
print(json.dumps([name for name in {FRAMEWORKS!r} if name in sys.modules]))
"""


def loaded_by(code: str) -> list[str]:
    """The heavy modules that are loaded after the code has run in a new interpreter."""
    names: list[str] = json.loads(run_python(LOADED.format(code=code)).check())
    return names


# ---- what an import loads ------------------------------------------------------------------------


def test_importing_loads_no_framework() -> None:
    assert loaded_by("import tensor_bridge") == []


@pytest.mark.parametrize("name", sorted(tensor_bridge._LAZY))
def test_using_a_name_loads_no_framework(name: str) -> None:
    assert loaded_by(f"import tensor_bridge; tensor_bridge.{name}") == []


def test_a_star_import_and_a_look_around_load_no_framework() -> None:
    code = """
from tensor_bridge import *
import tensor_bridge
dir(tensor_bridge), [getattr(tensor_bridge, name) for name in tensor_bridge.__all__]
tensor_bridge.dtypes(), tensor_bridge.testing.live_owners(), tensor_bridge.TensorBridge().version
tensor_bridge.explain(3), tensor_bridge.explain(object())
"""
    assert loaded_by(code) == []


@pytest.mark.parametrize("module", ["__init__", "errors"])
def test_the_check_can_fail(module: str, tmp_path: Path) -> None:
    package = copy_of_the_package(tmp_path)
    code = FROM_COPY.format(folder=str(tmp_path))
    assert loaded_by(code) == []
    source = package / f"{module}.py"
    source.write_text(source.read_text() + "\nimport numpy\n")
    assert loaded_by(code) == ["numpy"]


def test_native_libraries_of_the_frameworks_are_not_loaded_either() -> None:
    output = run_python(
        """
        import tensor_bridge
        tensor_bridge.TensorBridge()
        print(open("/proc/self/maps").read())
        """
    ).check()
    libraries = {Path(line.split()[-1]).name for line in output.splitlines() if ".so" in line}
    assert any(name.startswith("_C.") for name in libraries)
    assert "libtensor_bridge.so" in libraries
    heavy = re.compile(r"libtorch|libc10|tensorflow|libcu|multiarray")
    assert [name for name in libraries if heavy.search(name)] == []


def test_importing_is_quick() -> None:
    output = run_python(
        """
        import time
        before = time.process_time()
        import tensor_bridge
        print(time.process_time() - before)
        """
    ).check()
    # It takes 5 ms; a framework takes more than a second.
    assert float(output) < 0.5


def test_importing_starts_no_thread_and_leaves_the_environment_alone() -> None:
    run_python(
        """
        import os, signal, sys, threading
        before = dict(os.environ), list(sys.path), signal.getsignal(signal.SIGSEGV)
        tasks = len(os.listdir("/proc/self/task"))
        import tensor_bridge
        tensor_bridge.TensorBridge()
        assert before == (dict(os.environ), list(sys.path), signal.getsignal(signal.SIGSEGV))
        assert len(os.listdir("/proc/self/task")) == tasks
        assert threading.active_count() == 1
        """
    ).check()


def test_importing_again_gives_the_same_library() -> None:
    run_python(
        """
        import importlib, sys
        import tensor_bridge
        rows = tensor_bridge.dtypes()
        for name in [n for n in sys.modules if n.startswith("tensor_bridge") and "_C" not in n]:
            del sys.modules[name]
        again = importlib.import_module("tensor_bridge")
        assert again is not tensor_bridge
        assert again.dtypes() == rows
        assert again.convert_tf_to_pytorch is tensor_bridge.convert_tf_to_pytorch
        """
    ).check()


# ---- public names --------------------------------------------------------------------------------


PUBLIC_NAMES = Path(__file__).with_name("public_names.txt")


def public_modules() -> list[ModuleType]:
    """The modules with a page or a section in docs/reference."""
    names = ["", ".autograd", ".capi", ".checkpoint", ".checkpoint.rules", ".cli", ".config"]
    names += [".data", ".dlpack", ".doctor", ".errors", ".records", ".testing"]
    return [importlib.import_module(f"tensor_bridge{name}") for name in names]


def test_the_public_names_are_the_committed_ones() -> None:
    """Names that are removed or changed are listed in the changelog, "Renamed and removed"."""
    names = {f"{module.__name__}.{name}" for module in public_modules() for name in module.__all__}
    assert sorted(names) == PUBLIC_NAMES.read_text(encoding="utf-8").split()


@pytest.mark.parametrize("module", public_modules(), ids=lambda module: module.__name__)
def test_all_names_exist_and_are_public(module: ModuleType) -> None:
    assert len(set(module.__all__)) == len(module.__all__)
    for name in module.__all__:
        assert getattr(module, name) is not None
        assert not name.startswith("_") or name == "__version__"
        assert inspect.ismodule(getattr(module, name)) or inspect.getdoc(getattr(module, name))
    exec(f"from {module.__name__} import *", {})


@pytest.mark.parametrize("module", public_modules(), ids=lambda module: module.__name__)
def test_completion_shows_public_names_only(module: ModuleType) -> None:
    if hasattr(module, "_LAZY"):
        shown = {name for name in dir(module) if not name.startswith("__")}
        assert shown == {name for name in module.__all__ if not name.startswith("__")}


@pytest.mark.parametrize("module", public_modules(), ids=lambda module: module.__name__)
def test_every_class_says_what_its_objects_are(module: ModuleType) -> None:
    for name in module.__all__:
        if inspect.isclass(kind := getattr(module, name)):
            protocol = getattr(kind, "_is_protocol", False)
            assert protocol or kind.__repr__ is not object.__repr__, name


def test_every_public_name_is_in_all_and_listed() -> None:
    assert set(tensor_bridge._LAZY) < set(tensor_bridge.__all__)
    assert set(tensor_bridge.__all__) <= set(dir(tensor_bridge))
    for name in ("convert_tf_to_pytorch", "to_torch", "explain", "TensorBridge", "dtypes"):
        assert name in tensor_bridge.__all__


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"'tensor_bridge' has no attribute 'to_jax'"):
        _ = tensor_bridge.to_jax  # type: ignore[attr-defined]
    with pytest.raises(ImportError):
        exec("from tensor_bridge import to_jax", {})


# ---- types ---------------------------------------------------------------------------------------


def stub() -> ast.Module:
    return ast.parse((PACKAGE / "_C.pyi").read_text())


def stub_functions() -> dict[str, ast.FunctionDef]:
    # Of overloads the last one, which has all arguments.
    return {node.name: node for node in stub().body if isinstance(node, ast.FunctionDef)}


def stub_signature(function: ast.FunctionDef) -> inspect.Signature:
    """The stub's signature, without annotations."""
    arguments = function.args
    parameters = [
        inspect.Parameter(a.arg, inspect.Parameter.POSITIONAL_ONLY) for a in arguments.posonlyargs
    ]
    parameters += [
        inspect.Parameter(a.arg, inspect.Parameter.POSITIONAL_OR_KEYWORD) for a in arguments.args
    ]
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        value = inspect.Parameter.empty if default is None else ast.literal_eval(default)
        kind = inspect.Parameter.KEYWORD_ONLY
        parameters.append(inspect.Parameter(argument.arg, kind, default=value))
    if arguments.kwarg is not None:
        kind = inspect.Parameter.VAR_KEYWORD
        parameters.append(inspect.Parameter(arguments.kwarg.arg, kind))
    return inspect.Signature(parameters)


def test_the_stub_has_the_names_of_the_extension() -> None:
    built = {name for name in vars(_C) if not name.startswith("_")} | {"__version__"}
    constants = {
        node.target.id
        for node in stub().body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    classes = {node.name for node in stub().body if isinstance(node, ast.ClassDef)}
    assert built == set(stub_functions()) | constants | classes


@pytest.mark.parametrize("name", stub_functions())
def test_the_stub_has_the_signatures_of_the_extension(name: str) -> None:
    function = getattr(_C, name)
    expected = stub_signature(stub_functions()[name])
    # Python 3.13 gives functions with one argument a signature.
    if function.__text_signature__ not in (None, "($self, object, /)", "($module, object, /)"):
        assert inspect.signature(function) == expected
        return
    # Without a signature text, the extension itself must accept this number of arguments.
    count = len(expected.parameters) - any(
        p.kind is p.VAR_KEYWORD for p in expected.parameters.values()
    )
    for wrong in {count - 1, count + 1} - {-1}:
        with pytest.raises(TypeError, match=r"argument"):
            function(*([None] * wrong))


def test_every_function_of_the_stub_is_annotated() -> None:
    for function in stub_functions().values():
        assert function.returns is not None
        arguments = [*function.args.posonlyargs, *function.args.kwonlyargs]
        assert all(argument.annotation is not None for argument in arguments)


def test_public_functions_of_the_extension_have_signature_text() -> None:
    for name in tensor_bridge.__all__:
        value: Any = getattr(tensor_bridge, name)
        if inspect.isbuiltin(value):
            assert value.__text_signature__, name
            assert "Args:" in (value.__doc__ or "")
            assert "Raises:" in (value.__doc__ or "")


def test_the_package_says_that_it_is_typed() -> None:
    assert (PACKAGE / "py.typed").is_file()
    assert (PACKAGE / "_C.pyi").is_file()


# ---- version -------------------------------------------------------------------------------------


def test_the_version_is_that_of_the_header() -> None:
    header = (ROOT / "include" / "tensor_bridge" / "version.h").read_text()
    match = re.search(r'TENSOR_BRIDGE_VERSION "([^"]+)"', header)
    assert match is not None
    parts = [
        re.search(rf"TENSOR_BRIDGE_VERSION_{part} (\d+)", header)
        for part in ("MAJOR", "MINOR", "PATCH")
    ]
    assert ".".join(part.group(1) for part in parts if part is not None) == match.group(1)
    assert tensor_bridge.__version__ == match.group(1)
    assert _C.__version__ == match.group(1)
    assert tensor_bridge.TensorBridge().version == match.group(1)
    assert metadata.version("tf-torch-tensor-bridge") == match.group(1)


def test_both_interfaces_are_one_library() -> None:
    import tensorflow as tf

    bridge = tensor_bridge.TensorBridge()
    before = tensor_bridge.testing.live_owners()
    assert bridge.live_owners() == before
    kept = [interface.to_torch(tf.constant([1.0])) for interface in (bridge, tensor_bridge)]
    assert bridge.live_owners() == tensor_bridge.testing.live_owners() == before + 2
    kept.clear()
    assert bridge.live_owners() == before


@pytest.mark.parametrize("path", ["libdoes_not_exist.so", "libc.so.6", "/", "/dev/null"])
def test_a_library_that_is_not_ours_is_a_framework_error(path: str) -> None:
    with pytest.raises(ImportError, match="Leave library= out") as caught:
        tensor_bridge.TensorBridge(path)
    assert caught.type is tensor_bridge.FrameworkError


def test_the_library_can_be_named() -> None:
    beside = Path(_C.__file__).parent / "libtensor_bridge.so"
    for path in (beside, str(beside)):
        assert tensor_bridge.TensorBridge(path).version == tensor_bridge.__version__


def test_every_public_module_can_be_loaded_again() -> None:
    run_forked(
        """
import importlib, pkgutil

path = tensor_bridge.__path__
walked = [m.name for m in pkgutil.walk_packages(path, "tensor_bridge.") if "._" not in m.name]
names = [name for name in walked if not name.split(".")[1].startswith("lib")]
assert "tensor_bridge.composite" in names and len(names) > 15, names
before = tensor_bridge.to_torch(tf.ragged.constant([[1], [2, 3]]))
for name in ["tensor_bridge", *names]:
    importlib.reload(importlib.import_module(name))
after = tensor_bridge.to_torch({"r": tf.ragged.constant([[1], [2, 3]]), "s": tf.constant(["a"])})
assert [x.tolist() for x in after["r"].unbind()] == [x.tolist() for x in before.unbind()]
assert after["s"].to_str() == ["a"]
""",
        timeout=120,
    ).check()
