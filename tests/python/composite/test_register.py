"""Users register their own composite types."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import tensorflow as tf
import torch
from fresh import run_python
from refusals import assert_refused
from sharing import owners

import tensor_bridge
from tensor_bridge.testing import shares_memory


@dataclass
class Boxes:
    corners: Any
    scores: Any
    unit: str


class TorchBoxes:
    def __init__(self, corners: Any, scores: Any, unit: str) -> None:
        self.corners, self.scores, self.unit = corners, scores, unit


class Derived(Boxes):
    pass


FUNCTIONS: dict[str, Any] = {
    "tf_flatten": lambda b: ((b.corners, b.scores), b.unit, ("corners", "scores")),
    "torch_unflatten": lambda unit, parts: TorchBoxes(*parts, unit),
    "torch_flatten": lambda b: ((b.corners, b.scores), b.unit),
    "tf_unflatten": lambda unit, parts: Boxes(*parts, unit),
}


@pytest.fixture
def registered() -> Iterator[None]:
    tensor_bridge.register_composite("boxes", Boxes, TorchBoxes, **FUNCTIONS)
    yield
    tensor_bridge.unregister_composite("boxes")


def boxes() -> Boxes:
    return Boxes(tf.ones([2, 4]), tf.constant([0.5, 1.0]) * 1, "pixel")


def test_both_directions(registered: None) -> None:
    b = boxes()
    with owners():
        x = tensor_bridge.to_torch(b)
        assert type(x) is TorchBoxes
        assert x.unit == "pixel"
        assert shares_memory(b.corners, x.corners)
        assert shares_memory(b.scores, x.scores)
        again = tensor_bridge.to_tf(x)
        assert type(again) is Boxes
        assert again.scores.numpy().tolist() == [0.5, 1.0]
        x.scores.zero_()
        assert b.scores.numpy().tolist() == [0.5, 1.0]
        del x


def test_in_a_structure_and_with_keywords(registered: None) -> None:
    with owners():
        x = tensor_bridge.to_torch({"b": [boxes()]}, copy=True)
        assert type(x["b"][0]) is TorchBoxes
    assert type(tensor_bridge.to_tf(x)["b"][0]) is Boxes
    assert tensor_bridge.to_torch([x["b"][0], tf.constant(1)])[0] is x["b"][0]


def test_subclasses_are_found(registered: None) -> None:
    x = tensor_bridge.to_torch(Derived(tf.ones([1, 4]), tf.constant([1.0]), "pixel"))
    assert type(x) is TorchBoxes


def test_components_may_be_composites_and_structures(registered: None) -> None:
    x = tensor_bridge.to_torch(Boxes([tf.constant(1)], tf.ragged.constant([[1], [2, 3]]), "x"))
    assert x.corners[0].item() == 1
    assert x.scores.layout is torch.jagged


def test_explain_tells_the_components(registered: None) -> None:
    explanation = tensor_bridge.explain(boxes())
    assert (explanation.kind, explanation.action) == ("boxes", "shared")
    assert [name for name, _ in explanation.parts] == ["corners", "scores"]
    again = tensor_bridge.explain(tensor_bridge.to_torch(boxes()))
    assert [name for name, _ in again.parts] == ["[0]", "[1]"]


def test_explain_tells_the_leaves_of_a_component_that_is_a_structure(registered: None) -> None:
    ragged = tf.ragged.constant([[1], [2, 3]])
    b = Boxes({"a": [tf.constant(1), None], "b": ragged}, tf.constant([1.0]), "x")
    explanation = tensor_bridge.explain(b)
    assert explanation.action == "shared"
    corners = dict(explanation.parts)["corners"]
    assert [path for path, _ in corners.parts] == ["['a'][0]", "['b']"]
    back = tensor_bridge.explain(tensor_bridge.to_torch(b), copy=True)
    assert [(part.kind, part.action) for _, part in back.parts] == [
        ("dict", "copied"),
        (None, "copied"),
    ]
    refused = tensor_bridge.explain(Boxes([object()], tf.constant([1.0]), "x"))
    assert refused.error is tensor_bridge.UnsupportedTypeError
    assert refused.reason.startswith("corners: [0]: ")


def test_an_error_names_the_component(registered: None) -> None:
    broken = Boxes(tf.ones([1]), tf.Variable(1.0).handle, "pixel")
    assert_refused(tensor_bridge, broken, tensor_bridge.UnsupportedDtypeError, "^scores: ")


def test_it_ends_with_unregistering() -> None:
    tensor_bridge.register_composite("boxes", Boxes, TorchBoxes, **FUNCTIONS)
    tensor_bridge.unregister_composite("boxes")
    # A dataclass is a node of a structure, and is rebuilt with its own class.
    assert type(tensor_bridge.to_torch(boxes())) is Boxes
    with pytest.raises(ValueError, match="no composite named 'boxes'"):
        tensor_bridge.unregister_composite("boxes")
    with pytest.raises(ValueError, match="no composite named 'ragged'"):
        tensor_bridge.unregister_composite("ragged")


def test_duplicates_are_refused_and_change_nothing(registered: None) -> None:
    class Other:
        pass

    class Another:
        pass

    register = tensor_bridge.register_composite
    with pytest.raises(ValueError, match="named 'boxes' is registered already"):
        register("boxes", Other, Another, **FUNCTIONS)
    with pytest.raises(ValueError, match="named 'ragged' is registered already"):
        register("ragged", Other, Another, **FUNCTIONS)
    with pytest.raises(ValueError, match=r"Boxes is registered already, by composite 'boxes'"):
        register("again", Boxes, Other, **FUNCTIONS)
    with pytest.raises(ValueError, match=r"TorchBoxes is registered already"):
        register("again", Other, TorchBoxes, **FUNCTIONS)
    with pytest.raises(ValueError, match=r"RaggedTensor is registered already"):
        register("again", tf.RaggedTensor, Other, **FUNCTIONS)
    assert type(tensor_bridge.to_torch(boxes())) is TorchBoxes
    with pytest.raises(ValueError, match="'again'"):
        tensor_bridge.unregister_composite("again")


def test_a_class_that_was_looked_up_while_it_was_registered_is_found() -> None:
    class Meta(type):
        def __getattribute__(cls, name: str) -> Any:
            if name == "__qualname__" and type.__getattribute__(cls, "__name__") == "Base":
                on_lookup()
            return type.__getattribute__(cls, name)

    class Base(metaclass=Meta):
        pass

    class Mine(Base):
        pass

    def on_lookup() -> None:
        if not registered:
            registered.append(True)
            tensor_bridge.register_composite("mine", Mine, "some.where.TorchMine", **functions)

    registered: list[bool] = []
    functions: dict[str, Any] = {
        "tf_flatten": lambda _: ((), None),
        "torch_unflatten": lambda *_: "converted",
    }
    mine = Mine()
    with pytest.raises(tensor_bridge.UnsupportedTypeError):
        tensor_bridge.to_torch(mine)  # the class was looked up before it was registered
    try:
        assert tensor_bridge.to_torch(mine) == "converted"
    finally:
        tensor_bridge.unregister_composite("mine")


def test_wrong_arguments_are_refused() -> None:
    class A:
        pass

    class B(A):
        pass

    class C:
        pass

    class T(torch.Tensor):
        pass

    register = tensor_bridge.register_composite
    with pytest.raises(TypeError, match="at least one direction"):
        register("wrong", A, C)
    with pytest.raises(TypeError, match="tf_flatten and torch_unflatten belong together"):
        register("wrong", A, C, tf_flatten=FUNCTIONS["tf_flatten"])
    with pytest.raises(TypeError, match="torch_flatten and tf_unflatten belong together"):
        register("wrong", A, C, tf_unflatten=FUNCTIONS["tf_unflatten"])
    with pytest.raises(TypeError, match=r"no torch\.Tensor"):
        register("wrong", A, T, **FUNCTIONS)
    for tf_type, torch_type in ((A, A), (A, B), (B, A)):
        with pytest.raises(TypeError, match="a node of structures instead"):
            register("wrong", tf_type, torch_type, **FUNCTIONS)
    with pytest.raises(TypeError, match="expected a class"):
        register("wrong", 1, A, **FUNCTIONS)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no composite named"):
        tensor_bridge.unregister_composite("wrong")


def test_flatten_functions_that_return_something_else_are_refused() -> None:
    for returned, message in (
        ((), r"\(components, static\)"),
        (([], None, [], 1), r"\(components, static\)"),
        (([tf.constant(1)], None, []), "1 components and 0 names"),
    ):
        tensor_bridge.register_composite(
            "boxes",
            Boxes,
            TorchBoxes,
            tf_flatten=lambda b, returned=returned: returned,
            torch_unflatten=lambda unit, parts: None,
        )
        try:
            with pytest.raises(TypeError, match=message):
                tensor_bridge.to_torch(boxes())
            assert tensor_bridge.explain(boxes()).action == "refused"
        finally:
            tensor_bridge.unregister_composite("boxes")


def test_one_direction_and_classes_by_name() -> None:
    name = f"{Boxes.__module__}.Boxes"
    tensor_bridge.register_composite(
        "boxes",
        name,
        "some.where.TorchBoxes",
        tf_flatten=FUNCTIONS["tf_flatten"],
        torch_unflatten=FUNCTIONS["torch_unflatten"],
    )
    try:
        assert type(tensor_bridge.to_torch(boxes())) is TorchBoxes
    finally:
        tensor_bridge.unregister_composite("boxes")


def test_registering_loads_neither_framework() -> None:
    run_python(
        """
        import sys
        import tensor_bridge
        tensor_bridge.register_composite(
            "mine", "package.A", "package.B",
            tf_flatten=lambda a: ((), None), torch_unflatten=lambda s, c: None,
        )
        tensor_bridge.unregister_composite("mine")
        assert tensor_bridge.Ragged and tensor_bridge.LiveView and tensor_bridge.Extension
        assert tensor_bridge.assign
        loaded = {"torch", "tensorflow", "keras", "numpy"} & set(sys.modules)
        assert not loaded, loaded
        """
    ).check()
