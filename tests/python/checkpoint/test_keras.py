"""Keras' weight files: the names, the values, the mapping, and files that are damaged."""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path
from typing import Any

import h5py
import keras
import needs
import numpy as np
import pytest
import torch
from fresh import run_python
from tf_bytes import torch_memory

import tensor_bridge
from tensor_bridge import CheckpointError, checkpoint
from tensor_bridge.testing import torch_data_address


def memory_of(data: Any) -> bytes:
    return np.ascontiguousarray(data).tobytes()


@pytest.fixture(scope="module")
def model() -> keras.Model:
    keras.utils.set_random_seed(1)
    image = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, name="first_conv")(image)
    x = keras.layers.BatchNormalization()(x)
    inner = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(6)], name="inner")
    x = keras.layers.Dense(5)(inner(x))
    model = keras.Model(image, x)
    model.compile("adam", "mse")
    model.train_on_batch(np.ones((2, 8, 8, 3)), np.zeros((2, 5)))
    return model


def save(model: keras.Model, path: Path) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_weights(path) if path.name.endswith(".weights.h5") else model.save(path)
    return str(path)


def expected(model: keras.Model, legacy: bool) -> dict[str, bytes]:
    found = {}
    for layer in model.layers:
        inner = layer.layers if isinstance(layer, keras.Sequential) else [layer]
        for part in inner:
            at = "" if part is layer else f"{layer.name}/"
            for i, variable in enumerate(part.weights):
                name = f"{at}{part.name}/{variable.name if legacy else i}"
                found[name] = memory_of(variable.numpy())
    return found


@needs.keras_3
@pytest.mark.parametrize("suffix", [".keras", ".weights.h5", ".h5"])
def test_weights_have_the_names_of_their_layers(
    tmp_path: Path, model: keras.Model, suffix: str
) -> None:
    path = save(model, tmp_path / f"model{suffix}")
    loaded = checkpoint.load(path, verify=True)
    assert loaded.format == "hdf5"
    assert {n: torch_memory(x) for n, x in loaded.items()} == expected(model, suffix == ".h5")
    if suffix != ".weights.h5":
        assert loaded.slots
    assert not any("adam" in name or "optimizer" in name for name in loaded)


@needs.keras_3
@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
def test_contiguous_data_sets_are_mapped(tmp_path: Path, model: keras.Model, suffix: str) -> None:
    path = save(model, tmp_path / f"model{suffix}")
    before = Path(path).read_bytes()
    loaded = checkpoint.load(path)
    x = loaded["first_conv/0"]
    entry = loaded.entries["first_conv/0"]
    assert before[entry.offset :].startswith(torch_memory(x))
    if entry.offset % 4 == 0:
        assert torch_data_address(loaded["first_conv/0"]) == torch_data_address(x)
        assert Path(path).name in Path("/proc/self/maps").read_text()
    x.zero_()
    assert Path(path).read_bytes() == before


@needs.keras_3
def test_compressed_archives_are_unpacked(tmp_path: Path, model: keras.Model) -> None:
    plain = save(model, tmp_path / "plain.keras")
    packed = tmp_path / "packed.keras"
    with zipfile.ZipFile(plain) as a, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as b:
        for name in a.namelist():
            b.writestr(name, a.read(name))
    loaded = checkpoint.load(packed)
    assert {n: torch_memory(x) for n, x in loaded.items()} == expected(model, legacy=False)


CHUNKED = [
    {},
    {"compression": "gzip"},
    {"compression": "gzip", "shuffle": True},
    {"compression": "gzip", "shuffle": True, "fletcher32": True},
    {"fletcher32": True},
]


@pytest.mark.parametrize("options", CHUNKED, ids=lambda o: "-".join(o) or "plain")
@pytest.mark.parametrize("dtype", ["float32", "int64", "float16", "complex64", "bool", ">f8"])
def test_chunked_data_sets_are_unpacked(tmp_path: Path, dtype: str, options: Any) -> None:
    data = (np.random.default_rng(0).random((37, 21)) * 9).astype(dtype)
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file.create_dataset("w", data=data, chunks=(10, 8), **options)
    x = checkpoint.load(tmp_path / "f.h5")["w"]
    assert x.shape == (37, 21)
    assert torch_memory(x) == memory_of(data.astype(data.dtype.newbyteorder("<")))


@pytest.mark.parametrize("length", [1, 7, 1000, 70001])
def test_a_changed_byte_of_a_chunk_with_a_checksum_is_found(tmp_path: Path, length: int) -> None:
    data = np.random.default_rng(length).integers(0, 256, length, np.uint8)
    path = tmp_path / "f.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("w", data=data, chunks=(length,), fletcher32=True)
        offset = file["w"].id.get_chunk_info(0).byte_offset
    assert torch_memory(checkpoint.load(path, verify=True)["w"]) == memory_of(data)
    stored = bytearray(path.read_bytes())
    stored[offset + length // 2] ^= 0x10
    path.write_bytes(stored)
    loaded = checkpoint.load(path)
    for read in (loaded.verify, lambda: loaded["w"]):
        with pytest.raises(CheckpointError, match="Fletcher-32") as caught:
            read()
        assert caught.value.entry == "w"


def test_other_data_sets(tmp_path: Path) -> None:
    data = np.arange(6.0).reshape(2, 3)
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["big"] = data.astype(">f4")
        file["scalar"] = np.float32(3)
        file["none"] = np.zeros((0, 3), np.float32)
        file.create_dataset("fill", (5,), chunks=(2,), dtype="f4", fillvalue=3.5)
        file.create_dataset("late", (5,), dtype="f4")
        # Like Keras, which stores dtypes that HDF5 lacks as integers.
        bf16 = file.create_dataset("bf16", data=np.array([0x3F80, 0x4000], np.uint16))
        bf16.attrs["dtype"] = "bfloat16"
        file["link"] = h5py.SoftLink("/big")
        file["out"] = h5py.ExternalLink("/etc/passwd", "x")
        file["words"] = ["a", "b"]
        file.create_dataset("lzf", data=data, compression="lzf")
    loaded = checkpoint.load(tmp_path / "f.h5")
    assert not {"link", "out"} & set(loaded)
    assert loaded["big"].tolist() == data.tolist()
    assert loaded["scalar"].item() == 3
    assert loaded["none"].shape == (0, 3)
    assert loaded["fill"].tolist() == [3.5] * 5
    assert loaded["late"].tolist() == [0] * 5
    assert torch.equal(loaded["bf16"], torch.tensor([1, 2], dtype=torch.bfloat16))
    with pytest.raises(tensor_bridge.UnsupportedDtypeError, match="entry 'words'"):
        loaded["words"]
    with pytest.raises(CheckpointError, match="filter 32000") as caught:
        loaded["lzf"]
    assert caught.value.entry == "lzf"


def test_data_in_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"12345678")
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file.create_dataset("w", (2,), "f4", external=[(str(tmp_path / "secret"), 0, 8)])
    with pytest.raises(CheckpointError, match="in others"):
        checkpoint.load(tmp_path / "f.h5")["w"]


def test_chunks_do_not_unpack_beyond_their_size(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "f.h5", "w") as file:
        small = file.create_dataset("w", (4,), "f4", chunks=(4,), compression="gzip")
        import zlib

        small.id.write_direct_chunk((0,), zlib.compress(b"\0" * (64 << 20)))
        file.create_dataset("huge", (1 << 40,), "f4", chunks=(1 << 20,), compression="gzip")
    loaded = checkpoint.load(tmp_path / "f.h5")
    with pytest.raises(CheckpointError, match="chunk of 16 bytes"):
        loaded["w"]
    with pytest.raises(CheckpointError, match="1099511627776"):
        loaded["huge"]


@pytest.mark.parametrize("keep", [8, 100, 0.5, 0.9])
def test_truncated_files_are_refused(tmp_path: Path, model: keras.Model, keep: float) -> None:
    for suffix in (".keras", ".weights.h5"):
        path = Path(save(model, tmp_path / f"model{suffix}"))
        data = path.read_bytes()
        path.write_bytes(data[: int(keep if keep > 1 else keep * len(data))])
        with pytest.raises(CheckpointError) as caught:
            dict(checkpoint.load(path))
        assert caught.value.file == str(path)


@needs.keras_3
def test_a_changed_byte_of_an_archive_is_found_by_verify(
    tmp_path: Path, model: keras.Model
) -> None:
    path = Path(save(model, tmp_path / "model.keras"))
    entry = checkpoint.load(path).entries["first_conv/0"]
    data = bytearray(path.read_bytes())
    data[entry.offset] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="CRC-32"):
        checkpoint.load(path, verify=True)


def test_an_archive_without_weights_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.keras", "w") as archive:
        archive.writestr("config.json", "{}")
    with pytest.raises(tensor_bridge.UnsupportedFileError, match=r"without model\.weights\.h5"):
        checkpoint.load(tmp_path / "a.keras")


# Keras 3.15 gets NumPy arrays from TensorFlow 2.21 in a way that NumPy 2 warns about.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@needs.keras_3
def test_weights_in_several_files(tmp_path: Path, model: keras.Model) -> None:
    model.save_weights(tmp_path / "one.weights.h5")
    model.save_weights(tmp_path / "m.weights.json", max_shard_size=4e-6)
    pieces = sorted(tmp_path.glob("m_*.weights.h5"))
    assert len(pieces) > 2
    one, several = (checkpoint.load(tmp_path / n) for n in ("one.weights.h5", "m.weights.json"))
    assert list(several) == list(one)
    assert {n: torch_memory(x) for n, x in several.items()} == expected(model, legacy=False)
    assert {e.file for e in several.all_entries} <= set(map(str, pieces))
    pieces[1].rename(tmp_path / "away")
    with pytest.raises(tensor_bridge.CheckpointNotFoundError, match=r"m_00001\.weights\.h5"):
        checkpoint.load(tmp_path / "m.weights.json")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[",
        "[]",
        "{}",
        '{"weight_map": 3}',
        '{"weight_map": {}}',
        '{"weight_map": {"a": 3}}',
        '{"weight_map": {"a": ["../x.h5"]}}',
        '{"weight_map": {"a": "/etc/passwd"}}',
        '{"weight_map": {"a": ".."}}',
    ],
)
def test_a_list_of_files_is_checked(tmp_path: Path, text: str) -> None:
    (tmp_path / "m.weights.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"weight_map|names of files|regular file"):
        checkpoint.load(tmp_path / "m.weights.json")


def test_without_h5py_the_error_says_how_to_install_it(tmp_path: Path, model: keras.Model) -> None:
    path = save(model, tmp_path / "m.weights.h5")
    done = run_python(
        f"""
        import sys
        sys.modules["h5py"] = None
        import tensor_bridge
        try:
            tensor_bridge.checkpoint.load({path!r})
        except tensor_bridge.FrameworkError as e:
            print(e.name, e)
        """
    )
    assert done.check().startswith("h5py h5py is not installed")
    assert done.out.endswith("pip install h5py\n")
