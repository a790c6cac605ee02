"""Every torch operator that writes moves memory shared with TensorFlow before a kernel starts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf
import torch

import tensor_bridge

WRITERS = Path(__file__).with_name("writers.py")
# The most guesses that may end the process; more would be an error of the script.
STARTS = 25
# Arguments that a schema calls written, but that the kernel does not write to in any call that
# torch accepts here: a buffer of the CPU, noise and statistics outside training, an empty index.
# Also memory that is given up.
NOT_WRITTEN = {
    "aten::_native_batch_norm_legit:running_mean",
    "aten::_native_batch_norm_legit:running_var",
    "aten::log_sigmoid_forward.output:buffer",
    "aten::resize_:self",
    "aten::rrelu_with_noise.out:noise",
    "aten::rrelu_with_noise:noise",
    "aten::rrelu_with_noise_:noise",
    "aten::scatter_.value_reduce:self",
    "aten::set_.source_Tensor:self",
    "aten::set_:self",
}


def called(results: Path) -> dict[str, tuple[str, str]]:
    """The outcome for each written argument of each operator; "begin" if the process ended."""
    for _ in range(STARTS):
        command = [sys.executable, str(WRITERS), str(results)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            break
        assert results.exists(), done.stderr[-2000:]
        assert done.returncode < 0, done.stderr[-2000:]
    else:
        raise AssertionError(f"still not through after {STARTS} starts: {done.stderr[-2000:]}")
    lines = (json.loads(line) for line in results.read_text("utf-8").splitlines())
    return {key: (found, again) for key, found, again in lines}


# It takes two minutes, and torch's host code does the same in each mode.
@pytest.mark.skipif(os.environ["CUDA_EMU_MODE"] != "immediate", reason="in one mode of the rig")
def test_every_writer_moves_or_raises(tmp_path: Path) -> None:
    found = called(tmp_path / "results")
    stays = {key for key, result in found.items() if result[0] == "stays"}
    assert stays <= NOT_WRITTEN
    moved = {key for key, result in found.items() if result[0] == "moved"}
    assert {found[key] for key in moved} == {("moved", "raised")}
    # The other operators refuse the guesses: those that need cuBLAS and cuSOLVER, which are
    # missing, and those with too many possible arguments.
    assert len(moved) > 0.6 * len(found), sorted(set(found) - moved)
    lists = {key for key in moved if key.startswith(("aten::_foreach_", "aten::_fused_"))}
    assert len(lists) > 100


def test_every_operator_that_writes_a_list_has_a_kernel_in_front() -> None:
    t = tf.fill([4], 1.0)
    assert tensor_bridge.explain(t).action == "shared"
    x = tensor_bridge.to_torch(t)
    count = 0
    for name in torch._C._dispatch_get_all_op_names():
        operator, _, overload = name.partition(".")
        try:
            schema = torch._C._get_schema(operator, overload)
        except RuntimeError:  # a name without a schema
            continue
        for a in schema.arguments:
            if a.alias_info is not None and a.alias_info.is_write and "List" in str(a.type):
                assert torch._C._dispatch_has_kernel_for_dispatch_key(name, "BackendSelect"), name
                count += 1
    assert count > 150
    assert x.device.type == "cuda"
