"""The write detector finds writes; otherwise `test_op_db.py` would prove nothing."""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import tensorflow as tf
import torch
from guard import Fault, Guard, GuardedTensor, guard
from tree import SUPPORT
from twins import Comparison, Converted

import tensor_bridge

VALUES = torch.arange(12, dtype=torch.float32).reshape(3, 4)


def guarded(detector: Guard, values: torch.Tensor = VALUES) -> GuardedTensor:
    dtype = tf.as_dtype(str(values.dtype).removeprefix("torch."))
    return detector.tensor(values.data_ptr(), values.nbytes, dtype, values.shape)


def unprotected_dlpack(t: tf.Tensor) -> torch.Tensor:
    return torch.utils.dlpack.from_dlpack(tf.experimental.dlpack.to_dlpack(t))


def unprotected_on_request(t: tf.Tensor) -> torch.Tensor:
    return tensor_bridge.convert_tf_to_pytorch(t, on_write="alias")


Alias = Callable[[Any], torch.Tensor]
UNPROTECTED = pytest.mark.parametrize("alias", [unprotected_dlpack, unprotected_on_request])


def test_guarded_tensor_holds_the_values_and_shares_them(armed_guard: Guard) -> None:
    source = guarded(armed_guard)
    assert source.tensor.shape == (3, 4)
    assert bool(tf.reduce_all(source.tensor == tf.reshape(tf.range(12.0), (3, 4))))
    x = unprotected_dlpack(source.tensor)
    assert torch.equal(x, VALUES)
    assert tensor_bridge.testing.torch_data_address(x) == source.address


@UNPROTECTED
def test_write_of_equal_bytes_is_recorded(armed_guard: Guard, alias: Alias) -> None:
    source = guarded(armed_guard)
    x = alias(source.tensor)
    with armed_guard.operator("copy_"):
        x[1].copy_(VALUES[1])
    assert armed_guard.take_faults() == [Fault("write", "copy_", source.region, 16)]
    assert not armed_guard.changed(source)


@UNPROTECTED
def test_write_of_other_bytes_is_recorded_and_seen(armed_guard: Guard, alias: Alias) -> None:
    source = guarded(armed_guard)
    x = alias(source.tensor)
    with armed_guard.operator("add_"):
        x.add_(1)
    assert armed_guard.take_faults() == [Fault("write", "add_", source.region, 0)]
    assert armed_guard.changed(source)
    del source, x
    assert armed_guard.take_changed_at_release() == 1


def test_each_operator_is_recorded_anew(armed_guard: Guard) -> None:
    source = guarded(armed_guard)
    x = unprotected_dlpack(source.tensor)
    for name in ("mul_", "sub_"):
        with armed_guard.operator(name):
            getattr(x, name)(1)
            getattr(x, name)(0)
    x.zero_()
    recorded = [fault.operator for fault in armed_guard.take_faults()]
    assert recorded == ["mul_", "sub_", "outside any operator"]
    del source, x
    assert armed_guard.take_changed_at_release() == 1


def test_every_page_and_thread_is_watched(armed_guard: Guard) -> None:
    pages = 512
    values = torch.zeros(pages * mmap.PAGESIZE // 4)
    source = guarded(armed_guard, values)
    with armed_guard.operator("fill_"):
        unprotected_dlpack(source.tensor).fill_(0)
    offsets = sorted(fault.offset for fault in armed_guard.take_faults())
    assert [offset // mmap.PAGESIZE for offset in offsets] == list(range(pages))


def test_reads_are_not_recorded(armed_guard: Guard) -> None:
    source = guarded(armed_guard)
    x = unprotected_dlpack(source.tensor)
    assert float((x @ x.T).sum()) > 0
    assert float(tf.reduce_sum(source.tensor)) == 66
    assert armed_guard.take_faults() == []


def test_access_after_release_is_recorded(armed_guard: Guard) -> None:
    source = guarded(armed_guard)
    region, address = source.region, source.address
    del source
    with armed_guard.operator("late read"):
        ctypes.string_at(address + 8, 1)
    assert armed_guard.take_faults() == [Fault("use after release", "late read", region, 8)]


def test_write_to_a_converted_tensor_does_not_reach_tensorflow(armed_guard: Guard) -> None:
    source = guarded(armed_guard)
    x = tensor_bridge.convert_tf_to_pytorch(source.tensor)
    assert tensor_bridge.testing.torch_data_address(x) == source.address
    with armed_guard.operator("copy_, add_"):
        x.copy_(VALUES)
        x.add_(1)
    assert armed_guard.take_faults() == []
    assert not armed_guard.changed(source)
    assert torch.equal(x, VALUES + 1)
    assert tensor_bridge.testing.torch_data_address(x) != source.address


def test_guard_takes_the_signal_only_while_armed() -> None:
    detector = guard()
    assert not detector.is_armed()
    with detector.armed():
        assert detector.is_armed()
    assert not detector.is_armed()


def test_other_faults_reach_the_previous_handler() -> None:
    code = (
        "import ctypes, faulthandler; from guard import guard\n"
        "faulthandler.enable()\n"
        "with guard().armed(): ctypes.string_at(8, 1)\n"
    )
    path = os.pathsep.join([str(SUPPORT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGSEGV
    assert "Segmentation fault" in done.stderr


class Unprotected(Converted):
    """`Converted` without the library's protection."""

    def _fresh(self, contiguous: torch.Tensor) -> torch.Tensor:
        made = super()._fresh(contiguous)
        return unprotected_dlpack(self.sources[-1].tensor) if self.sources else made


def in_place(tree: list[torch.Tensor]) -> torch.Tensor:
    return tree[0].mul_(tree[1])


def test_comparison_reports_a_write(armed_guard: Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twins.Converted", Unprotected)
    comparison = Comparison(armed_guard)
    comparison.run("mul_ by ones", in_place, [VALUES, torch.ones(4)])
    (problem,) = comparison.problems
    assert "Fault(kind='write', operator='mul_ by ones'" in problem
    comparison.run("mul_", in_place, [VALUES, torch.zeros(4)])
    assert any("bytes changed" in problem for problem in comparison.problems)


def test_comparison_reports_other_results(armed_guard: Guard) -> None:
    answers = iter([VALUES, VALUES + 1, VALUES, VALUES.double(), None, "raise"])

    def differs(tree: list[torch.Tensor]) -> object:
        answer = next(answers)
        if isinstance(answer, str):
            raise ValueError("no answer")
        return answer

    comparison = Comparison(armed_guard)
    for _ in range(3):
        comparison.run("differs", differs, [VALUES])
    assert len(comparison.problems) == 3
    assert all("result: " in problem for problem in comparison.problems)
    assert "no answer" in comparison.problems[2]


def test_comparison_reports_what_is_not_released(armed_guard: Guard) -> None:
    kept = []
    comparison = Comparison(armed_guard)
    comparison.run("kept", lambda tree: kept.append(tree[0]), [VALUES])
    assert any("not released" in problem for problem in comparison.problems)
    kept.clear()


def test_comparison_reports_a_copy_of_what_is_only_read(armed_guard: Guard) -> None:
    def asks_for_a_mutable_pointer(tree: list[torch.Tensor]) -> None:
        tree[0].data_ptr()

    comparison = Comparison(armed_guard)
    comparison.run("data_ptr", asks_for_a_mutable_pointer, [VALUES])
    (problem,) = comparison.problems
    assert "moved to torch's memory" in problem
    comparison.run("data_ptr", asks_for_a_mutable_pointer, [VALUES], may_copy=True)
    assert len(comparison.problems) == 1


def test_rebuilt_tensors_keep_layout_and_aliases(armed_guard: Guard) -> None:
    base = torch.randn(6, 4, dtype=torch.complex64)
    column, rows = base[:, 1], base[2:4]
    tree = [base, column, (rows, rows), base.t().conj(), base.imag, torch.tensor(3.0), 7]
    converted = Converted(armed_guard)
    whole, col, (first, second), conjugate, _, scalar, number = converted.tree(tree)
    assert number == 7
    assert first is second
    assert col.stride() == column.stride()
    assert conjugate.is_conj()
    assert torch.equal(conjugate, base.t().conj())
    assert torch.equal(whole, base)
    assert scalar.shape == ()
    col.zero_()
    assert not whole[:, 1].any()
    assert base[:, 1].all()
    assert not converted.changed()
    del converted, whole, col, first, second, conjugate, scalar, _
