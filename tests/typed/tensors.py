"""Users' code with TensorFlow's types: a mistake is found on each line marked "error".

Where TensorFlow has no types its tensors are `Any`, and nothing is found.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf
import torch

from tensor_bridge import LiveView, StringTensor, autograd, checkpoint, to_tf, to_torch


class Batch(NamedTuple):
    x: Any
    y: Any


def tensors(t: tf.Tensor, variable: tf.Variable, x: torch.Tensor, strings: StringTensor) -> None:
    first: torch.Tensor = to_torch(t)
    second: torch.Tensor = to_torch(variable, copy=True, device="cpu", unknown="keep")
    third: tf.Tensor = to_tf(torch.nn.Parameter(x), grad="detach")
    fourth: tf.Tensor = to_tf(strings)
    print(first, second, third, fourth)
    print(to_torch(t).no_such_name)  # error
    print(to_torch(variable).no_such_name)  # error
    wrong: torch.Tensor = to_tf(x)  # error
    print(wrong)


def structures(t: tf.Tensor, variable: tf.Variable, x: torch.Tensor) -> None:
    several: list[torch.Tensor] = to_torch([t, variable])
    one, other = to_torch((t, variable))
    by_name: dict[str, torch.Tensor] = to_torch({"x": t})
    many: tuple[torch.Tensor, ...] = to_torch((t, t, variable))
    back: dict[str, tf.Tensor] = to_tf({"x": x})
    print(several, one, other, by_name, many, back, to_tf([x]), to_tf((x, x)))
    print(to_torch([t])[0].no_such_name)  # error
    print(one.no_such_name)  # error
    print(to_torch({"x": t})["x"].no_such_name)  # error
    print(to_torch((t, t, t))[2].no_such_name)  # error
    wrong: list[torch.Tensor] = to_tf([x])  # error
    print(wrong)


def anything(
    value: Any, t: tf.Tensor, ragged: tf.RaggedTensor, sparse: tf.SparseTensor, batch: Batch
) -> None:
    # A result that depends on the value or on a keyword is Any.
    print(to_torch(value).any_name, to_tf(value).any_name, to_torch({"x": value})["x"].any_name)
    print(to_torch(ragged).any_name, to_torch(sparse).any_name, to_torch(batch).x.any_name)
    words: StringTensor = to_torch(t, strings="tensor")
    view: LiveView = to_torch(t, live=True)
    nested: dict[str, list[torch.Tensor]] = to_torch({"x": [t]})
    mixed: dict[str, Any] = to_torch({"x": t, "y": ragged})
    print(words, view, nested, mixed)


def square(t: tf.Tensor) -> tf.Tensor:
    return t * t


def pair(t: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    return t, t


def gradients(x: torch.Tensor, model: Any) -> None:
    y: torch.Tensor = autograd.tf_to_torch(square, sparse=True)(x)
    function: autograd.TfFunction = autograd.tf_to_torch(square)
    print(y, function(x).any_name, function.parameters)
    print(autograd.tf_to_torch(pair)(x)[0].any_name, autograd.tf_to_torch(model)(x)["logits"])
    print(autograd.tf_to_torch(square)(x).no_such_name)  # error


def checkpoints(module: torch.nn.Module) -> None:
    stored = checkpoint.load("model")
    weight: torch.Tensor = stored["weight"]
    module.load_state_dict(dict(stored))
    words: Any = stored["words"]
    if isinstance(words, StringTensor):
        print(weight, words.to_bytes(), stored.state["name"].any_name)
