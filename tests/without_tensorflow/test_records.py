"""TFRecord files and data sets of TFDS."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from tensor_bridge import StringTensor, records
from tensor_bridge.cli import main

DATA = Path(__file__).parents[1] / "data"
SPEC = {
    "n": records.FixedLenFeature((), "int64"),
    "x": records.FixedLenFeature((3,), "float32"),
    "s": records.FixedLenFeature((), bytes),
    "v": records.VarLenFeature("int64"),
    "r": records.RaggedFeature(bytes),
}


@pytest.fixture(scope="module", params=["", "GZIP"])
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("records") / "r"
    with records.Writer(path, SPEC, compression=request.param) as writer:
        for n in range(40):
            writer.write(
                {
                    "n": n,
                    "x": torch.full((3,), n / 2),
                    "s": f"no {n}",
                    "v": list(range(n % 3)),
                    "r": [b"r"] * (n % 2),
                }
            )
    return str(path)


def numbers(batches: Any) -> list[int]:
    return sorted(n for batch in batches for n in batch["n"].tolist())


def test_records_are_written_and_read(path: str) -> None:
    assert len(list(records.RecordFile(path))) == 40
    (batch,) = records.loader(path, SPEC, batch_size=40)
    assert batch["n"].tolist() == list(range(40))
    assert batch["x"][7].tolist() == [3.5] * 3
    assert isinstance(batch["s"], StringTensor)
    assert batch["s"].to_str()[39] == "no 39"
    assert batch["v"].coalesce().values().tolist()[:4] == [0, 0, 1, 0]
    assert batch["r"].to_list()[:2] == [[], [b"r"]]
    assert records.infer(path)["x"] == SPEC["x"]


def test_each_record_comes_once_from_workers(path: str) -> None:
    dataset = records.IterableRecordDataset(path, SPEC, batch_size=8, shuffle=16, seed=3)
    assert numbers(DataLoader(dataset, None, num_workers=2)) == list(range(40))


def test_samplers_draw_from_a_map_style_dataset(tmp_path: Path) -> None:
    with records.Writer(tmp_path / "r", SPEC) as writer:
        for n in range(30):
            writer.write({"n": n, "x": [0, 0, n], "s": b"", "v": [], "r": []})
    dataset = records.RecordDataset(tmp_path / "r", SPEC)
    assert dataset[-1]["x"].tolist() == [0, 0, 29]
    loader = DataLoader(dataset, 4, shuffle=True, collate_fn=records.collate)
    assert numbers(loader) == list(range(30))


def test_a_flipped_bit_is_found(tmp_path: Path) -> None:
    path = tmp_path / "r"
    with records.Writer(path) as writer:
        for n in range(3):
            writer.write(b"record %d" % n)
    content = bytearray(path.read_bytes())
    content[14] ^= 1
    path.write_bytes(content)
    with pytest.raises(records.RecordError, match="byte 0"):
        list(records.RecordFile(path))
    with pytest.warns(UserWarning, match="skipped"):
        assert len(list(records.RecordFile(path, on_error="skip"))) == 2


def test_files_of_others_are_read() -> None:
    path = DATA / "records/penguins_train.tfrecord.gz"
    spec = records.infer(path, records=1000)
    (batch,) = records.loader(path, spec, batch_size=1000)
    assert batch["species"].unique().tolist() == [0, 1, 2]
    assert batch["body_mass_g"].shape == (234,)


def test_a_data_set_of_tfds(digits: Path) -> None:
    dataset = records.tfds(digits, "train[25%:]", as_supervised=True)
    images, labels = next(iter(DataLoader(dataset, 15)))
    assert labels.tolist() == [1, 0] * 7 + [1]
    assert images.shape == (15, 1, 4, 4)
    assert images[:, 0, 0, 0].tolist() == list(range(5, 20))


def test_windows_of_episodes(episodes: Path) -> None:
    dataset = records.rlds(episodes, window=3, shuffle=True)
    found = []
    for batch in DataLoader(dataset, 2, num_workers=2):
        for frames, actions in zip(batch["steps"]["frame"], batch["steps"]["action"], strict=True):
            assert frames.shape == (3, 1, 4, 4)
            i, j = actions[0].tolist()
            assert frames[:, 0, 0, 0].tolist() == [10 * i + j + k for k in range(3)]
            found.append((i, j))
    assert sorted(found) == [(i, j) for i in range(6) for j in range(i + 1)]


def test_commands(path: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("ls", "head", "infer", "verify"):
        assert main(["records", command, path, "--json"]) == 0, command
        assert json.loads(capsys.readouterr().out)
    assert main(["records", "verify", str(tmp_path / "nothing")]) == 2
