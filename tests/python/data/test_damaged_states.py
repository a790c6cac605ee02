"""Positions that were damaged: an error before TensorFlow sees them, and no crash and no wait."""

from __future__ import annotations

import collections
import copy
import json
import os
import selectors
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
import torch

from tensor_bridge.data import ResumeError, TorchDataset, _state

WORKER = Path(__file__).parents[1] / "support" / "mutated_states.py"
# Of one state, on a machine that does other things.
DEADLINE = 60.0


class Worker:
    """A process that loads states; whoever asks is told when it was killed or hangs."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(WORKER)],
            env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._line(240) == "ready"

    def _line(self, seconds: float) -> str:
        assert self.process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            if not selector.select(seconds):
                return "hung"
        return self.process.stdout.readline().strip()

    def ask(self, number: int) -> tuple[str, bool, str]:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{number}\n")
        self.process.stdin.flush()
        line = self._line(DEADLINE)
        if not line.startswith("["):
            self.close()
            return "?", True, line or f"killed: {self.process.returncode}"
        what, must, came = json.loads(line)
        return what, must, came

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


def faults(numbers: range) -> list[str]:
    """What came of mutated states that should not have."""
    found, counts = [], collections.Counter[str]()
    worker = Worker()
    try:
        for number in numbers:
            what, must, came = worker.ask(number)
            counts[came] += 1
            if came != "ResumeError" and (must or came not in ("loaded", "PipelineError")):
                found.append(f"{number}: {what}: {came}")
            if worker.process.returncode is not None:
                worker = Worker()
    finally:
        worker.close()
    print(counts)
    assert counts["ResumeError"] > len(numbers) // 2
    return found


@pytest.mark.alone
def test_mutated_states_are_refused() -> None:
    assert faults(range(120)) == []


@pytest.mark.exhaustive
@pytest.mark.alone
def test_ten_thousand_mutated_states_are_refused() -> None:
    assert faults(range(1000, 11000)) == []
