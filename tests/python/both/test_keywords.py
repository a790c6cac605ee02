"""A keyword that a public function does not have is refused with those that it has."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from typing import Any

import pytest
import tensorflow as tf
import torch

import tensor_bridge
from tensor_bridge import TensorBridge

MODULES = ("", ".autograd", ".checkpoint", ".data", ".dlpack", ".records")
# What the package makes, not its users; composites and rules of two or three parts; a layer, whose
# other keywords are Keras's.
OTHERS = {
    *("DtypeRow", "Explanation", "StructureExplanation", "Stats", "Loader", "RecordBatch"),
    *("RecordStats", "Entry", "Layer", "Report", "Loaded", "Verification", "Quantization"),
    *("Ragged", "StringTensor", "PaddedImages", "Rule", "TorchLayer"),
}


def keywords(function: Any) -> list[str]:
    parameters = inspect.signature(function).parameters.values()
    return [
        p.name
        for p in parameters
        if p.name[0] != "_" and (p.kind is p.KEYWORD_ONLY or p.default is not p.empty)
    ]


def functions() -> Iterator[tuple[str, Any]]:
    for module in MODULES:
        package = importlib.import_module(f"tensor_bridge{module}")
        for name in package.__all__:
            value = getattr(package, name)
            is_error = inspect.isclass(value) and issubclass(value, Exception)
            if callable(value) and not is_error and name not in OTHERS and keywords(value):
                yield f"{module}.{name}".lstrip("."), value
    bridge = TensorBridge()
    for name, method in inspect.getmembers(bridge, inspect.ismethod):
        if name[0] != "_" and keywords(method):
            yield f"TensorBridge.{name}", method


FUNCTIONS = dict(functions())


def test_the_functions_are_found() -> None:
    assert {"to_tf", "explain", "TensorBridge.to_torch", "data.loader", "data.TorchDataset"} <= set(
        FUNCTIONS
    )
    assert {"checkpoint.convert", "records.loader", "records.RecordDataset"} <= set(FUNCTIONS)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_misspelt_keyword_is_refused_with_the_nearest_name(name: str) -> None:
    function = FUNCTIONS[name]
    value = torch.ones(1) if name.endswith("_tf") else tf.constant([1.0])
    parameters = inspect.signature(function).parameters.values()
    needed = [p for p in parameters if p.default is p.empty and p.kind is not p.KEYWORD_ONLY]
    for keyword in keywords(function):
        wrong = f"{keyword}_"
        with pytest.raises(TypeError) as caught:
            function(*[value] * len(needed), **{wrong: None})
        text = str(caught.value)
        assert f"got an unexpected keyword argument {wrong!r}; expected " in text
        assert text.endswith(f"; did you mean {keyword}?")
        assert "_service" not in text


def test_a_keyword_like_no_other_is_refused_with_all_names() -> None:
    with pytest.raises(TypeError) as caught:
        tensor_bridge.checkpoint.load("w", zzz=1)  # type: ignore[call-arg]
    assert str(caught.value) == (
        "load() got an unexpected keyword argument 'zzz'; expected path, verify or raw"
    )


def test_a_class_is_named_without_its_internal_base() -> None:
    with pytest.raises(TypeError, match=r"^TorchDataset\(\) got"):
        tensor_bridge.data.TorchDataset(None, prefetc=1)  # type: ignore[call-arg]


def test_other_wrong_arguments_are_python_s_own_errors() -> None:
    with pytest.raises(TypeError, match=r"load\(\) missing 1 required positional argument"):
        tensor_bridge.checkpoint.load()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"load\(\) takes 1 positional argument"):
        tensor_bridge.checkpoint.load("w", True)  # type: ignore[misc]
