"""Written files are read back exactly by the target's own reader, or refused without a file.

Names, dtypes and shapes are drawn. The limits of each target are written down here a second time,
so that refusing too much is noticed as well.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable
from math import prod
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import bundles
import h5py
import numpy as np
import pytest
import tensorflow as tf
import torch
from hostile_names import FORMATS, draw, draw_many
from safetensors import safe_open
from tf_bytes import BY_DEFAULT, QUANTIZED, random_tensor, tf_memory, torch_memory
from torch._subclasses.fake_tensor import FakeTensorMode

import tensor_bridge
from tensor_bridge import (
    DtypeRow,
    InvalidOptionError,
    StringTensor,
    TensorBridgeError,
    UnsupportedDtypeError,
    UnsupportedTypeError,
    checkpoint,
)

T = TypeVar("T")
SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"
GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
SHAPES: list[tuple[int, ...]] = [(), (1,), (3,), (0,), (2, 0, 3), (2, 3), (1, 1, 1, 1, 5), (7, 3)]
# torch dtypes that a checkpoint can become and that safetensors has no name for.
NOT_IN_SAFETENSORS = {torch.complex128, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz}
# The rows of `BY_DEFAULT` that TensorFlow's own writer of checkpoints accepts.
ROWS = [row for row in BY_DEFAULT if row.name != "string"]


def is_utf8(name: str) -> bool:
    return not any("\ud800" <= c <= "\udfff" for c in name)


def files(folder: Path) -> set[str]:
    return {str(path) for path in folder.rglob("*")}


def as_path(name: str) -> str:
    return name.replace(".", "/")


def outcome(call: Callable[[], T]) -> tuple[T | None, TensorBridgeError | None]:
    """The result, or the typed error."""
    try:
        return call(), None
    except TensorBridgeError as e:
        return None, e


# --- convert ------------------------------------------------------------------------------------


def drawn_checkpoint(dice: Random, folder: Path, tame: bool) -> Path:
    """A checkpoint by TensorFlow; ``tame`` names have ordinary letters, mostly writable."""
    names = [f"layer_{i}/w".encode() if tame else name for i, name in enumerate(draw_many(dice, 6))]
    rows = [dice.choice(ROWS) for _ in names]
    tensors = [random_tensor(row, dice.choice(SHAPES), dice.randrange(99)) for row in rows]
    if dice.random() < 0.2:
        tensors[0] = tf.constant(["text"])
    elif dice.random() < 0.2:
        tensors[0] = random_tensor(dice.choice(QUANTIZED), (3,), 1)
    return Path(bundles.save(folder / "ck", dict(zip(names, tensors, strict=True))))


def read_safetensors(paths: list[Path]) -> dict[str, torch.Tensor]:
    found = {}
    for path in paths:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                found.update({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    return found


def read_back(paths: list[Path]) -> dict[str, torch.Tensor]:
    if paths[0].suffix == ".safetensors":
        found = read_safetensors(paths)
        if paths[-1].suffix == ".json":
            where = json.loads(paths[-1].read_text())["weight_map"]
            assert {name: paths[0].with_name(file) for name, file in where.items()} == {
                name: path for path in paths[:-1] for name in read_safetensors([path])
            }
        return found
    loaded: dict[str, torch.Tensor] = torch.load(paths[0], weights_only=True)
    return loaded


def can_be_written(loaded: checkpoint.Checkpoint, target: Path) -> bool:
    # torch has no tensors of strings, and the scale of TensorFlow's quantized numbers is unknown.
    if any(
        e.dtype == "string" or e.dtype.startswith(("qint", "quint"))
        for e in loaded.entries.values()
    ):
        return False
    return target.suffix == ".pt" or all(
        name != "__metadata__" and is_utf8(name) and x.dtype not in NOT_IN_SAFETENSORS
        for name, x in loaded.items()
    )


def check_convert(source: Path, target: Path, limit: int | None) -> bool:
    """Returns whether the file was written; both outcomes are compared with the expected one."""
    loaded = checkpoint.load(source)
    before = files(target.parent)
    possible = can_be_written(loaded, target)
    paths, refusal = outcome(lambda: checkpoint.convert(source, target, max_shard_bytes=limit))
    assert (refusal is None) == possible, refusal
    if paths is None:
        assert isinstance(refusal, (InvalidOptionError, UnsupportedDtypeError))
        assert files(target.parent) == before
        return False
    found = read_back(paths)
    assert set(found) == set(loaded)
    for name, x in loaded.items():
        assert (found[name].dtype, found[name].shape) == (x.dtype, x.shape)
        assert torch_memory(found[name]) == torch_memory(x)
    return True


def check_drawn(seed: int, folder: Path) -> tuple[bool, ...]:
    dice = Random(seed)
    source = drawn_checkpoint(dice, folder, tame=dice.random() < 0.5)
    shards = check_convert(source, folder / "some.safetensors", dice.choice((1, 20)))
    return (
        check_convert(source, folder / "out.pt", None),
        check_convert(source, folder / "out.safetensors", None),
        shards,
    )


def test_drawn_checkpoints_are_converted_or_refused(tmp_path: Path) -> None:
    outcomes = set()
    for seed in range(30):
        (folder := tmp_path / str(seed)).mkdir()
        outcomes.add(check_drawn(seed, folder))
    assert outcomes == {(True, True, True), (True, False, False), (False, False, False)}


@pytest.mark.exhaustive
def test_many_drawn_checkpoints_are_converted_or_refused(tmp_path: Path) -> None:
    for seed in range(1000, 4000):
        (folder := tmp_path / str(seed)).mkdir()
        check_drawn(seed, folder)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("seed", range(2))
def test_names_of_every_format_are_converted_or_refused(
    kind: str, seed: int, tmp_path: Path
) -> None:
    names = draw_many(Random(seed), 8)
    source = FORMATS[kind](names, tmp_path)
    assert check_convert(source, tmp_path / "out.pt", None)
    check_convert(source, tmp_path / "out.safetensors", None)
    (folder := tmp_path / "readable").mkdir()
    readable = [n for n in names if is_utf8(n.decode("utf-8", "surrogateescape"))]
    source = FORMATS[kind]([n.replace(b"__metadata__", b"m") for n in readable], folder)
    assert check_convert(source, folder / "out.safetensors", None)


@pytest.mark.parametrize("name", ["__metadata__", "a\udcff"])
def test_a_name_that_safetensors_lacks_is_told(name: str, tmp_path: Path) -> None:
    source = FORMATS["bundle"]([b"w", name.encode("utf-8", "surrogateescape")], tmp_path)
    before = files(tmp_path)
    with pytest.raises(InvalidOptionError) as e:
        checkpoint.convert(source, tmp_path / "out.safetensors")
    assert repr(name) in str(e.value)
    assert "'w'" not in str(e.value)
    assert files(tmp_path) == before


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
@pytest.mark.parametrize(
    ("shape", "fits"), [((1 << 40, 1 << 40, 0), False), ((0, 1 << 40), True), ((1 << 62, 0), True)]
)
def test_a_shape_that_overflows_is_refused(
    suffix: str, shape: tuple[int, ...], fits: bool, tmp_path: Path
) -> None:
    source = tmp_path / "source.h5"
    with h5py.File(source, "w") as file:
        file.create_dataset("w", shape, np.float32)
    before = files(tmp_path)
    paths, refusal = outcome(lambda: checkpoint.convert(source, tmp_path / f"out.{suffix}"))
    assert (refusal is None) == fits, refusal
    if paths is None:
        assert files(tmp_path) == before
    else:
        assert read_back(paths)["w"].shape == shape


def test_a_header_beyond_what_safetensors_reads_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = FORMATS["bundle"]([b"w" * 900, b"v" * 900], tmp_path)
    monkeypatch.setattr("tensor_bridge.checkpoint.write._convert._MAX_HEADER", 1200)
    before = files(tmp_path)
    with pytest.raises(InvalidOptionError, match="max_shard_bytes"):
        checkpoint.convert(source, tmp_path / "out.safetensors")
    assert files(tmp_path) == before
    paths = checkpoint.convert(source, tmp_path / "out.safetensors", max_shard_bytes=8)
    assert len(read_safetensors(paths)) == 2


def test_the_header_that_safetensors_reads_is_as_long_as_we_think(tmp_path: Path) -> None:
    from tensor_bridge.checkpoint.write._convert import _MAX_HEADER

    path = tmp_path / "long.safetensors"
    for size, is_read in ((_MAX_HEADER, True), (_MAX_HEADER + 8, False)):
        with path.open("wb") as file:
            file.write(size.to_bytes(8, "little"))
            file.write(b'{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}'.ljust(size))
        if is_read:
            assert list(read_safetensors([path])) == ["a"]
        else:
            with pytest.raises(Exception, match="header too large"):
                read_safetensors([path])


def test_shards_whose_name_is_not_utf8_are_refused(tmp_path: Path) -> None:
    source = FORMATS["bundle"]([b"w", b"v"], tmp_path)
    before = files(tmp_path)
    with pytest.raises(InvalidOptionError, match="JSON"):
        checkpoint.convert(source, tmp_path / "a\udcff.safetensors", max_shard_bytes=8)
    assert files(tmp_path) == before
    paths = checkpoint.convert(source, tmp_path / "a\udcff.safetensors")
    assert len(paths[0].read_bytes()) > 16


# --- save ---------------------------------------------------------------------------------------

TORCH_DTYPES = [
    x for x in map(torch.__dict__.get, sorted(vars(torch))) if isinstance(x, torch.dtype)
]


def shared(rows: Iterable[DtypeRow]) -> set[torch.dtype]:
    """The dtypes of this torch that TensorFlow has as they are."""
    names = (row.torch_name.removeprefix("torch.") for row in rows if row.kind == "shared")
    return {getattr(torch, name) for name in names if hasattr(torch, name)}


IN_TENSORFLOW = shared(ROWS)
# Those that newer releases of TensorFlow have too: the file is written without TensorFlow.
SHARED = shared(tensor_bridge.dtypes())
ORDINARY = [
    "w",
    "layer.w",
    "layer/b",
    "a.b.c",
    "save_counter",
    "é",
    "日本",
    "x y",
    "a\x1bb",
    "a\0b",
]
ODD = [
    "",
    ".",
    "/",
    "a..b",
    "/a",
    "a.",
    "\0a",
    GRAPH,
    "a\udc80",
    "\ud83d\ude00",
    "layer.b",
    "a/b.c",
]


def drawn_tensor(dice: Random) -> tuple[Any, bool]:
    """A tensor, and whether TensorFlow has such tensors."""
    kind = dice.choice(("dense",) * 12 + ("odd", "string"))
    shape = dice.choice(SHAPES)
    if kind == "string":
        count = prod(shape)
        texts = [dice.randbytes(dice.choice((0, 1, 9, 300))) for _ in range(count)]
        return StringTensor.from_list(texts).reshape(shape), True
    if kind == "odd":
        return dice.choice(
            [
                (lambda: torch.ones(3).to_sparse(), False),
                (lambda: torch.eye(3).to_sparse_csr(), False),
                (lambda: torch.ones(3, device="meta"), False),
                (lambda: torch.ones([1] * 254), True),
                (lambda: torch.ones([1] * 255), False),
                (lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8), False),
                (fake, False),
                (lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), False),
                (lambda: torch.ones(3).to_mkldnn(), False),
                (lambda: torch.ones(2, 1).expand(2, 3).mT, True),
                (lambda: torch.ones(4, dtype=torch.complex64).conj(), True),
                (lambda: torch.ones(3, requires_grad=True), True),
                (lambda: torch.empty(2**62, 0), True),
                (lambda: [1.0], False),
            ]
        )
    dtype = dice.choice(list(IN_TENSORFLOW) if dice.random() < 0.8 else TORCH_DTYPES)
    size = prod(shape) * dtype.itemsize
    data = torch.frombuffer(bytearray(dice.randbytes(size) or b"\0"), dtype=torch.uint8)[:size]
    if dtype == torch.bool:
        data = data % 2
    try:
        return data.clone().view(dtype).reshape(shape), dtype in SHARED
    except RuntimeError:  # torch itself cannot make this view
        return torch.empty(shape, dtype=dtype), dtype in SHARED


def fake() -> torch.Tensor:
    with FakeTensorMode():
        return torch.ones(3)


def can_be_names(names: list[str], object_based: bool) -> bool:
    if not all(map(is_utf8, names)):
        return False
    if not object_based:
        return not any(name in ("", GRAPH) or name[0] == "\0" for name in names)
    paths = [name.replace(".", "/") for name in names]
    return (
        len(set(paths)) == len(paths)
        and all(part for path in paths for part in path.split("/"))
        and not any(path[0] == "\0" for path in paths)
    )


def check_saved(seed: int, folder: Path) -> bool:
    dice = Random(seed)
    object_based = dice.random() < 0.5
    pool = ORDINARY if dice.random() < 0.6 else ORDINARY + ODD
    names = dice.sample(pool, dice.randint(1, 5))
    if dice.random() < 0.3:
        names.append(draw(dice).decode("utf-8", "surrogateescape"))
    state, possible = {}, can_be_names(list(dict.fromkeys(names)), object_based)
    for name in names:
        value, fits = drawn_tensor(dice)
        if callable(value):
            value = value()
        state[name] = value, fits
    possible = possible and all(fits for _, fits in state.values())
    values = {name: value for name, (value, _) in state.items()}
    prefix, refusal = outcome(
        lambda: checkpoint.save(values, folder / "saved", object_based=object_based)
    )
    assert (refusal is None) == possible, (names, refusal)
    if prefix is None:
        assert not files(folder)
        return False
    tensors = [value for value in values.values() if isinstance(value, torch.Tensor)]
    if all(tensor.dtype in IN_TENSORFLOW for tensor in tensors):
        assert_tensorflow_has(prefix, values, object_based)
    return True


def assert_tensorflow_has(prefix: str, values: dict[str, Any], object_based: bool) -> None:
    reader = tf.train.load_checkpoint(prefix)
    expected = {
        f"{as_path(name)}{SUFFIX}" if object_based else name: value
        for name, value in values.items()
    }
    assert set(reader.get_variable_to_shape_map()) - {GRAPH} == set(expected)
    dtypes = reader.get_variable_to_dtype_map()
    for key, value in expected.items():
        (found,) = tf.raw_ops.RestoreV2(
            prefix=prefix, tensor_names=[key], shape_and_slices=[""], dtypes=[dtypes[key]]
        )
        assert tuple(found.shape) == tuple(value.shape)
        if isinstance(value, StringTensor):
            assert tensor_bridge.to_torch(found).tolist() == value.tolist()
            continue
        plain = value.detach().contiguous().resolve_conj()
        assert str(plain.dtype) == str(tensor_bridge.to_torch(found).dtype)
        assert tf_memory(found) == torch_memory(plain)


@pytest.fixture(autouse=True)
def quiet_torch() -> Any:
    with warnings.catch_warnings():
        # torch warns that sparse, nested and quantized tensors are in beta.
        warnings.simplefilter("ignore", UserWarning)
        yield


def test_drawn_states_are_saved_or_refused(tmp_path: Path) -> None:
    saved = 0
    for seed in range(60):
        (folder := tmp_path / str(seed)).mkdir()
        saved += check_saved(seed, folder)
    assert 15 <= saved <= 45


@pytest.mark.exhaustive
def test_many_drawn_states_are_saved_or_refused(tmp_path: Path) -> None:
    for seed in range(1000, 6000):
        (folder := tmp_path / str(seed)).mkdir()
        check_saved(seed, folder)


def test_names_that_become_one_path_are_both_told(tmp_path: Path) -> None:
    state = {"a.b": torch.ones(1), "a/b": torch.zeros(1)}
    with pytest.raises(InvalidOptionError, match=r"'a\.b' and 'a/b'"):
        checkpoint.save(state, tmp_path / "saved")
    assert not files(tmp_path)
    assert_tensorflow_has(
        checkpoint.save(state, tmp_path / "saved", object_based=False), state, False
    )


def test_a_tensor_inside_a_transform_is_refused(tmp_path: Path) -> None:
    def save(x: torch.Tensor) -> torch.Tensor:
        with pytest.raises(UnsupportedTypeError, match="wraps"):
            checkpoint.save({"w": x}, tmp_path / "saved")
        return x.sum()

    torch.func.vmap(save)(torch.ones(2, 3))
    torch.func.grad(save)(torch.ones(3))
    assert not files(tmp_path)
