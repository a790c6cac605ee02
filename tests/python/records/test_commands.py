"""The output and the exit statuses of the commands `tensor-bridge records ...`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tensor_bridge import records
from tensor_bridge._exit_status import ExitStatus
from tensor_bridge.cli import main

SPEC = {
    "n": records.FixedLenFeature((), "int64"),
    "x": records.VarLenFeature("float32"),
    "image": records.FixedLenFeature((), bytes),
}


@pytest.fixture
def path(tmp_path: Path) -> str:
    with records.Writer(tmp_path / "r", SPEC) as writer:
        for n in range(5):
            writer.write({"n": n, "x": [0.5] * n, "image": bytes([n]) * 100})
    return str(tmp_path / "r")


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = main(["records", *arguments])
    said = capsys.readouterr()
    return status, said.out, said.err


def as_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    status, out, _ = run(capsys, *arguments, "--json")
    assert status == ExitStatus.DONE
    return json.loads(out)


def test_ls_counts_records(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    with records.Writer(path + "z", compression="GZIP") as writer:
        writer.write(b"abc")
    status, out, _ = run(capsys, "ls", path + "*")
    assert status == ExitStatus.DONE
    assert [line.split() for line in out.splitlines()][2] == [
        "1",
        "3",
        "tfrecord",
        "GZIP",
        path + "z",
    ]
    assert out.splitlines()[-1] == "2 files, 6 records"
    rows = as_json(capsys, "ls", path)
    assert [(row["records"], row["compression"]) for row in rows] == [(5, "")]
    assert run(capsys, "ls", path + "missing")[0] == ExitStatus.ERROR


def test_head_prints_values_and_raw_records(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "head", path, "-n", "2")
    assert status == ExitStatus.DONE
    assert out.count("record ") == 2
    assert "  n: 1\n" in out
    assert "  x: [0.5]\n" in out or "  x: 0.5\n" in out
    assert "(100 bytes)" in out
    rows = as_json(capsys, "head", path, "-n", "9")
    assert [row["n"] for row in rows] == list(range(5))
    assert rows[2]["image"] == "\x02" * 100
    with records.Writer(path + "raw") as writer:
        writer.write(b"\xff no Example\n")
    assert "\\\\xff no Example" in run(capsys, "head", path + "raw")[1]


def test_infer_prints_a_spec_that_reads_the_records(
    path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = run(capsys, "infer", path)
    assert status == ExitStatus.DONE
    spec = eval(out, {"records": records})
    assert records.RecordDataset(path, spec)[4]["n"] == 4
    described = as_json(capsys, "infer", path)
    assert described["n"] == {"kind": "FixedLenFeature", "dtype": "int64", "shape": []}
    assert described["x"] == {"kind": "VarLenFeature", "dtype": "float32"}


def test_verify_finds_damage(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "verify", path)[:2] == (
        ExitStatus.DONE,
        "5 records compared; no damage found\n",
    )
    data = bytearray(Path(path).read_bytes())
    data[30] ^= 1
    data[-10] ^= 1
    Path(path).write_bytes(data)
    status, out, _ = run(capsys, "verify", path)
    assert status == ExitStatus.FOUND
    assert f"{path}, byte 0: " in out
    assert "the first of 2 places" in out
    status, out, _ = run(capsys, "verify", path, "--json")
    said = json.loads(out)
    assert (status, said["compared"]) == (ExitStatus.FOUND, 3)
    assert said["problems"][0]["damaged_places"] == 2
    empty = path + "empty"
    Path(empty).touch()
    assert run(capsys, "verify", empty)[0] == ExitStatus.NOTHING_COMPARED
    assert run(capsys, "verify", path + "missing")[0] == ExitStatus.ERROR


def test_index_writes_what_a_dataset_uses(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    index = path + ".index"
    status, out, _ = run(capsys, "index", path, "-o", index)
    assert (status, out) == (ExitStatus.DONE, f"{index}: 5 records of 1 file\n")
    kept = Path(index).stat().st_mtime_ns
    assert len(records.RecordDataset(path, index=index)) == 5
    assert Path(index).stat().st_mtime_ns == kept
    said = as_json(capsys, "index", path, "-o", index)
    assert said == {"output": index, "files": 1, "records": 5}


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """A folder of files of both formats, one compressed, and other files."""
    from array_record.python import array_record_module as module

    found = tmp_path / "folder"
    found.mkdir()
    with records.Writer(found / "a.tfrecord", SPEC) as writer:
        for n in range(3):
            writer.write({"n": n, "x": [], "image": b""})
    written = list(records.RecordFile(found / "a.tfrecord"))
    with records.Writer(found / "b.tfrec.gz", compression="GZIP") as writer:
        for record in written:
            writer.write(record)
    other = module.ArrayRecordWriter(str(found / "c.array_record-00000-of-00001"), "group_size:1")
    for record in written:
        other.write(record)
    other.close()
    (found / "dataset_info.json").write_text("{}")
    return str(found)


def test_folders_and_array_record(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    rows = as_json(capsys, "ls", folder)
    assert [(row["records"], row["format"], row["compression"]) for row in rows] == [
        (3, "tfrecord", ""),
        (3, "tfrecord", "GZIP"),
        (3, "array_record", ""),
    ]
    assert len({row["bytes"] for row in rows}) == 1
    packed, stored = folder + "/b.tfrec.gz", folder + "/c.array_record-*"
    for name in (folder, packed, stored):
        assert [row["n"] for row in as_json(capsys, "head", name, "-n", "2")] == [0, 1]
        assert as_json(capsys, "infer", name)["n"]["dtype"] == "int64"
    assert as_json(capsys, "verify", folder) == {"compared": 9, "problems": []}
    assert [row["n"] for row in as_json(capsys, "head", folder, "-n", "7")] == [0, 1, 2] * 2 + [0]
    # Random access by offsets is for uncompressed TFRecord files.
    for name, message in ((packed, "uncompressed file"), (stored, "index of its own")):
        status, _, err = run(capsys, "index", name, "-o", folder + "/index")
        assert status == ExitStatus.ERROR
        assert message in err


def test_damage_of_array_record_is_found(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(folder, "c.array_record-00000-of-00001")
    data = bytearray(path.read_bytes())
    whole = bytes(data)
    data[200] ^= 1  # in the second chunk of data
    path.write_bytes(data)
    status, out, _ = run(capsys, "verify", folder, "--json")
    (problem,) = json.loads(out)["problems"]
    assert (status, json.loads(out)["compared"]) == (ExitStatus.FOUND, 8)
    assert (problem["path"], problem["damaged_places"]) == (str(path), 1)
    assert problem["damaged_bytes"] is None
    path.write_bytes(whole[:300])
    assert run(capsys, "verify", folder)[0] == ExitStatus.FOUND
    assert run(capsys, "ls", folder)[0] == ExitStatus.ERROR


def test_a_folder_without_records_says_what_to_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "shard-0").touch()
    for command in ("ls", "head", "infer", "verify"):
        status, _, err = run(capsys, command, str(tmp_path))
        assert status == ExitStatus.ERROR
        assert f"for example '{tmp_path}/*'" in err


def test_a_wrong_command_line_is_an_error(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["head", path, "-n", "0"], ["index", path], ["ls"]):
        with pytest.raises(SystemExit) as caught:
            run(capsys, *arguments)
        assert caught.value.code == ExitStatus.ERROR
