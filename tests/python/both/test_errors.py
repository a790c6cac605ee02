"""Every error class: what provokes it, and that its text has what was expected, got, and to do."""

from __future__ import annotations

import contextlib
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import tensorflow as tf
import torch

import tensor_bridge
from tensor_bridge import autograd, checkpoint, data, dlpack, errors, records
from tensor_bridge.data import _sharding


class Row(NamedTuple):
    """Parts of the text."""

    provoke: Callable[[Path, pytest.MonkeyPatch], Any]
    expected: str
    got: str
    to_do: str


def floats() -> tf.Tensor:
    return tf.constant([1.0, 2.0])


def resume(folder: Path, patch: pytest.MonkeyPatch) -> None:
    data.loader(tf.data.Dataset.range(3)).load_state_dict({"version": 0})


def symbolic(folder: Path, patch: pytest.MonkeyPatch) -> None:
    @tf.function(autograph=False)
    def function(t: tf.Tensor) -> None:
        tensor_bridge.to_torch(t)

    function(floats())


def consumed(folder: Path, patch: pytest.MonkeyPatch) -> None:
    capsule = tf.experimental.dlpack.to_dlpack(floats())
    dlpack.from_dlpack(capsule)
    dlpack.from_dlpack(capsule)


def failing_element(folder: Path, patch: pytest.MonkeyPatch) -> None:
    ds = tf.data.Dataset.from_tensors([0.0, 1.0]).unbatch()
    ds = ds.map(lambda x: tf.debugging.check_numerics(x / x, "not a number"))
    with contextlib.closing(iter(data.TorchDataset(ds))) as elements:
        next(elements)


def destroyed_variable(folder: Path, patch: pytest.MonkeyPatch) -> None:
    variable = tf.Variable([1.0, 2.0])
    # With a name, unlike the variable's own, this handle does not keep the resource.
    variable._handle = tf.raw_ops.VarHandleOp(dtype=tf.float32, shape=[2], shared_name="destroyed")
    tf.raw_ops.AssignVariableOp(resource=variable.handle, value=floats())
    view = tensor_bridge.to_torch(variable, live=True)
    tf.raw_ops.DestroyResourceOp(resource=variable.handle)
    view.refresh()


def silent_service(folder: Path, patch: pytest.MonkeyPatch) -> None:
    with contextlib.closing(iter(data.TorchDataset(tf.data.Dataset.range(3)))) as elements:
        raise elements._timed_out()


def other_world(folder: Path, patch: pytest.MonkeyPatch) -> None:
    with contextlib.closing(iter(data.TorchDataset(tf.data.Dataset.range(3)))) as elements:
        patch.setattr(_sharding, "world", object)
        elements._check_world()


def damaged_checkpoint(folder: Path, patch: pytest.MonkeyPatch) -> None:
    (folder / "a.index").write_bytes(b"x" * 100)
    checkpoint.load(folder / "a")


def text_file(folder: Path, read: Callable[[Path], Any]) -> None:
    path = folder / "a.txt"
    path.write_bytes(b"text of another format")
    read(path)


def without_fsspec(folder: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setitem(sys.modules, "fsspec", None)
    list(records.RecordFile("gs://bucket/a"))


def sparse_gradient(folder: Path, patch: pytest.MonkeyPatch) -> None:
    autograd.tf_to_torch(tf.identity)(torch.eye(2).to_sparse().requires_grad_())


def assigned(value: torch.Tensor) -> None:
    tensor_bridge.assign(tf.Variable([1.0, 2.0]), value)


ROWS = {
    errors.InvalidOptionError: Row(
        lambda folder, patch: tensor_bridge.to_torch(floats(), on_write="rais"),
        *("on_write must be", "'rais'", "'copy', 'raise' or 'alias'"),
    ),
    errors.MismatchError: Row(
        lambda folder, patch: assigned(torch.ones(3)),
        *("expected shape (2,), the variable's", "got (3,)", "give x.reshape()"),
    ),
    errors.UnsupportedDtypeError: Row(
        lambda folder, patch: tensor_bridge.to_torch(tf.cast(floats(), tf.qint8)),
        *("for a torch quantized tensor", "got TensorFlow dtype qint8", "raw=True"),
    ),
    errors.UnsupportedTypeError: Row(
        lambda folder, patch: tensor_bridge.to_torch(object()),
        *("expected a tf.Tensor", "got an object", "convert the tensors inside it"),
    ),
    errors.SymbolicTensorError: Row(
        symbolic, "expected an eager tf.Tensor", "got a graph tensor", "Convert outside"
    ),
    errors.CopyRequiredError: Row(
        lambda folder, patch: tensor_bridge.to_tf(torch.ones(2, 3).t(), copy=False),
        *("copy=False", "a copy is needed", "Use copy=None"),
    ),
    errors.UnsupportedDeviceError: Row(
        lambda folder, patch: tensor_bridge.to_torch(floats(), device="meta"),
        *("cpu or cuda device", "got 'meta'", "use Tensor.to()"),
    ),
    errors.InvalidHandleError: Row(
        consumed,
        "expected a fresh DLPack capsule",
        "got one that was consumed",
        "ask its producer for another",
    ),
    errors.TensorFlowError: Row(
        destroyed_variable,
        "expected a variable that is there",
        "Could not find variable destroyed",
        "make it anew",
    ),
    errors.PipelineError: Row(
        failing_element, "the pipeline failed", "element 0", "on_error='skip'"
    ),
    errors.DataServiceError: Row(
        silent_service, "no element came", "after 0 elements", "a longer timeout="
    ),
    errors.ResumeError: Row(
        resume,
        "expected a state made by state_dict()",
        "got version 0",
        "begin an epoch (set_epoch)",
    ),
    errors.WorkerProcessError: Row(
        lambda folder, patch: pickle.dumps(data.TorchDataset(tf.data.Dataset.range(3))),
        *("cannot be iterated in another process", "a fork", "Use num_workers=0"),
    ),
    errors.WorldChangedError: Row(
        other_world,
        "one rank of the world",
        "initialised or destroyed",
        "give rank= and world_size=",
    ),
    errors.GradientError: Row(
        sparse_gradient, "expected a dense tensor", "layout torch.sparse_coo", "x.to_dense()"
    ),
    errors.FrameworkError: Row(
        without_fsspec, "needs fsspec", "is not installed", "pip install fsspec"
    ),
    errors.OutOfMemoryError: Row(
        lambda folder, patch: tensor_bridge.to_tf(torch.ones(1).expand(1 << 50)),
        *("expected memory for a copy", "4503599627370496 bytes", "convert a part at a time"),
    ),
    errors.ValueRangeError: Row(
        lambda folder, patch: tensor_bridge.to_tf(torch.tensor([300]), dtype="int4"),
        *("it holds integers from -8 to 7", "300, which int4", "Use a wider dtype"),
    ),
    errors.CheckpointError: Row(
        damaged_checkpoint,
        "expected the magic number",
        "got 7878787878787878",
        "fetch or save it again",
    ),
    errors.UnsupportedFileError: Row(
        lambda folder, patch: text_file(folder, checkpoint.load),
        *("expected a checkpoint", "got a file that begins with", "save the model in one of those"),
    ),
    errors.CheckpointNotFoundError: Row(
        lambda folder, patch: checkpoint.load(folder / "absent"),
        *("expected the prefix of a checkpoint", "got no such file or folder", "correct the path"),
    ),
    errors.RecordError: Row(
        lambda folder, patch: text_file(folder, lambda path: list(records.RecordFile(path))),
        *("expected a record whose length", "a.txt, byte 0", "is not a TFRecord file"),
    ),
    errors.RecordNotFoundError: Row(
        lambda folder, patch: list(records.RecordFile(folder / "absent")),
        *("expected a file of records", "got no such file", "correct the path"),
    ),
}
# They quote what torch says, or a defect that nobody knows.
QUOTED = {errors.TensorBridgeError, errors.TorchError, errors.InternalError}


def classes(base: type[Exception]) -> set[type[Exception]]:
    return {base}.union(*[classes(each) for each in base.__subclasses__()])


def test_every_class_has_a_row() -> None:
    assert classes(errors.TensorBridgeError) == ROWS.keys() | QUOTED


@pytest.mark.parametrize("kind", ROWS, ids=lambda kind: kind.__name__)
def test_a_text_says_what_was_expected_what_came_and_what_to_do(
    kind: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = ROWS[kind]
    assert all(row)
    with pytest.raises(kind) as caught:
        row.provoke(tmp_path, monkeypatch)
    text = str(caught.value)
    assert [part for part in row[1:] if part not in text] == [], text
