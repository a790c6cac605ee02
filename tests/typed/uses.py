"""Users' code with types: all public names, checked by mypy and pyright in strict mode, never run.

A value is `Any` if its type depends on other values. TensorFlow's tensors are in tensors.py.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
import torch.utils.dlpack
from torch import nn
from torch.utils.data import DataLoader
from typing_extensions import assert_type

import tensor_bridge
import tensor_bridge.config
import tensor_bridge.doctor
from tensor_bridge import (
    CheckpointError,
    CopyRequiredError,
    DtypeRow,
    Explanation,
    Extension,
    LiveView,
    Ragged,
    StringTensor,
    StructureExplanation,
    TensorBridge,
    TensorBridgeError,
    autograd,
    checkpoint,
    data,
    dlpack,
    records,
    testing,
)
from tensor_bridge.checkpoint import Checkpoint, Entry, Report
from tensor_bridge.data import Loader, Stats, TorchDataset

Action = Literal["shared", "copied", "refused"]


# ---- conversion ----------------------------------------------------------------------------------


def conversion(value: Any, device: torch.device) -> torch.Tensor:
    assert_type(tensor_bridge.to_torch(value), Any)
    assert_type(tensor_bridge.convert_tf_to_pytorch(value, copy=None, device="cuda:0"), Any)
    tensor_bridge.to_torch(value, copy=False, device=device, on_write="raise", raw=True)
    tensor_bridge.to_torch(value, scale=[0.5], zero_point=torch.tensor([0]), axis=0)
    tensor_bridge.to_torch(value, strings="list", unknown="keep", live=True, device=0)
    x: torch.Tensor = tensor_bridge.to_torch(value)
    tensor_bridge.to_tf(x)
    tensor_bridge.convert_pytorch_to_tf(x, copy=True, device="CPU:0", dtype=None, grad="raise")
    tensor_bridge.assign(value, x, copy=None)
    assert_type(tensor_bridge.release_previous([x, nn.Linear(2, 2)]), int)
    tensor_bridge.prepare()
    assert_type(tensor_bridge.__version__, str)
    return x


def over_the_c_interface(value: Any, x: torch.Tensor, library: Path) -> TensorBridge:
    bridge = TensorBridge()
    assert_type(bridge.convert_tf_to_pytorch(value, on_write="alias", strings="tensor"), Any)
    assert_type(bridge.to_torch(value), Any)
    assert_type(bridge.convert_pytorch_to_tf(x, grad="detach"), Any)
    assert_type(bridge.to_tf(x), Any)
    assert_type(bridge.explain(value), Explanation)
    assert_type(bridge.explain_to_tf(x), Explanation)
    assert_type(bridge.version, str)
    assert_type(bridge.live_owners(), int)
    return TensorBridge(library)


def explanation(value: Any) -> list[str]:
    why = tensor_bridge.explain(value, copy=False, on_write="raise")
    assert_type(why, Explanation | StructureExplanation)
    assert_type(why.action, Action)
    if isinstance(why, StructureExplanation):
        assert_type(why.leaves, tuple[tuple[str, Explanation], ...])
        assert_type(why.nbytes, int)
        return [path for path, _ in why.leaves]
    assert_type(why.reason, str)
    assert_type(why.shape, tuple[int | None, ...] | None)
    assert_type(why.error, type[Exception] | None)
    return [why.reason, str(why), why.device or "", why.kind or ""]


def dtypes() -> dict[str, str | None]:
    rows = tensor_bridge.dtypes()
    assert_type(rows, tuple[DtypeRow, ...])
    assert_type(rows[0].itemsize, int)
    return {row.name: row.tf_name for row in rows}


# ---- types of some results -----------------------------------------------------------------------


def composites(values: torch.Tensor, splits: torch.Tensor) -> None:
    ragged = Ragged(values, (splits,))
    assert_type(ragged.shape, tuple[int | None, ...])
    assert_type(ragged.ragged_rank, int)
    assert_type(ragged.row_splits, tuple[torch.Tensor, ...])
    assert_type(ragged.to_list(), list[Any])

    strings = StringTensor.from_list(["a", "bc"], encoding="utf-8")
    assert_type(strings, StringTensor)
    assert_type(strings.bytes, torch.Tensor)
    assert_type(strings.offsets, torch.Tensor)
    assert_type(strings.shape, torch.Size)
    assert_type(strings.to_bytes(), list[bytes])
    assert_type(strings.item(), bytes)
    assert_type(strings[0], bytes | StringTensor)
    assert_type(strings.to("cpu").reshape(2, 1), StringTensor)
    assert_type(len(strings), int)


def extension(value: Any) -> Any:
    converted: Extension = tensor_bridge.to_torch(value)
    return converted.any_field


def live(variable: Any) -> torch.Tensor:
    view: LiveView = tensor_bridge.to_torch(variable, live=True)
    assert_type(view.tensor, torch.Tensor)
    assert_type(view.valid, bool)
    return view.refresh()


class Pair:
    def __init__(self, first: Any, second: Any) -> None:
        self.first, self.second = first, second


def flatten(pair: Pair) -> tuple[list[Any], str]:
    return [pair.first, pair.second], "pair"


def unflatten(static: Any, parts: Any) -> Pair:
    return Pair(*parts)


def registration() -> None:
    tensor_bridge.register_composite(
        "pair",
        "mine.TfPair",
        Pair,
        torch_flatten=flatten,
        torch_unflatten=unflatten,
    )
    tensor_bridge.unregister_composite("pair")


# ---- exceptions ----------------------------------------------------------------------------------


def errors(value: Any) -> torch.Tensor | None:
    try:
        x: torch.Tensor = tensor_bridge.to_torch(value, copy=False)
    except CopyRequiredError as e:
        refused: BufferError = e
        raise refused from None
    except CheckpointError as e:
        raise ValueError(str(e)) from e
    except TensorBridgeError:
        return None
    return x


ERRORS: dict[type[Exception], tuple[type[TensorBridgeError], ...]] = {
    BufferError: (tensor_bridge.CopyRequiredError,),
    ConnectionError: (tensor_bridge.DataServiceError,),
}
ALL_ERRORS: list[type[TensorBridgeError]] = [
    tensor_bridge.CheckpointError,
    tensor_bridge.CheckpointNotFoundError,
    tensor_bridge.RecordError,
    tensor_bridge.RecordNotFoundError,
    tensor_bridge.UnsupportedFileError,
    tensor_bridge.FrameworkError,
    tensor_bridge.InternalError,
    tensor_bridge.InvalidHandleError,
    tensor_bridge.InvalidOptionError,
    tensor_bridge.MismatchError,
    tensor_bridge.OutOfMemoryError,
    tensor_bridge.PipelineError,
    tensor_bridge.ResumeError,
    tensor_bridge.SymbolicTensorError,
    tensor_bridge.TensorFlowError,
    tensor_bridge.TorchError,
    tensor_bridge.UnsupportedDeviceError,
    tensor_bridge.UnsupportedDtypeError,
    tensor_bridge.UnsupportedTypeError,
    tensor_bridge.ValueRangeError,
    tensor_bridge.WorkerProcessError,
    tensor_bridge.WorldChangedError,
]


# ---- data ----------------------------------------------------------------------------------------


def pipelines(ds: Any) -> Iterator[torch.Tensor]:
    dataset = TorchDataset(ds, prefetch=4, on_error="skip", shard=None, equal_steps=True)
    assert_type(len(dataset), int)
    dataset.set_epoch(1)
    assert_type(dataset.position, int)
    loader = data.loader(dataset, device="cuda", pin_memory=True, resume="position")
    assert_type(loader, Loader)
    assert_type(loader.state_dict(), dict[str, Any])
    loader.load_state_dict(dataset.state_dict())
    stats = loader.stats()
    assert_type(stats, Stats)
    assert_type(stats.elements, int)
    assert_type(stats.elements_per_second, float)
    assert_type(stats.wait_share, float)
    for batch in loader:
        x: torch.Tensor = batch["x"]
        yield x
    loader.close()


def with_torchs_loader(ds: Any) -> Any:
    # torch's own loader accepts it as an iterable dataset.
    loader = DataLoader(TorchDataset(ds), batch_size=None)
    return data.from_torch(loader, element_spec=None)


# ---- checkpoints ---------------------------------------------------------------------------------


def checkpoints(path: str | os.PathLike[str], module: nn.Module) -> Report:
    stored = checkpoint.load(path, verify=True, raw=False)
    assert_type(stored, Checkpoint)
    state: Mapping[str, Any] = stored
    assert_type(stored.all_entries, list[Entry])
    assert_type(stored.all_entries[0].shape, tuple[int, ...])
    assert_type(stored.all_entries[0].quantization, checkpoint.Quantization | None)
    assert_type((stored.backend, stored.keras_version), tuple[str | None, str | None])
    assert_type(stored.layers, Mapping[str, checkpoint.Layer])
    assert_type(stored.verify(), checkpoint.Verification)
    assert_type(stored.entries["w"].quantization, checkpoint.Quantization | None)
    assert_type(stored.state.entries["loss"].has_checksum, bool)
    assert_type(stored.variable_names, dict[str, str])
    for problem in stored.problems():
        assert_type(problem, Exception)
    assert_type(stored.verify(), checkpoint.Verification)
    report = checkpoint.load_into(module, stored, made_with={"forget_bias": 1.0}, cast=True)
    assert_type(report, Report)
    checkpoint.load_into(module, state, rules=[("^a/", "b.")], strict=False, assign=True)
    rule = checkpoint.Rule("^c$", "head.weight", layout="as_is")
    checkpoint.load_into(module, state, rules=[rule, ("^a/", None), ("d", "d.bias", "transposed")])
    own = [("^bert/pooler/", None), *checkpoint.rules.BERT]
    checkpoint.load_into(module, stored.averages, rules=own)
    assert_type(report.missing, list[str])
    assert_type(report.loaded, list[checkpoint.Loaded])
    assert_type(report.proposal, list[checkpoint.Rule])
    assert_type(report.complete, bool)
    assert_type(checkpoint.convert(stored, Path("out"), max_shard_bytes=1 << 30), list[Path])
    assert_type(checkpoint.save(module.state_dict(), "prefix", overwrite=True), str)
    return report


# ---- records -------------------------------------------------------------------------------------


def examples(serialized: list[bytes]) -> dict[str, Any]:
    image = records.Image(sizes="pad")
    decoder: records.Decoder = records.Raw("int16", (2,))
    spec: dict[str, Any] = {
        "x": records.FixedLenFeature((4,), torch.float32, default_value=[0.0] * 4),
        "padded": records.FixedLenSequenceFeature((), "int64", allow_missing=True),
        "words": records.VarLenFeature(bytes),
        "rows": records.RaggedFeature("int64", partitions=[records.RaggedFeature.RowSplits("at")]),
        "sparse": records.SparseFeature("index", "value", "float32", 8),
        "image": records.FixedLenFeature((), "bytes", decode=image),
        "raw": records.FixedLenFeature((), "bytes", decode=decoder),
        "tensor": records.FixedLenFeature((), "bytes", decode=records.TensorProto()),
    }
    context, _, _ = records.parse_sequence_example(serialized, spec, {"w": spec["words"]})
    assert_type(context, dict[str, Any])
    assert_type(records.parse_single_example(serialized[0], spec), dict[str, Any])
    pixels: torch.Tensor = records.decode_image(serialized[0])
    padded = records.PaddedImages(pixels[None], torch.tensor([[1, 1]]))
    assert_type(padded.sizes, torch.Tensor)
    return records.parse_example(serialized, spec)


def record_files(path: str | os.PathLike[str]) -> Any:
    spec = records.infer(path)
    with records.Writer(path, spec, compression="GZIP", overwrite=True) as writer:
        writer.write({"x": torch.zeros(4)})
    with records.RecordFile(path, on_error="skip") as file:
        for batch in file.batches(64):
            assert_type(batch, records.RecordBatch)
        assert_type(file.stats(), records.RecordStats)
    features = records.SequenceFeatures(context={}, sequence={})
    by_number = records.RecordDataset([path], features, index="index")
    loader: DataLoader[Any] = DataLoader(by_number, 64, collate_fn=records.collate)
    in_order = records.IterableRecordDataset(path, spec, batch_size=64, shuffle=1000)
    loader = DataLoader(in_order, batch_size=None)
    assert_type(records.loader(path, spec, batch_size=64, threads=2), data.Loader)
    return next(iter(loader))


def data_sets(folder: Path) -> tuple[int, str]:
    prepared = records.tfds(folder, "train[:10%]", as_supervised=True)
    assert_type(prepared, records.TfdsDataset)
    assert_type(prepared.info, records.TfdsInfo)
    windows = records.rlds(folder, window=4)
    assert_type(windows, records.RldsDataset)
    for episode in windows:
        steps: records.Steps = episode["steps"]
        assert_type(len(steps), int)
    return len(prepared), prepared.info.name


# ---- the rest ------------------------------------------------------------------------------------


def exchange(t: Any, other: object) -> torch.Tensor:
    exported = dlpack.exporter(t)
    assert_type(exported, dlpack.Exporter)
    assert_type(exported.__dlpack_device__(), tuple[int, int])
    assert_type(dlpack.from_dlpack(other, framework="tensorflow", copy=None), Any)
    x: torch.Tensor = torch.utils.dlpack.from_dlpack(exported)
    return x


def addresses(t: Any, x: torch.Tensor) -> bool:
    assert_type(testing.live_owners(), int)
    assert_type(testing.tf_data_address(t), int)
    assert_type(testing.torch_data_address(x), int)
    return testing.shares_memory(t, x)


def directories() -> list[Path]:
    assert_type(tensor_bridge.config.cmake_dir(), Path)
    return [tensor_bridge.config.include_dir(), tensor_bridge.config.library_dir()]


def gradients(fn: Callable[..., Any], module: nn.Module, layer_input: Any) -> list[nn.Parameter]:
    function = autograd.tf_to_torch(fn, variables=None, sparse=True)
    assert_type(function, autograd.TfFunction)
    assert_type(function.parameters, tuple[nn.Parameter, ...])
    outside: autograd.TorchFunction = autograd.torch_to_tf(module, output_signature=None)
    inner = autograd.TfModule(fn, graph=True)
    inner.train()
    inner.push()
    autograd.compile_conversions()
    layer = autograd.TorchLayer(module, name="layer")
    layer.pull()
    assert_type(layer.module, nn.Module)
    try:
        outside(layer_input)
    except autograd.GradientError:
        raise tensor_bridge.GradientError("again") from None
    return list(inner.parameters())


def doctor() -> int:
    report = tensor_bridge.doctor.examine()
    assert_type(report, tensor_bridge.doctor.Report)
    assert_type(report.summary(), dict[str, str])
    assert_type(report.to_json(), str)
    assert_type(report.findings, tuple[tensor_bridge.doctor.Finding, ...])
    for finding in report.findings:
        assert_type(finding.level, Literal["error", "warning", "note"])
        assert_type(finding.remedy, str)
    facts: tensor_bridge.doctor.Facts = tensor_bridge.doctor.gather()
    assert_type(facts.trials, tuple[tensor_bridge.doctor.Trial, ...])
    return report.exit_code + len(facts.adapters)


def names() -> tuple[Callable[..., Any], ...]:
    return (tensor_bridge.to_torch, tensor_bridge.to_tf, tensor_bridge.explain)
