"""Damaged positions: an error before TensorFlow sees them, without a crash or a hang."""

from __future__ import annotations

import collections
import contextlib
import copy
import json
import os
import queue
import subprocess
import sys
import threading
from typing import Any

import pytest
import tensorflow as tf
import torch
from tree import SUPPORT

from tensor_bridge import _C
from tensor_bridge.data import ResumeError, TorchDataset, _state

WORKER = SUPPORT / "mutated_states.py"
# Seconds for a state on a busy machine.
DEADLINE = 60.0


class Worker:
    """A process that loads states. The caller learns if it was killed or hangs."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(WORKER)],
            env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        assert self._line(240) == "ready"

    def _line(self, seconds: float) -> str:
        try:
            return self._lines.get(timeout=seconds)
        except queue.Empty:
            return "hung"

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line.strip())
        self._lines.put("")  # it ended

    def ask(self, number: int) -> tuple[str, bool, str]:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{number}\n")
        self.process.stdin.flush()
        what, must = json.loads(self._line(DEADLINE))
        line = self._line(DEADLINE)
        if not line.startswith('"'):
            self.close()
            return what, must, line or "killed"
        return what, must, json.loads(line)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()


def faults(numbers: range) -> list[str]:
    """The wrong outcomes of mutated states."""
    found, counts = [], collections.Counter[str]()
    worker = Worker()
    try:
        for number in numbers:
            what, must, came = worker.ask(number)
            counts[came] += 1
            good = {"ResumeError"} if must else {"ResumeError", "another error of ours", "loaded"}
            if came not in good:
                found.append(f"{number}: {what}: {came}")
            if worker.process.returncode is not None:
                worker = Worker()
    finally:
        worker.close()
    print(counts)
    assert counts["ResumeError"] > len(numbers) // 2
    return found


@pytest.mark.alone
@pytest.mark.parametrize(
    "numbers", [range(120), pytest.param(range(1000, 11000), marks=pytest.mark.exhaustive)]
)
def test_mutated_states_are_refused(numbers: range) -> None:
    assert faults(numbers) == []


def middle() -> tuple[TorchDataset, dict[str, Any]]:
    """A dataset, and the state of an equal dataset with queued elements."""
    other = TorchDataset(tf.data.Dataset.range(9).shuffle(9, seed=1), prefetch=2)
    elements = iter(other)
    next(elements)
    state = other.state_dict()
    other.close()
    return TorchDataset(tf.data.Dataset.range(9).shuffle(9, seed=1), prefetch=2), state


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("epoch", 2**31, r"epoch: expected an int from 0 to 2147483647, got 2147483648"),
        ("epoch", 10**6 + 1, r"epoch: expected an int from 0 to 1000000, got 1000001"),
        ("epoch", True, r"epoch: expected an int .*, got True"),
        ("delivered", -1, r"delivered: expected an int from 0 .*, got -1"),
        ("delivered", 1.0, r"delivered: expected an int .*, got a builtins.float"),
        ("delivered", 10**100, r"delivered: expected an int .*, got an int of 333 bits"),
        ("resume", "most", r"resume: expected one of .*, got 'most'"),
        ("resume", [], r"resume: expected one of .*, got a builtins.list"),
        ("shard", "auto", r"shard: expected None, 'file' or 'data', got 'auto'"),
        ("rank", 1, r"rank: expected a rank of the 1 in world_size, got 1"),
        ("world_size", 0, r"world_size: expected an int of at least 1, got 0"),
        ("ended", 0, r"ended: expected a bool, got 0"),
        ("iterator", None, r"iterator: expected a list of bytes in the middle .*, got None"),
        ("iterator", ["x"], r"iterator: expected None or a list of bytes, got a builtins.list"),
        ("iterator", [b"x"], r"iterator\[0\]: expected a part of TensorFlow's state.*TensorProto"),
        ("pending", [[torch.zeros(())]], r"failed: expected as many|pending\[0\]: .*float32"),
        ("failed", [None], r"failed: expected a list of bools, got a builtins.list"),
        ("digest", "0" * 64, r"digest: expected the digest of the state's other fields"),
    ],
)
def test_a_field_is_named_with_what_was_expected_and_what_came(
    name: str, value: Any, words: str
) -> None:
    dataset, state = middle()
    state[name] = value
    if name != "digest":
        with contextlib.suppress(ResumeError):  # some values have no digest
            state = _state.sealed(state)
    with pytest.raises(ResumeError, match=words):
        dataset.load_state_dict(state)
    assert sorted(int(i) for i in dataset) == list(range(9))


def test_a_state_of_version_1_is_refused_with_what_to_do() -> None:
    dataset, state = middle()
    del state["digest"]
    with pytest.raises(ResumeError, match=r"digest.* missing"):
        dataset.load_state_dict(state)
    with pytest.raises(ResumeError, match=r"0\.1\.0, which has no digest.*set_epoch"):
        dataset.load_state_dict({**state, "version": 1})


def test_what_is_done_to_a_state_after_it_was_loaded_does_not_matter() -> None:
    dataset, state = middle()
    expected = TorchDataset(tf.data.Dataset.range(9).shuffle(9, seed=1))
    rest = [int(i) for i in expected][1:]
    dataset.load_state_dict(state)
    state["iterator"].clear()
    state["delivered"] = -5
    dataset.state_dict()["pending"].clear()
    assert [int(i) for i in dataset] == rest


def test_a_state_says_the_same_in_lists_and_tuples_and_has_one_digest() -> None:
    dataset, state = middle()
    other = copy.deepcopy(state)
    other["iterator"], other["pending"] = tuple(other["iterator"]), tuple(other["pending"])
    assert _state.sealed(other)["digest"] == state["digest"]
    dataset.load_state_dict(other)
    assert len(list(dataset)) == 8


@pytest.mark.parametrize("value", [0, -1, 1, 2**40, -(2**63)])
def test_counts_for_which_tensorflow_would_ask_for_memory_are_bounded(value: int) -> None:
    """TensorFlow allocates memory for that many elements before it checks them, and crashes."""
    from tensorflow.core.framework import dataset_pb2, tensor_pb2

    dataset, state = middle()
    number = next(i for i, part in enumerate(state["iterator"]) if b"slices_size" in part)
    tensor = tensor_pb2.TensorProto.FromString(state["iterator"][number])
    saved = tensor_pb2.VariantTensorDataProto.FromString(tensor.tensor_content[2:])
    packed = saved.tensors[0].variant_val[0]
    element = dataset_pb2.CompressedElement.FromString(packed.metadata)
    # Releases before 2.14 write the prefix of all names before each of them.
    names = saved.metadata.split(b"@@")[1:]
    (place,) = (i for i, name in enumerate(names) if name.endswith(b"slices_size"))
    data = bytearray(_C.snappy_unpack(element.data))
    begin = sum(sum(m.uncompressed_bytes) for m in element.component_metadata[:place])
    data[begin : begin + 8] = value.to_bytes(8, "little", signed=True)
    # One literal.
    element.data = bytes([len(data), 60 << 2, len(data) - 1]) + data
    packed.metadata = element.SerializeToString()
    content = saved.SerializeToString()
    size = len(content)
    assert 127 < size < 1 << 14
    tensor.tensor_content = bytes([size & 127 | 128, size >> 7]) + content
    state["iterator"][number] = tensor.SerializeToString()
    state = _state.sealed(state)
    if 0 <= value <= 1 << 20:
        dataset.load_state_dict(state)
    else:
        with pytest.raises(ResumeError, match=r"slices_size of -?\d+"):
            dataset.load_state_dict(state)
