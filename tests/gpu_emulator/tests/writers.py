"""Calls every operator of torch that writes a tensor on a GPU, with torch's own host code.

    python writers.py RESULTS

It runs without the rig's kernels: torch's own are launched, and do nothing. For each argument that
a schema calls written, it searches for arguments that torch accepts, with the written one over
TensorFlow's memory. It adds lines to RESULTS: "begin", then "moved", "stays" or "refused" (none
were found), and the outcome of on_write="raise". Some guesses end the process. It is then started
again and continues after the last line.
"""

from __future__ import annotations

import json
import random
import signal
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# torch first: TensorFlow would take over its CUDA.
import torch  # isort: skip
import tensorflow as tf

import tensor_bridge
from tensor_bridge.testing import tf_data_address, torch_data_address

ATTEMPTS = 60
# Seconds for one argument; torch waits for ever for results that no kernel computes.
LIMIT = 20
# Room for the largest of SHAPES, in the widest dtype.
ELEMENTS = 4096
SHAPES = ((4, 4), (4,), (), (1,), (0,), (16,), (2, 3, 4), (1, 4, 4), (1, 2, 4, 4), (1, 2, 4, 4, 4))
DTYPES = (torch.float32, torch.int64, torch.bool, torch.complex64, torch.int32, torch.uint8,
          torch.float64, torch.float16)  # fmt: skip
WORDS = ("none", "sum", "prod", "amax", "mean", "add", "linear")


def written() -> Iterator[tuple[str, Any, str]]:
    """Each operator with a kernel for CUDA or a written list, and each of its written arguments."""
    for name in sorted(torch._C._dispatch_get_all_op_names()):
        if not name.startswith("aten::"):
            continue
        packet, _, overload = name.removeprefix("aten::").partition(".")
        try:
            op = getattr(getattr(torch.ops.aten, packet), overload or "default")
        except AttributeError:  # without a schema, or for TorchScript only
            continue
        for argument in op._schema.arguments:
            if argument.alias_info is None or not argument.alias_info.is_write:
                continue
            is_list = "List" in str(argument.type)
            if is_list or torch._C._dispatch_has_kernel_for_dispatch_key(name, "CUDA"):
                yield f"{name}:{argument.name}", op, argument.name


class Arguments:
    """A guess at an operator's arguments, the same for the same seed."""

    def __init__(self, seed: str, flat: torch.Tensor) -> None:
        self.draw = random.Random(seed)
        self.flat = flat
        self.shape = self.draw.choice(SHAPES)
        self.dtype = self.draw.choice((torch.float32, self.draw.choice(DTYPES)))
        self.varied = self.draw.choice((0.0, 0.2, 0.5))
        self.written = 0  # number of elements of the written argument

    def like(self) -> tuple[tuple[int, ...], torch.dtype]:
        vary = self.draw.random
        shape = self.draw.choice(SHAPES) if vary() < self.varied else self.shape
        dtype = self.draw.choice(DTYPES) if vary() < self.varied else self.dtype
        return shape, dtype

    def own(self) -> torch.Tensor:
        if self.draw.random() < 0.1:
            return torch.ones(1)  # scalars of a list, on the host
        shape, dtype = self.like()
        return torch.empty(shape, dtype=dtype, device="cuda")

    def shared(self) -> torch.Tensor:
        shape, dtype = self.like()
        count = self.written = torch.Size(shape).numel()
        return self.flat.view(torch.uint8)[: count * dtype.itemsize].view(dtype).view(shape)

    def value(self, kind: str, target: bool) -> Any:
        if kind.startswith("Optional["):
            if not target and self.draw.random() < 0.6:
                return None
            kind = kind.removeprefix("Optional[").removesuffix("]")
        if kind == "Tensor":
            return self.shared() if target else self.own()
        if kind in ("List[Tensor]", "List[Optional[Tensor]]"):
            return [self.shared()] if target else [self.own()]
        if kind.startswith("List["):
            inner = kind.removeprefix("List[").removesuffix("]")
            return [self.value(inner, False)] * self.draw.choice((1, 1, 2, 2, 3, 4))
        choices: dict[str, tuple[Any, ...]] = {
            "int": (0, 1, 1, 2, 4, -1),
            "number": (1.0, 1, 2),
            "Scalar": (1.0, 1, 2),
            "float": (0.5, 1.0, 0.0),
            "bool": (False, True),
            "str": WORDS,
        }
        return self.draw.choice(choices[kind])

    def of(self, op: Any, target: str) -> tuple[list[Any], dict[str, Any]]:
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        for a in op._schema.arguments:
            is_written = a.alias_info is not None and a.alias_info.is_write
            leave = a.has_default_value() and not is_written and self.draw.random() < 0.5
            if leave and (a.kwarg_only or kwargs):
                continue
            if leave:
                args.append(a.default_value)
                continue
            value = self.value(str(a.type), a.name == target)
            if a.kwarg_only:
                kwargs[a.name] = value
            else:
                args.append(value)
        return args, kwargs


def outcome(op: Any, target: str, seed: str, t: Any, on_write: str) -> str:
    """ "moved", "stays", "raised", or the error of the operator."""
    flat = tensor_bridge.to_torch(t, on_write=on_write)
    try:
        arguments = Arguments(seed, flat)
        args, kwargs = arguments.of(op, target)
        with torch.no_grad():
            op(*args, **kwargs)
    except BufferError:
        return "raised"
    except (RuntimeError, IndexError, ValueError, TypeError, NotImplementedError, KeyError):
        return "refused"
    if torch_data_address(flat) != tf_data_address(t):
        return "moved"
    return "stays" if arguments.written else "refused"


def main(results: Path) -> None:
    warnings.simplefilter("ignore")
    for gpu in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, True)
    done = set()
    if results.exists():
        done = {json.loads(line)[0] for line in results.read_text("utf-8").splitlines()}
    with tf.device("GPU:0"):
        t = tf.fill([ELEMENTS], 1.0)
    with results.open("a", encoding="utf-8", buffering=1) as file:
        for key, op, target in written():
            if key in done:
                continue
            file.write(json.dumps([key, "begin", ""]) + "\n")
            signal.alarm(LIMIT)
            found, again = "refused", ""
            for attempt in range(ATTEMPTS):
                seed = f"{key} {attempt}"
                result = outcome(op, target, seed, t, "copy")
                if result == "moved":
                    found, again = result, outcome(op, target, seed, t, "raise")
                    break
                # In another mode, or with other sizes, it may still write.
                found = "stays" if result == "stays" else found
            signal.alarm(0)
            file.write(json.dumps([key, found, again]) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
