"""`explain` of a structure: a line for each leaf, which predicts the conversion."""

from __future__ import annotations

import collections
import dataclasses
from typing import Any

import needs
import numpy as np
import pytest
import tensorflow as tf
import torch
from sharing import from_bytes, numbers, owners
from ways import TO_TF, Way

import tensor_bridge
from tensor_bridge import StructureExplanation, explain


@dataclasses.dataclass
class Record:
    tensor: Any
    note: str = ""


def test_paths_in_order_and_plain_data_left_out(way: Way) -> None:
    source = {
        "a": [way.leaf(), 3, None, (way.leaf(),)],
        "b": Record(way.leaf(), "text"),
        "c": collections.OrderedDict(z=way.leaf(), y="plain"),
        "d": collections.deque([way.leaf()]),
    }
    explanation = explain(source)
    assert isinstance(explanation, StructureExplanation)
    assert [path for path, _ in explanation.leaves] == [
        "['a'][0]",
        "['a'][3][0]",
        "['b'].tensor",
        "['c']['z']",
        "['d'][0]",
    ]
    assert explanation.action == way.action
    explanation = explain({3: way.leaf(), "z": way.leaf(), "a": way.leaf()})
    assert [path for path, _ in explanation.leaves] == ["[3]", "['z']", "['a']"]
    explanation = explain(source)
    assert all(e.action == way.action and e.nbytes == 96 for _, e in explanation.leaves)
    assert explanation.nbytes == 5 * 96


def test_each_leaf_is_what_explain_says_of_it_alone(way: Way) -> None:
    leaves = [way.leaf(), way.leaf((3,)), way.leaf(())]
    explanation = explain(leaves, copy=True)
    assert [e for _, e in explanation.leaves] == [explain(leaf, copy=True) for leaf in leaves]
    assert explanation.action == "copied"


@needs.dtype("int4")
def test_worst_of_the_leaves(way: Way) -> None:
    shared = way.leaf()
    copied = torch.ones(2, 3).T if way is TO_TF else from_bytes(b"\1\2", (2,), tf.as_dtype("int4"))
    bad = way.refused()
    assert explain([shared, shared]).action == way.action
    assert explain([shared, copied]).action == "copied"
    assert explain([shared, copied, bad]).action == "refused"
    assert explain([bad]).leaves[0][1].error is way.bad
    assert explain([]).action == "refused"
    assert explain([1, "a"]).action == "refused"


def test_printed_as_a_table(way: Way) -> None:
    text = str(explain({"first": way.leaf(), "b": [way.leaf((2,)), way.refused()]}))
    lines = text.splitlines()
    names = ("float32", "torch.float32")
    arrow = " -> ".join(reversed(names) if way is TO_TF else names)
    assert lines[0].startswith(f"['first']  {way.action}: {arrow}, shape (4, 6), 96 bytes")
    starts = [line for line in lines if not line.startswith(" ")]
    assert starts[1].startswith(f"['b'][0]   {way.action}: ")
    assert starts[2].startswith("['b'][1]   refused (")
    assert lines[-1] == f"3 values: 2 {way.action}, 1 refused"


def test_composites_are_one_value_with_parts() -> None:
    explanation = explain({"s": tf.sparse.eye(3), "v": tf.Variable([1.0]), "t": tf.constant("a")})
    kinds = [e.kind for _, e in explanation.leaves]
    assert "sparse" in kinds[0].lower()
    assert len(explanation.leaves) == 3
    assert "\n" in str(explanation.leaves[0][1])
    again = explain([torch.eye(3).to_sparse(), torch.ones(2)])
    assert [e.action for _, e in again.leaves] == ["copied", needs.SHARED_TO_TF]


def test_both_directions_in_one_structure() -> None:
    explanation = explain([numbers(), torch.ones(3)])
    assert [e.action for _, e in explanation.leaves] == ["shared", needs.SHARED_TO_TF]
    assert explanation.leaves[0][1].on_write == "copy"
    assert explanation.leaves[1][1].on_write is None


def test_unknown_values(way: Way) -> None:
    source = [way.leaf(), np.zeros(2), {"k": object()}]
    explanation = explain(source)
    assert explanation.action == "refused"
    assert [path for path, _ in explanation.leaves] == ["[0]", "[1]", "[2]['k']"]
    assert explanation.leaves[1][1].error is tensor_bridge.UnsupportedTypeError
    kept = explain(source, unknown="keep")
    assert kept.action == way.action
    assert [path for path, _ in kept.leaves] == ["[0]"]


def test_keywords_apply_to_every_leaf() -> None:
    explanation = explain([numbers(), {"k": numbers()}], on_write="raise")
    assert {e.on_write for _, e in explanation.leaves} == {"raise"}
    explanation = explain([torch.zeros(2, dtype=torch.int8)], dtype="qint8")
    assert explanation.leaves[0][1].tf_dtype == "qint8"
    explanation = explain([torch.ones(2, requires_grad=True)], grad="raise")
    assert explanation.leaves[0][1].error is tensor_bridge.InvalidOptionError


@pytest.mark.parametrize("keyword", ["copy", "on_write", "raw", "dtype", "grad", "axis", "scale"])
def test_wrong_keywords_are_refusals_of_each_leaf(keyword: str) -> None:
    explanation = explain([numbers(), torch.ones(2)], **{keyword: object()})
    assert explanation.action == "refused"


def test_changes_and_keeps_nothing(way: Way) -> None:
    with owners():
        source = {"a": [way.leaf(), way.refused(), object()], "b": tf.sparse.eye(2)}
        text = repr(source["a"][0])
        for _ in range(3):
            explain(source)
            str(explain(source, unknown="keep"))
    assert repr(source["a"][0]) == text


class Hostile:
    @property
    def __class__(self) -> type:
        raise RuntimeError("no class")

    def __repr__(self) -> str:
        raise RuntimeError("no repr")


def test_never_raises(way: Way) -> None:
    cyclic: list[Any] = [way.leaf()]
    cyclic.append(cyclic)
    deep: Any = way.leaf()
    for _ in range(10_000):
        deep = [deep]
    for source in ([Hostile()], {"k": Hostile()}, {Hostile: way.leaf()}, cyclic, deep, Hostile()):
        explanation = explain(source)
        assert explanation.action in ("refused", way.action)
        str(explanation)
    cyclic.clear()


def test_many_leaves(way: Way) -> None:
    explanation = explain([way.leaf((2,)) for _ in range(1000)])
    assert len(explanation.leaves) == 1000
    assert explanation.nbytes == 8000
    assert str(explanation).endswith(f"1000 values: 1000 {way.action}")
