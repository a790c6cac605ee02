"""Checkpoints of TensorFlow, and what the package says where a conversion needs TensorFlow."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import tensor_bridge
from tensor_bridge import checkpoint
from tensor_bridge.cli import main

DATA = Path(__file__).parents[1] / "data/checkpoints"


def test_a_checkpoint_becomes_torch_tensors_and_back(tmp_path: Path) -> None:
    loaded = checkpoint.load(DATA / "sonnet_mlp_3x4x5_1x3")
    assert {name: tuple(tensor.shape) for name, tensor in loaded.items()}
    weights = {"w": torch.arange(6.0).reshape(2, 3), "b": torch.ones(3, dtype=torch.bfloat16)}
    saved = checkpoint.save(weights, tmp_path / "saved")
    again = checkpoint.load(saved)
    for name, tensor in weights.items():
        assert again[name].dtype == tensor.dtype
        assert again[name].equal(tensor)


def test_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["checkpoint", "ls", str(DATA / "sonnet_lstm_1")]) == 0
    assert "tensor" in capsys.readouterr().out


def test_a_conversion_says_that_tensorflow_is_missing() -> None:
    with pytest.raises(tensor_bridge.TensorBridgeError, match="TensorFlow"):
        tensor_bridge.to_tf(torch.ones(2))
