"""The advice in refusals of values that users pass, from the libraries that make them."""

from __future__ import annotations

import importlib.util
import re
from collections import OrderedDict, UserDict
from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import torch
from fresh import run_forked, run_python
from refusals import assert_refused
from torch.utils.data import DataLoader, TensorDataset

import tensor_bridge
from tensor_bridge import UnsupportedTypeError


class Mine:
    x = 3


REGISTRATION = (
    r'optree\.register_pytree_node\(cls, flatten, unflatten, namespace="tensor_bridge"\).*'
    r"tensor_bridge\.register_composite"
)
DATA = TensorDataset(torch.zeros(2))
TO_TF: dict[str, tuple[Callable[[], Any], str]] = {
    "module": (lambda: torch.nn.Linear(1, 1), r"module\.state_dict\(\).*torch_to_tf\(module\)"),
    "loader": (lambda: DataLoader(DATA), r"tensor_bridge\.data\.from_torch\(data\)"),
    "dataset": (lambda: DATA, r"tensor_bridge\.data\.from_torch\(data\)"),
    "ours": (lambda: tensor_bridge.data.loader(tf.data.Dataset.range(2)), r"tf\.data\.Dataset"),
    "generator": (lambda: (torch.zeros(1) for _ in "ab"), r"\(to_tf\(x\) for x in it\)"),
    "None": (lambda: None, "leave it out"),
    "mapping": (lambda: MappingProxyType({"x": torch.zeros(1)}), r"to_tf\(dict\(x\)\)"),
    "set": (lambda: {torch.zeros(1)}, r"to_tf\(list\(x\)\)"),
    "number": (lambda: 3.0, r"torch\.as_tensor"),
    "nothing inside": (lambda: UserDict(x=[1]), r"torch\.as_tensor"),
    "own class": (Mine, REGISTRATION),
}
TO_TORCH: dict[str, tuple[Callable[[], Any], str]] = {
    "dataset": (lambda: tf.data.Dataset.range(2), r"tensor_bridge\.data\.loader\(dataset\)"),
    "batched": (lambda: tf.data.Dataset.range(2).batch(1).map(abs), r"tensor_bridge\.data\.loader"),
    "iterator": (lambda: iter(tf.data.Dataset.range(2)), r"tensor_bridge\.data\.loader\("),
    "numpy iterator": (
        lambda: tf.data.Dataset.range(2).as_numpy_iterator(),
        r"\(to_torch\(x\) for x in it\)|loader",
    ),
    "module": (lambda: torch.nn.Linear(1, 1), "nothing to convert"),
    "loader": (lambda: DataLoader(DATA), "torch's already"),
    "ours": (lambda: tensor_bridge.data.loader(tf.data.Dataset.range(2)), "torch's already"),
    "generator": (lambda: (tf.zeros(1) for _ in "ab"), r"\(to_torch\(x\) for x in it\)"),
    "None": (lambda: None, "leave it out"),
    "mapping": (lambda: MappingProxyType({"x": tf.zeros(1)}), r"to_torch\(dict\(x\)\)"),
    "numpy array": (lambda: np.zeros(1), r"torch\.from_numpy"),
    "own class": (Mine, REGISTRATION),
}


@pytest.mark.parametrize("name", TO_TF)
def test_to_tf_says_what_to_do(name: str) -> None:
    make, remedy = TO_TF[name]
    value = make()
    for wrapped in (value, [torch.zeros(1), value]):
        if wrapped is not value and name in ("None", "number", "nothing inside"):
            continue
        with pytest.raises(UnsupportedTypeError) as caught:
            tensor_bridge.to_tf(wrapped)
        message = str(caught.value)
        assert re.search(remedy, message), message
        assert "builtins." not in message
        assert ("unknown='keep'" in message) == (wrapped is not value)


@pytest.mark.parametrize("name", TO_TORCH)
def test_to_torch_says_what_to_do(name: str) -> None:
    make, remedy = TO_TORCH[name]
    assert_refused(tensor_bridge, make(), UnsupportedTypeError, remedy)


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="no jax")
def test_arrays_of_jax_name_from_dlpack_which_takes_them() -> None:
    run_forked(
        """
import jax.numpy as jnp
x = jnp.arange(3)
keyword = ", framework='tensorflow'"
for call, keywords in ((tensor_bridge.to_torch, ""), (tensor_bridge.to_tf, keyword)):
    try:
        call(x)
    except tensor_bridge.UnsupportedTypeError as e:
        remedy = f"tensor_bridge.dlpack.from_dlpack(x{keywords})"
        assert remedy in str(e), e
        assert eval(remedy).numpy().tolist() == [0, 1, 2]
    else:
        raise AssertionError(call)
"""
    ).check()


# ---- mappings that are not dicts -----------------------------------------------------------------


def test_encodings_of_a_tokenizer_cross_with_all_that_they_know() -> None:
    transformers = pytest.importorskip("transformers")
    encoding = transformers.BatchEncoding(
        {"input_ids": torch.tensor([[1, 2]]), "length": [2]}, n_sequences=1
    )
    there = tensor_bridge.to_tf(encoding)
    assert type(there) is transformers.BatchEncoding
    assert there["input_ids"].numpy().tolist() == [[1, 2]]
    assert (there["length"], there.n_sequences) == ([2], 1)
    again = tensor_bridge.to_torch({"batch": there})["batch"]
    assert type(again) is transformers.BatchEncoding
    assert torch.equal(again["input_ids"], encoding["input_ids"])
    assert torch.is_tensor(encoding["input_ids"])


def test_user_dicts_keep_their_class_and_order() -> None:
    class Named(UserDict):  # type: ignore[type-arg]
        def __setitem__(self, key: str, item: Any) -> None:
            super().__setitem__(key.lower(), item)

    named = Named(B=tf.constant(1), A=OrderedDict(x=tf.constant(2)))
    there = tensor_bridge.to_torch(named)
    assert type(there) is Named
    assert list(there) == ["b", "a"]
    assert there["a"]["x"].item() == 2
    assert named["b"].dtype == tf.int32
    assert [path for path, _ in tensor_bridge.explain(named).leaves] == ["['b']", "['a']['x']"]


# ---- modules that are already torch modules ------------------------------------------------------


def test_a_keras_model_on_the_torch_backend_is_a_module_already() -> None:
    pytest.importorskip("keras", minversion="3")
    run_python(
        """
import keras, tensor_bridge, torch
from tensor_bridge.autograd import TfModule, tf_to_torch
model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
for wrap in (TfModule, tf_to_torch):
    for module in (model, torch.nn.Linear(1, 1)):
        try:
            wrap(module)
        except tensor_bridge.UnsupportedTypeError as e:
            assert "torch.nn.Module already" in str(e), e
        else:
            raise AssertionError(module)
""",
        KERAS_BACKEND="torch",
    ).check()
