"""The output and the exit statuses of the commands of `tensor-bridge checkpoint`."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import bundles
import h5py
import keras
import needs
import numpy as np
import pytest
import tensorflow as tf
import torch
from fresh import run_python
from safetensors.torch import load_file

from tensor_bridge import checkpoint
from tensor_bridge.cli import main as entry


def bundle(folder: Path, name: str = "ck", **tensors: Any) -> str:
    return bundles.save(folder / name, tensors)


def run_command(*arguments: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "tensor_bridge", "checkpoint", *arguments],
        check=False,
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def main(capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*arguments: Any) -> tuple[int, str, str]:
        status = entry(["checkpoint", *map(str, arguments)])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def test_show_prints_tensors_of_every_kind(tmp_path: Path, main: Any) -> None:
    prefix = bundle(tmp_path, w=[[1.0, 2.0]], s=["é"], global_step=3)
    assert json.loads(main("show", prefix, "w", "s", "global_step", "--json")[1]) == {
        "w": [[1.0, 2.0]],
        "s": ["é"],
        "global_step": 3,
    }
    assert main("show", prefix, "w")[1] == "w: tensor([[1., 2.]])\n"
    status, _, err = main("show", prefix, "ww")
    assert status == 2
    assert "did you mean 'w'" in err


def test_json_has_neither_nan_nor_infinity(tmp_path: Path, main: Any) -> None:
    values = [[1.5, math.nan], [math.inf, -math.inf]]
    prefix = bundle(tmp_path, x=values, c=tf.complex(1.0, math.nan))

    def refuse(name: str) -> None:
        raise AssertionError(name)

    _, out, _ = main("show", prefix, "x", "c", "--json")
    assert json.loads(out, parse_constant=refuse) == {
        "x": [[1.5, "NaN"], ["Infinity", "-Infinity"]],
        "c": "(1+nanj)",
    }


def test_ls_sorts_naturally_and_has_a_header(tmp_path: Path, main: Any) -> None:
    names = {f"ws/{n}": np.zeros(n * 400 + 1, np.float32) for n in (10, 2, 0, 1)}
    prefix = bundle(tmp_path, **names, global_step=1)
    status, out, _ = main("ls", prefix)
    assert status == 0
    assert [line.split() for line in out.splitlines()] == [
        ["NAME", "DTYPE", "SHAPE", "SIZE"],
        ["ws/0", "float32", "1", "4", "B"],
        ["ws/1", "float32", "401", "1.6", "kB"],
        ["ws/2", "float32", "801", "3.2", "kB"],
        ["ws/10", "float32", "4001", "16", "kB"],
        [
            "4",
            "tensors,",
            "20.8",
            "kB;",
            "--all",
            "lists",
            "1",
            "more",
            "that",
            "are",
            "no",
            "variables",
        ],
    ]
    rows = json.loads(main("ls", prefix, "--json", "--all")[1])
    assert [row["name"] for row in rows] == ["global_step", "ws/0", "ws/1", "ws/2", "ws/10"]
    assert [row["kind"] for row in rows][:2] == ["counter", "variable"]
    assert rows[-1]["bytes"] == 16004


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (999_600, "1 MB"), (5 * 10**12, "5 TB")],
)
def test_sizes_are_in_the_units_of_the_options(nbytes: int, text: str) -> None:
    from tensor_bridge.checkpoint._commands import _human, _size

    assert _human(nbytes) == text
    assert abs(_size(text.replace("99.6", "99")) - nbytes) <= 400


def test_convert_names_options_and_not_keywords(tmp_path: Path, main: Any) -> None:
    prefix = bundle(tmp_path, w=[[1.0, 2.0]], s=["é"])
    target = tmp_path / "out.safetensors"
    status, _, err = main("convert", prefix, target)
    assert (status, "--skip-strings leaves strings out" in err) == (2, True)
    assert main("convert", prefix, target, "--skip-strings")[0] == 0
    assert load_file(target)["w"].tolist() == [[1, 2]]
    status, _, err = main("convert", prefix, target, "--skip-strings")
    assert (status, "--overwrite replaces it" in err) == (2, True)
    status, _, err = main("convert", prefix, tmp_path / "o.pt", "--max-shard-size", "5GB")
    assert (status, "--max-shard-size is a positive" in err) == (2, True)
    assert "=True" not in err


def test_diff(tmp_path: Path, main: Any) -> None:
    one = bundle(tmp_path, w=[[1.0, 2.0]], s=["é"])
    other = checkpoint.save({"w": torch.tensor([[1.0, 5.0]])}, tmp_path / "b", object_based=False)
    assert main("diff", one, one)[:2] == (0, "")
    status, out, _ = main("diff", one, other)
    assert status == 1
    assert "w: 1 of 2 values differ, by at most 3" in out
    assert f"s: only in {one}" in out
    assert main("diff", one, tmp_path / "nowhere")[0] == 2


@needs.keras_3
def test_diff_knows_numbered_and_named_variables(tmp_path: Path, main: Any) -> None:
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(4, name="a"),
            keras.layers.BatchNormalization(name="norm"),
        ]
    )
    files = [str(tmp_path / name) for name in ("m.keras", "m.h5", "other.h5")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save(files[0])
        model.save(files[1])
        model.layers[0].kernel.assign_add(np.ones((3, 4)))
        model.save(files[2])
    status, out, _ = main("diff", files[0], files[1])
    assert status == 0
    assert out.startswith("6 compared by their order in their layer: ")
    assert "norm/0 with norm/gamma, norm/1 with norm/beta, " in out
    status, out, _ = main("diff", files[2], files[0])
    assert status == 1
    assert out.startswith("a/kernel and a/0: 12 of 12 values differ, by at most 1\n6 compared")


def test_diff_of_layers_that_do_not_fit_by_order(tmp_path: Path, main: Any) -> None:
    one = bundle(tmp_path, "one", **{"a/0": [1.0], "a/1": [[1.0]], "b/0": [1.0]})
    two = bundle(tmp_path, "two", **{"a/x": [[1.0]], "a/y": [1.0], "b/1": [1.0]})
    status, out, _ = main("diff", one, two)
    assert (status, len(out.splitlines())) == (1, 6)
    assert "only in" in out.splitlines()[0]


# --- exit statuses --------------------------------------------------------------------------------


def test_verify_counts_what_has_a_checksum(tmp_path: Path, main: Any) -> None:
    prefix = bundle(tmp_path, w=[1.0], v=[2.0])
    assert main("verify", prefix)[:2] == (0, "2 of 2 tensors have a checksum; no damage found\n")
    assert checkpoint.load(prefix).verify() == checkpoint.Verification(compared=2, without=0)


def test_verify_reports_all_damage(tmp_path: Path, main: Any) -> None:
    prefix = bundle(tmp_path, a=np.zeros(4), b=np.zeros(4), c=np.zeros(4))
    data = Path(prefix + ".data-00000-of-00001")
    damaged = bytearray(data.read_bytes())
    damaged[0] = damaged[80] = 1
    data.write_bytes(damaged)
    status, out, _ = main("verify", prefix, "--json")
    assert status == 1
    found = json.loads(out)
    assert [row["entry"] for row in found["problems"]] == ["a", "c"]
    assert (found["compared"], found["without_checksum"]) == (3, 0)
    index = Path(prefix + ".index")
    index.write_bytes(index.read_bytes()[:30])
    status, out, _ = main("verify", prefix)
    assert (status, str(index) in out) == (1, True)
    assert main("ls", prefix)[0] == 2


@pytest.mark.parametrize("at", ["begin", "end"])
def test_a_file_without_checksums_is_not_said_to_be_sound(
    tmp_path: Path, main: Any, at: str
) -> None:
    path = tmp_path / "w.h5"
    with h5py.File(path, "w") as file:
        place = file.create_dataset("w", data=np.ones(64)).id.get_offset()
        file["v"] = np.ones(8)
    stored = bytearray(path.read_bytes())
    stored[place + (0 if at == "begin" else 511)] ^= 1
    path.write_bytes(stored)
    status, out, _ = main("verify", path)
    assert status == 3
    assert out.startswith("0 of 2 tensors have a checksum: nothing could be compared")
    assert checkpoint.load(path, verify=True).verify() == checkpoint.Verification(0, 2)
    status, out, _ = main("verify", path, "--json")
    assert (status, json.loads(out)) == (
        3,
        {"compared": 0, "without_checksum": 2, "problems": []},
    )


def test_some_data_sets_have_a_checksum(tmp_path: Path, main: Any) -> None:
    path = tmp_path / "w.h5"
    with h5py.File(path, "w") as file:
        file["plain"] = np.ones(8)
        sums = file.create_dataset("sums", data=np.ones(64), chunks=(64,), fletcher32=True)
        place = sums.id.get_chunk_info(0).byte_offset
    status, out, _ = main("verify", path)
    assert (status, out.startswith("1 of 2 tensors have a checksum; no damage")) == (0, True)
    stored = bytearray(path.read_bytes())
    stored[place + 9] ^= 1
    path.write_bytes(stored)
    status, out, _ = main("verify", path)
    assert (status, "Fletcher-32" in out) == (1, True)


@needs.keras_3
@pytest.mark.parametrize("packed", [False, True])
def test_an_archive_has_a_checksum_of_all(tmp_path: Path, main: Any, packed: bool) -> None:
    import zipfile

    path = tmp_path / "m.keras"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        keras.Sequential([keras.Input((3,)), keras.layers.Dense(4)]).save(path)
    if packed:
        plain = path.rename(tmp_path / "plain.keras")
        with zipfile.ZipFile(plain) as a, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as b:
            for name in a.namelist():
                b.writestr(name, a.read(name))
    status, out, _ = main("verify", path)
    assert (status, out) == (0, "2 of 2 tensors have a checksum; no damage found\n")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert main("verify", path)[0] == 1


@pytest.fixture
def without_variables(tmp_path: Path) -> str:
    module = tf.Module()
    tf.saved_model.save(module, str(tmp_path / "saved"))
    return str(tmp_path / "saved")


def test_a_saved_model_without_variables_says_so(
    without_variables: str, tmp_path: Path, main: Any
) -> None:
    loaded = checkpoint.load(without_variables)
    assert "a SavedModel without variables" in repr(loaded)
    assert dict(loaded) == {}
    status, out, _ = main("ls", without_variables)
    assert status == 0
    assert out == "a SavedModel without variables, nor weights among its graph's constants\n"
    for target in ("out.safetensors", "out.pt"):
        status, _, err = main("convert", without_variables, tmp_path / target)
        assert (status, "got a SavedModel without variables" in err) == (2, True)
        assert not (tmp_path / target).exists()
    status, out, _ = main("diff", without_variables, without_variables)
    assert (status, out) == (3, "neither has variables: nothing was compared\n")


def test_a_file_without_variables_is_not_converted(tmp_path: Path, main: Any) -> None:
    strings = bundle(tmp_path, "strings", s=["a"])
    counter = bundle(tmp_path, "counter", global_step=1)
    h5py.File(tmp_path / "empty.h5", "w").close()
    for path, text in (
        (strings, "--skip-strings left out all"),
        (counter, "got no variables"),
        (tmp_path / "empty.h5", "got no variables"),
    ):
        status, _, err = main("convert", path, tmp_path / "out.pt", "--skip-strings")
        assert (status, text in err) == (2, True), err
        assert not (tmp_path / "out.pt").exists()


def test_errors_have_one_status_in_all_commands(tmp_path: Path, main: Any) -> None:
    other = tmp_path / "array.npy"
    np.save(other, np.ones(3))
    later = tmp_path / "later.index"
    later.write_bytes(bundles.index_bytes([(b"", bundles.header(version={"min_consumer": 2}))]))
    for path in (other, tmp_path / "nowhere", "gs://bucket/model", later.with_suffix("")):
        for command in (
            ("ls", path),
            ("show", path, "w"),
            ("convert", path, tmp_path / "out.pt"),
            ("diff", path, path),
            ("verify", path),
        ):
            status, out, err = main(*command)
            assert (status, out) == (2, ""), command
            assert str(path) in err
    for command in (["nothing"], ["ls"], ["convert", "x", "y", "--max-shard-size", "z"]):
        with pytest.raises(SystemExit) as caught:
            main(*command)
        assert caught.value.code == 2


def test_the_home_folder_is_known(
    tmp_path: Path, main: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert checkpoint.save({"w": torch.ones(2)}, "~/saved") == str(tmp_path / "saved")
    assert checkpoint.load("~/saved")["w"].tolist() == [1, 1]
    assert main("convert", "~/saved", "~/out.pt")[:2] == (0, f"{tmp_path / 'out.pt'}\n")
    assert main("diff", "~/saved", tmp_path / "saved")[0] == 0


def test_the_command_needs_no_tensorflow(tmp_path: Path) -> None:
    prefix = bundle(tmp_path, w=[1.0])
    status, out, err = run_command("ls", prefix)
    assert (status, err) == (0, "")
    assert out.endswith("1 tensor, 4 B\n")
    done = run_python(
        f"""
        import sys
        sys.modules["tensorflow"] = sys.modules["numpy"] = None
        from tensor_bridge.cli import main
        print(int(main(["checkpoint", "verify", {prefix!r}])))
        """
    )
    assert done.check() == "1 of 1 tensors have a checksum; no damage found\n0"
    assert run_command("ls", str(tmp_path / "nowhere"))[0] == 2
