"""What becomes of TensorFlow when torch writes into a converted tensor: one case, one process.

    python examples/_demo_write.py {constant,gradient,weight,text} {dlpack,tensor_bridge}

Prints one JSON object: what TensorFlow says before and after the write. A write the DLPack way
corrupts TensorFlow for the rest of the process, hence a process of its own for each.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import _demo_model
import tensorflow as tf
import torch

import tensor_bridge

ToTorch = Callable[[tf.Tensor | tf.Variable], torch.Tensor]
# Expressions and their values.
Answers = dict[str, str]


def dlpack(t: tf.Tensor | tf.Variable) -> torch.Tensor:
    """The DLPack way: shares, and cannot say that the memory is not torch's to change."""
    if isinstance(t, tf.Variable):
        t = t.read_value()
    return torch.utils.dlpack.from_dlpack(tf.experimental.dlpack.to_dlpack(t))


def constant(to_torch: ToTorch) -> tuple[Answers, Answers]:
    """Adds 1 in place to two converted constants: TensorFlow caches each such scalar once."""

    def ask() -> Answers:
        return {
            "tf.constant(5.0)": str(tf.constant(5.0).numpy()),
            "tf.constant([10.0, 20.0]) + 1.0": str((tf.constant([10.0, 20.0]) + 1.0).numpy()),
        }

    before = ask()
    x = to_torch(tf.constant(5.0))
    x.add_(1)
    y = to_torch(tf.constant(1.0, tf.float32))
    y.add_(1)
    check_write(x, 6.0)
    check_write(y, 2.0)
    return before, ask()


def gradient(to_torch: ToTorch) -> tuple[Answers, Answers]:
    """Zeroes a gradient, as `zero_grad` does: it is the seed of every later scalar gradient."""
    v = tf.Variable(3.0)

    def slope(function: Callable[[tf.Variable], tf.Tensor]) -> str:
        with tf.GradientTape() as tape:
            loss = function(v)
        return str(tape.gradient(loss, v).numpy())

    def ask() -> Answers:
        return {
            "d(v * v) / dv at v = 3": slope(lambda v: v * v),
            "d(7 * v) / dv": slope(lambda v: 7.0 * v),
        }

    before = ask()
    with tf.GradientTape() as tape:
        loss = tf.identity(v)
    x = to_torch(tape.gradient(loss, v))
    x.zero_()
    check_write(x, 0.0)
    return before, ask()


def weight(to_torch: ToTorch) -> tuple[Answers, Answers]:
    """Zeroes a converted weight of the model."""
    model = _demo_model.load_model()
    texts = _demo_model.read_texts([Path(__file__)])

    def ask() -> Answers:
        language, probability = model.guess(texts)[0]
        return {"the model's guess for this script": f"{language} {probability:.0%}"}

    before = ask()
    x = to_torch(next(v for v in model.variables if v.name.endswith("content/weights:0")))
    x.zero_()
    check_write(x, 0.0)
    return before, ask()


def text(to_torch: ToTorch) -> tuple[Answers, Answers]:
    """Zeroes the bytes of a converted tensor of strings."""
    t = tf.constant(["some text"])

    def ask() -> Answers:
        return {"t[0]": t[0].numpy().decode()}

    before = ask()
    strings = to_torch(t)
    strings.bytes.zero_()
    check_write(strings.bytes, 0)
    return before, ask()


def check_write(x: torch.Tensor, expected: float) -> None:
    """Raises unless torch sees its own write: only then does the rest say something."""
    if not bool((x == expected).all()):
        raise AssertionError(f"torch wrote {expected} and reads {x.flatten()[0].item()}")


CASES = {case.__name__: case for case in (constant, gradient, weight, text)}
WAYS: dict[str, ToTorch] = {"dlpack": dlpack, "tensor_bridge": tensor_bridge.to_torch}


def main() -> int:
    """Runs the case that the command line names."""
    case, way = sys.argv[1:]
    before, after = CASES[case](WAYS[way])
    print(json.dumps({"before": before, "after": after}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
