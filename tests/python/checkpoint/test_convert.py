"""Converting checkpoints to other files and back; every file is complete or absent."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import bundles
import needs
import pytest
import tensorflow as tf
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from tf_bytes import BY_DEFAULT, random_tensor, torch_memory

import tensor_bridge
from tensor_bridge import StringTensor, checkpoint

v1 = tf.compat.v1


def bundle(folder: Path, **tensors: Any) -> str:
    return bundles.save(folder / "ck", tensors)


@pytest.fixture
def every_dtype(tmp_path: Path) -> str:
    # A byte comes first, so that nothing after it is aligned.
    tensors = {"a": tf.constant(True)}
    for row in BY_DEFAULT:
        tensors[row.name] = random_tensor(row, (3, 5), 1)
        tensors[f"{row.name}_empty"] = random_tensor(row, (0, 2), 1)
    return bundle(tmp_path, **tensors)


def assert_same(found: dict[str, torch.Tensor], loaded: checkpoint.Checkpoint) -> None:
    assert set(found) == set(loaded)
    for name, x in loaded.items():
        assert found[name].dtype == x.dtype
        assert found[name].shape == x.shape
        assert torch_memory(found[name]) == torch_memory(x)


def test_torch_save_holds_every_dtype(every_dtype: str, tmp_path: Path) -> None:
    [path] = checkpoint.convert(every_dtype, tmp_path / "out.pt")
    assert_same(torch.load(path), checkpoint.load(every_dtype))


# Dtypes that safetensors has no name for.
UNNAMED = {"complex128", "float8_e4m3fnuz", "float8_e5m2fnuz"}


def test_safetensors_hold_the_dtypes_they_name(tmp_path: Path) -> None:
    tensors = {"a": tf.constant(True)}
    for row in BY_DEFAULT:
        if row.name not in UNNAMED:
            tensors[row.name] = random_tensor(row, (3, 5), 1)
    prefix = bundle(tmp_path, **tensors)
    [path] = checkpoint.convert(prefix, tmp_path / "out.safetensors", verify=True)
    assert_same(load_file(path), checkpoint.load(prefix))
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"format": "pt"}


@pytest.mark.parametrize("name", needs.dtypes(sorted(UNNAMED)))
def test_safetensors_refuse_the_rest(tmp_path: Path, name: str) -> None:
    row = next(r for r in BY_DEFAULT if r.name == name)
    prefix = bundle(tmp_path, x=random_tensor(row))
    with pytest.raises(tensor_bridge.UnsupportedDtypeError, match=r"'x'.*\.pt has"):
        checkpoint.convert(prefix, tmp_path / "out.safetensors")
    assert not list(tmp_path.glob("*out*"))


def test_strings_are_refused_or_skipped(tmp_path: Path) -> None:
    prefix = bundle(tmp_path, s=tf.constant(["a"]), w=tf.constant([1.0]))
    for target in ("out.safetensors", "out.pt"):
        with pytest.raises(tensor_bridge.UnsupportedDtypeError, match="skip_strings"):
            checkpoint.convert(prefix, tmp_path / target)
    [path] = checkpoint.convert(prefix, tmp_path / "out.safetensors", skip_strings=True)
    assert set(load_file(path)) == {"w"}


def test_partitioned_variables_and_shards(tmp_path: Path) -> None:
    with tf.Graph().as_default():
        initial = v1.random_normal_initializer()
        v1.get_variable("p", (10, 6), partitioner=v1.fixed_size_partitioner(3), initializer=initial)
        for i in range(4):
            v1.get_variable(f"w{i}", (8, 8), initializer=initial)
        with v1.Session() as session:
            session.run(v1.global_variables_initializer())
            prefix = v1.train.Saver().save(session, str(tmp_path / "ck"))
    *paths, index = checkpoint.convert(prefix, tmp_path / "out.safetensors", max_shard_bytes=600)
    assert [p.name for p in paths] == [f"out-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    described = json.loads(index.read_text())
    found = {}
    for path in paths:
        part = load_file(path)
        assert all(described["weight_map"][name] == path.name for name in part)
        found.update(part)
    assert set(described["weight_map"]) == set(found)
    assert described["metadata"]["total_size"] == 240 + 4 * 256
    assert_same(found, checkpoint.load(prefix))


@pytest.mark.parametrize("target", ["out.safetensors", "out.pt"])
def test_what_was_written_to_tensors_is_not_stored(tmp_path: Path, target: str) -> None:
    aligned = checkpoint.save({"w": torch.ones(4)}, tmp_path / "a", object_based=False)
    loaded = checkpoint.load(aligned)
    loaded["w"].zero_()
    loaded.verify()
    checkpoint.convert(loaded, tmp_path / target)
    read = load_file(tmp_path / target) if target.endswith("s") else torch.load(tmp_path / target)
    assert read["w"].tolist() == [1, 1, 1, 1]
    assert loaded["w"].tolist() == [0, 0, 0, 0]


def test_existing_files_stay_unless_told(tmp_path: Path) -> None:
    prefix = bundle(tmp_path, w=tf.constant([1.0]))
    target = tmp_path / "out.safetensors"
    target.write_bytes(b"mine")
    with pytest.raises(tensor_bridge.InvalidOptionError, match="overwrite=True"):
        checkpoint.convert(prefix, target)
    assert target.read_bytes() == b"mine"
    checkpoint.convert(prefix, target, overwrite=True)
    assert load_file(target)["w"].item() == 1
    with pytest.raises(tensor_bridge.InvalidOptionError, match="expected a target"):
        checkpoint.convert(prefix, tmp_path / "out.npz")


def test_a_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    prefix = bundle(tmp_path, a=tf.zeros(100), b=tf.zeros(100))
    data = Path(prefix + ".data-00000-of-00001")
    data.write_bytes(data.read_bytes()[:500])
    before = set(tmp_path.iterdir())
    for target in ("out.safetensors", "out.pt"):
        with pytest.raises(tensor_bridge.CheckpointError, match="truncated"):
            checkpoint.convert(prefix, tmp_path / target)
    assert set(tmp_path.iterdir()) == before


def test_an_interrupt_leaves_nothing_behind(tmp_path: Path) -> None:
    prefix = bundle(tmp_path, **{f"w{i}": tf.zeros(1 << 16) for i in range(20)})

    def interrupt(done: int, total: int) -> None:
        if done > total // 2:
            raise KeyboardInterrupt

    before = set(tmp_path.iterdir())
    with pytest.raises(KeyboardInterrupt):
        checkpoint.convert(prefix, tmp_path / "out.safetensors", progress=interrupt)
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize("progress", ["yes", True, False, 3])
def test_a_progress_that_is_no_function_is_refused_with_one_that_is(
    progress: Any, tmp_path: Path
) -> None:
    prefix = bundle(tmp_path, w=tf.zeros(2))
    loaded = checkpoint.load(prefix)
    for use in (
        lambda: checkpoint.convert(prefix, tmp_path / "out.safetensors", progress=progress),
        lambda: loaded.verify(progress),
        lambda: loaded.problems(progress),
    ):
        with pytest.raises(tensor_bridge.InvalidOptionError) as caught:
            use()
        text = str(caught.value)
        assert f"must be None or a function of two ints, got {progress!r}; give one" in text
        assert eval(text.partition("progress=")[2])(1, 2) is None


@pytest.mark.alone
def test_a_killed_process_leaves_nothing_under_the_name(tmp_path: Path) -> None:
    prefix = bundle(tmp_path, **{f"w{i}": tf.zeros(1 << 16) for i in range(20)})
    code = f"""
import threading
from tensor_bridge import checkpoint
def stop(done, total):
    if done > total // 2:
        print(done, flush=True)
        threading.Event().wait()
checkpoint.convert({prefix!r}, {str(tmp_path / "out.safetensors")!r}, progress=stop)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert int(process.stdout.readline()) > 0
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "out.safetensors").exists()


GROWTH = """
import sys
import threading
from tensor_bridge import checkpoint
import torch

def resident(kind):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(kind)) * 1024

def watch():
    while not done.wait(0.001):
        for kind in peaks:
            peaks[kind] = max(peaks[kind], resident(kind))

start = {kind: resident(kind) for kind in ("RssAnon", "RssFile")}
peaks = dict(start)
done = threading.Event()
thread = threading.Thread(target=watch)
thread.start()
calls = []
checkpoint.convert(sys.argv[1], sys.argv[2], progress=lambda *numbers: calls.append(numbers))
done.set()
thread.join()
assert calls[0][0] == 0 and calls[-1][0] == calls[-1][1] and calls == sorted(calls), calls
print(*(peaks[kind] - start[kind] for kind in peaks), len(calls))
"""


def big_bundle(folder: Path, tensors: int, elements: int, dtype: str) -> str:
    """A checkpoint of zeros with misaligned tensors, whose data file takes no disk space."""
    from bundles import entry, write

    row = next(row for row in tensor_bridge.dtypes() if row.name == dtype)
    size = row.itemsize * elements
    entries = {
        f"w{i:03}": entry(dtype=row.tf_enum, shape=(elements,), offset=1 + i * size, size=size)
        for i in range(tensors)
    }
    prefix = write(folder, entries, b"")
    os.truncate(prefix + ".data-00000-of-00001", 1 + tensors * size)
    return prefix


def converted_growth(folder: Path, prefix: str, target: str) -> tuple[int, int, int]:
    """The peak growth of anonymous and of mapped memory, and the number of calls of progress."""
    done = subprocess.run(
        [sys.executable, "-c", GROWTH, prefix, str(folder / target)],
        check=True,
        capture_output=True,
        text=True,
    )
    anonymous, mapped, calls = map(int, done.stdout.split())
    return anonymous, mapped, calls


@pytest.mark.alone
@pytest.mark.parametrize("target", ["out.safetensors", "out.pt"])
def test_half_a_gigabyte_converts_in_less_than_200_megabytes(tmp_path: Path, target: str) -> None:
    prefix = big_bundle(tmp_path, 8, (64 << 20) // 4, "float32")
    anonymous, mapped, calls = converted_growth(tmp_path, prefix, target)
    assert anonymous < 200e6
    assert mapped < 200e6
    assert calls >= 8
    assert (tmp_path / target).stat().st_size > 1 << 29


@pytest.mark.alone
@pytest.mark.parametrize("parts", [16, pytest.param(64, marks=pytest.mark.exhaustive)])
def test_values_made_of_the_bytes_are_let_go_one_by_one(tmp_path: Path, parts: int) -> None:
    """int4 values are made from the stored bytes; float32 values are stored as in memory."""
    prefix = big_bundle(tmp_path, parts, 16 << 20, "int4")
    anonymous, mapped, calls = converted_growth(tmp_path, prefix, "out.pt")
    assert anonymous < 100e6
    assert mapped < 100e6
    assert calls >= parts
    assert (tmp_path / "out.pt").stat().st_size > parts << 24


@pytest.mark.alone
@pytest.mark.exhaustive
@pytest.mark.parametrize("target", ["out.safetensors", "out.pt"])
def test_ten_gigabytes_convert_in_less_than_two(tmp_path: Path, target: str) -> None:
    prefix = big_bundle(tmp_path, 40, 1 << 26, "float32")
    anonymous, mapped, _ = converted_growth(tmp_path, prefix, target)
    assert anonymous < 2e9
    assert mapped < 2e9


# --- into TensorFlow ------------------------------------------------------------------------------


def test_a_state_dict_is_read_by_tensorflow(tmp_path: Path) -> None:
    torch.manual_seed(0)
    state: dict[str, Any] = {
        "layer.weight": torch.rand(3, 4).t(),
        "layer.bias": torch.rand(3).to(torch.bfloat16),
        "step": torch.tensor(7),
        "flags": torch.tensor([True, False]),
        "none": torch.zeros(0, 3),
        "conj": torch.rand(2, dtype=torch.complex64).conj(),
        "words": StringTensor.from_list(["a", "", "bcd" * 100]),
    }
    prefix = checkpoint.save(state, tmp_path / "back")
    reader = tf.train.load_checkpoint(prefix)
    suffix = "/.ATTRIBUTES/VARIABLE_VALUE"
    for name, x in state.items():
        found = reader.get_tensor(name.replace(".", "/") + suffix)
        if isinstance(x, StringTensor):
            assert list(found) == x.tolist()
            continue
        kind = reader.get_variable_to_dtype_map()[name.replace(".", "/") + suffix]
        t = tensor_bridge.to_torch(tf.constant(found, kind))
        assert torch.equal(t, x.resolve_conj())
    again = checkpoint.load(prefix, verify=True)
    assert set(again) == {name.replace(".", "/") for name in state}
    assert torch.equal(again["layer/weight"], state["layer.weight"])
    assert all(e.offset % 64 == 0 for e in again.all_entries)


def test_tensorflow_restores_objects(tmp_path: Path) -> None:
    state = {"net.0.w": torch.rand(2, 3), "net.0.b": torch.rand(3), "a_b": torch.tensor(2.0)}
    prefix = checkpoint.save(state, tmp_path / "back")
    layer = tf.Module()
    layer.w, layer.b = tf.Variable(tf.zeros((2, 3))), tf.Variable(tf.zeros(3))
    target = tf.train.Checkpoint(net=[layer], a_b=tf.Variable(0.0))
    target.read(prefix).assert_consumed()
    assert torch.equal(tensor_bridge.to_torch(layer.w), state["net.0.w"])
    assert torch.equal(tensor_bridge.to_torch(layer.b), state["net.0.b"])
    layer.w.assign(tf.zeros((2, 3)))
    # restore() also expects a save_counter, which only checkpoints from save() have.
    target.restore(prefix).expect_partial()
    assert torch.equal(tensor_bridge.to_torch(layer.w), state["net.0.w"])


def test_names_of_tensorflow_1_are_kept(tmp_path: Path) -> None:
    prefix = checkpoint.save({"scope/w:x": torch.ones(2)}, tmp_path / "v1", object_based=False)
    assert tf.train.load_checkpoint(prefix).get_tensor("scope/w:x").tolist() == [1, 1]
    assert set(checkpoint.load(prefix)) == {"scope/w:x"}


def test_many_names_fill_many_blocks(tmp_path: Path) -> None:
    state = {f"layers.{i}.w{'x' * 50}": torch.tensor(i) for i in range(2000)}
    prefix = checkpoint.save(state, tmp_path / "many")
    reader = tf.train.load_checkpoint(prefix)
    assert len(reader.get_variable_to_shape_map()) == 2001
    loaded = checkpoint.load(prefix, verify=True)
    assert all(loaded[n.replace(".", "/")] == x for n, x in state.items())


@pytest.mark.parametrize(
    ("state", "error"),
    [
        ({"w": [1.0]}, tensor_bridge.UnsupportedTypeError),
        ({"": torch.ones(1)}, tensor_bridge.InvalidOptionError),
        ({"a..b": torch.ones(1)}, tensor_bridge.InvalidOptionError),
        ({"a.b": torch.ones(1), "a/b": torch.ones(1)}, tensor_bridge.InvalidOptionError),
        ({"w": torch.empty(1, dtype=torch.bits8)}, tensor_bridge.UnsupportedDtypeError),
    ],
)
def test_what_cannot_be_saved_leaves_nothing(tmp_path: Path, state: Any, error: Any) -> None:
    with pytest.raises(error):
        checkpoint.save(state, tmp_path / "bad")
    assert not list(tmp_path.iterdir())


def test_a_shared_tensor_stays_shared(tmp_path: Path) -> None:
    t = tf.random.normal((32, 32))
    x = tensor_bridge.to_torch(t)
    checkpoint.save({"x": x}, tmp_path / "ck")
    assert tensor_bridge.testing.shares_memory(t, x)
