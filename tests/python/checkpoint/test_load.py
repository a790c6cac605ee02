"""TensorFlow's checkpoints of both kinds and SavedModels, compared with TensorFlow's reader."""

from __future__ import annotations

import gc
import os
import shutil
from pathlib import Path
from typing import Any

import bundles
import h5py
import needs
import pytest
import tensorflow as tf
import torch
from fresh import run_python
from like_tensorflow import assert_like_tensorflow
from tf_bytes import BY_DEFAULT, random_tensor, tf_memory, torch_memory

import tensor_bridge
from tensor_bridge import checkpoint
from tensor_bridge.testing import torch_data_address

v1 = tf.compat.v1


def module_of(**variables: Any) -> tf.Module:
    module = tf.Module()
    for name, value in variables.items():
        setattr(module, name, tf.Variable(value))
    return module


def mappings(path: str) -> list[tuple[int, int, str]]:
    """(begin, end, permissions) of this process's mappings of a file."""
    found = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        place, permissions, *_, name = line.split()
        if name == os.path.realpath(path):
            begin, end = (int(part, 16) for part in place.split("-"))
            found.append((begin, end, permissions))
    return found


def is_mapped(x: torch.Tensor, path: str) -> bool:
    return any(begin <= torch_data_address(x) < end for begin, end, _ in mappings(path))


@pytest.mark.parametrize("row", BY_DEFAULT, ids=lambda row: row.name)
def test_every_dtype_is_read(tmp_path: Path, row: tensor_bridge.DtypeRow) -> None:
    shapes = [(), (5,), (2, 3), (0, 4)]
    tensors = {f"t{i}": random_tensor(row, shape, i) for i, shape in enumerate(shapes)}
    # A byte comes first, so that some tensors are not aligned.
    prefix = bundles.save(tmp_path / "all", {"a": True, **tensors})
    loaded = checkpoint.load(prefix, verify=True)
    assert set(loaded) == {"a", *tensors}
    raw = checkpoint.load(prefix, raw=True)
    for name, tensor in tensors.items():
        expected = tensor_bridge.to_torch(tensor)
        found = loaded[name]
        assert found.dtype == expected.dtype
        assert found.shape == expected.shape
        assert torch_memory(found) == torch_memory(expected)
        assert raw[name].shape == expected.shape
        assert torch_memory(raw[name]) == tf_memory(tensor)


def test_quantized_dtypes_are_refused_and_read_raw(tmp_path: Path) -> None:
    quantized = tf.bitcast(tf.constant([1, -2], tf.int8), tf.qint8)
    prefix = bundles.save(tmp_path / "q", {"q": quantized})
    with pytest.raises(tensor_bridge.UnsupportedDtypeError, match=r"entry 'q'.*raw=True"):
        checkpoint.load(prefix)["q"]
    assert checkpoint.load(prefix, raw=True)["q"].tolist() == [1, -2]


def test_object_paths_become_names(tmp_path: Path) -> None:
    model = module_of(kernel=[[1.0, 2.0]], words=["a", "", "bcd"])
    model.parts = {"a.b": tf.Variable(1.0), "x/y": tf.Variable(2.0)}
    model.half = tf.Variable(tf.cast([1, 2, 3], tf.bfloat16), name="named/half")
    prefix = tf.train.Checkpoint(model=model).save(str(tmp_path / "step"))
    loaded = checkpoint.load(prefix, verify=True)
    assert sorted(loaded) == [
        "model/half",
        "model/kernel",
        "model/parts/a.b",
        "model/parts/x/y",
        "model/words",
    ]
    assert loaded["model/words"].tolist() == [b"a", b"", b"bcd"]
    assert dict(loaded.counters) == {"save_counter": torch.tensor(1)}
    assert list(loaded.metadata) == ["_CHECKPOINTABLE_OBJECT_GRAPH"]
    assert loaded.variable_names["model/half"] == "named/half"
    assert_like_tensorflow(loaded, prefix)


@needs.module("tf_keras")
def test_slots_are_apart(tmp_path: Path) -> None:
    import tf_keras

    w = tf.Variable([1.0, 2.0])
    optimizer = tf_keras.optimizers.legacy.Adam()
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(w * w)
    optimizer.apply_gradients([(tape.gradient(loss, w), w)])
    prefix = tf.train.Checkpoint(w=w, optimizer=optimizer).write(str(tmp_path / "adam"))
    loaded = checkpoint.load(prefix)
    assert sorted(loaded.slots) == ["optimizer/m/w", "optimizer/v/w"]
    assert "w" in loaded
    assert not any("OPTIMIZER_SLOT" in name for name in loaded)
    assert torch.equal(
        loaded.slots["optimizer/m/w"], tensor_bridge.to_torch(optimizer.get_slot(w, "m"))
    )


def save_v1(prefix: str, make: Any, **options: Any) -> str:
    with tf.Graph().as_default():
        make()
        with v1.Session() as session:
            session.run(v1.global_variables_initializer())
            return str(v1.train.Saver(**options).save(session, prefix))


def test_names_of_tensorflow_1_stay(tmp_path: Path) -> None:
    def make() -> None:
        w = v1.get_variable("scope/w", (3, 2), initializer=v1.random_normal_initializer())
        step = v1.train.get_or_create_global_step()
        v1.train.AdamOptimizer().minimize(tf.reduce_sum(w * w), global_step=step)

    prefix = save_v1(str(tmp_path / "model.ckpt"), make)
    loaded = checkpoint.load(prefix, verify=True)
    assert list(loaded) == ["scope/w"]
    assert sorted(loaded.slots) == ["scope/w/Adam", "scope/w/Adam_1"]
    assert sorted(loaded.counters) == ["beta1_power", "beta2_power", "global_step"]
    assert_like_tensorflow(loaded, prefix)


@pytest.mark.parametrize(
    ("shape", "parts", "axis"),
    [((10, 3), 3, 0), ((4, 300), 7, 1), ((9000, 2), 2, 0), ((2, 3, 70000), 3, 2), ((5,), 5, 0)],
)
def test_partitioned_variables_are_joined(
    tmp_path: Path, shape: tuple[int, ...], parts: int, axis: int
) -> None:
    def make() -> None:
        v1.get_variable(
            "scope/part",
            shape,
            partitioner=v1.fixed_size_partitioner(parts, axis=axis),
            initializer=v1.random_normal_initializer(),
        )

    prefix = save_v1(str(tmp_path / "parts"), make)
    loaded = checkpoint.load(prefix, verify=True)
    assert list(loaded) == ["scope/part"]
    assert loaded.entries["scope/part"].offset == -1
    assert_like_tensorflow(loaded, prefix)


def test_slices_along_two_axes_are_joined(tmp_path: Path) -> None:
    whole = tf.reshape(tf.range(24.0), (4, 6))
    prefix = str(tmp_path / "grid")
    places = [(r, c) for r in (0, 2) for c in (0, 3)]
    tf.raw_ops.SaveV2(
        prefix=prefix,
        tensor_names=["w"] * 4,
        shape_and_slices=[f"4 6 {r},2:{c},3" for r, c in places],
        tensors=[whole[r : r + 2, c : c + 3] for r, c in places],
    )
    assert torch.equal(checkpoint.load(prefix)["w"], torch.arange(24.0).reshape(4, 6))


def test_several_data_files(tmp_path: Path) -> None:
    prefixes = [
        bundles.save(tmp_path / f"part{i}", {f"w{i}": tf.fill((4,), float(i))}) for i in range(3)
    ]
    prefix = str(tmp_path / "merged")
    tf.raw_ops.MergeV2Checkpoints(checkpoint_prefixes=prefixes, destination_prefix=prefix)
    loaded = checkpoint.load(prefix, verify=True)
    assert len({entry.file for entry in loaded.all_entries}) == 3
    assert_like_tensorflow(loaded, prefix)


@pytest.fixture
def saved(tmp_path: Path) -> str:
    # The byte of the flag misaligns what follows it.
    model = module_of(a_flag=True, b_odd=tf.range(6.0), c_odd=tf.range(8))
    aligned = module_of(w=tf.random.stateless_normal((64, 64), seed=(1, 2)))
    variables = {"w": aligned.w, "flag": model.a_flag, "odd": model.b_odd}
    return bundles.save(tmp_path / "ck", variables)


def test_aligned_tensors_are_views_of_a_private_mapping(saved: str) -> None:
    data = saved + ".data-00000-of-00001"
    loaded = checkpoint.load(saved)
    before = Path(data).read_bytes()
    w = loaded["w"]
    entry = loaded.entries["w"]
    assert is_mapped(w, data)
    [(begin, _, permissions)] = mappings(data)
    assert torch_data_address(w) == begin + entry.offset
    assert permissions == "rw-p"
    assert torch_data_address(loaded["w"]) == torch_data_address(w)
    w.zero_()
    assert loaded["w"].eq(0).all()
    assert Path(data).read_bytes() == before
    assert checkpoint.load(saved)["w"].ne(0).any()


def test_misaligned_tensors_are_copies(saved: str) -> None:
    data = saved + ".data-00000-of-00001"
    loaded = checkpoint.load(saved)
    names = [name for name in ("w", "odd") if loaded.entries[name].offset % 4]
    assert names == ["odd"]
    odd = loaded["odd"]
    assert odd.tolist() == [0, 1, 2, 3, 4, 5]
    assert not is_mapped(odd, data)
    odd.zero_()
    assert loaded["odd"].tolist() == [0, 1, 2, 3, 4, 5]


def test_the_mapping_lives_as_long_as_a_tensor(saved: str) -> None:
    data = saved + ".data-00000-of-00001"
    w = checkpoint.load(saved)["w"]
    gc.collect()
    expected = w.sum().item()
    assert mappings(data)
    Path(data).unlink()
    assert w.sum().item() == expected
    del w
    gc.collect()
    assert not any("ck.data" in line for line in Path("/proc/self/maps").read_text().splitlines())


def test_a_replaced_file_does_not_reach_open_tensors(saved: str) -> None:
    data = Path(saved + ".data-00000-of-00001")
    w = checkpoint.load(saved)["w"]
    expected = w.clone()
    new = data.with_suffix(".new")
    new.write_bytes(b"\0" * data.stat().st_size)
    new.rename(data)
    assert torch.equal(w, expected)


def test_saved_models_and_folders(tmp_path: Path) -> None:
    model = module_of(w=[1.0, 2.0])
    folder = str(tmp_path / "model")
    tf.saved_model.save(model, folder)
    assert checkpoint.load(folder)["w"].tolist() == [1, 2]

    manager = tf.train.CheckpointManager(
        tf.train.Checkpoint(model=model), str(tmp_path / "run"), max_to_keep=2
    )
    manager.save()
    model.w.assign([3.0, 4.0])
    manager.save()
    latest = checkpoint.load(tmp_path / "run")
    assert latest["model/w"].tolist() == [3, 4]
    for path in (manager.checkpoints[0], manager.checkpoints[0] + ".index"):
        assert checkpoint.load(path)["model/w"].tolist() == [1, 2]
    shutil.copytree(tmp_path / "run", tmp_path / "bare", ignore=shutil.ignore_patterns("ckpt-1*"))
    (tmp_path / "bare" / "checkpoint").unlink()
    assert checkpoint.load(tmp_path / "bare")["model/w"].tolist() == [3, 4]


def test_a_saved_model_without_variables_is_empty(tmp_path: Path) -> None:
    tf.saved_model.save(tf.Module(), str(tmp_path))
    shutil.rmtree(tmp_path / "variables")
    assert dict(checkpoint.load(tmp_path)) == {}


def test_neither_tensorflow_nor_numpy_is_needed(saved: str) -> None:
    done = run_python(
        f"""
        import sys
        class Blocked:
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] in ("tensorflow", "numpy", "h5py", "keras"):
                    raise ModuleNotFoundError(name, name=name)
        sys.meta_path.insert(0, Blocked())
        import tensor_bridge
        loaded = tensor_bridge.checkpoint.load({saved!r}, verify=True)
        print(loaded["odd"].tolist(), loaded["w"].shape)
        assert "tensorflow" not in sys.modules
        """
    )
    assert done.code == 0, done.err
    assert done.out.splitlines()[-1] == "[0.0, 1.0, 2.0, 3.0, 4.0, 5.0] torch.Size([64, 64])"


def test_near_misses_are_suggested(saved: str, tmp_path: Path) -> None:
    with pytest.raises(KeyError, match=r"'ood' is no variable.*did you mean 'odd'\?"):
        checkpoint.load(saved)["ood"]
    with pytest.raises(tensor_bridge.CheckpointNotFoundError, match=r"did you mean 'ck'\?"):
        checkpoint.load(tmp_path / "ckk")


# Modules that only some files need. Each costs the first `load` of a process milliseconds, all of
# them together more than 50.
NOT_FOR_EVERY_FILE = {"difflib", "h5py", "json", "numpy", "tensorflow", "torch", "zipfile"} | {
    "tensor_bridge.composite",
    "tensor_bridge.checkpoint.into_module",
    "tensor_bridge.checkpoint.write",
    "tensor_bridge.checkpoint.read._hdf5",
    "tensor_bridge.checkpoint.read._keras",
    "tensor_bridge.checkpoint.read._layer",
    "tensor_bridge.checkpoint.read._name_kinds",
    "tensor_bridge.checkpoint.read._object_graph",
}


def brought_by_first_load(path: str) -> set[str]:
    """The modules of NOT_FOR_EVERY_FILE that a new process has after its first load."""
    done = run_python(
        f"""
        import sys, tensor_bridge
        tensor_bridge.checkpoint.load({path!r})
        print(*sys.modules)
        """
    )
    return NOT_FOR_EVERY_FILE & set(done.check().split())


def test_the_first_load_imports_what_the_file_needs_and_no_more(tmp_path: Path) -> None:
    prefix = tf.train.Checkpoint(w=tf.Variable([1.0])).write(str(tmp_path / "w"))
    read = "tensor_bridge.checkpoint.read"
    assert brought_by_first_load(prefix) == {f"{read}._object_graph"}
    bundles.save(tmp_path / "v", {"v": [1.0]})
    assert brought_by_first_load(str(tmp_path / "v")) == {f"{read}._name_kinds"}


def test_what_a_file_needs_is_imported(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file["w"] = [1.0]
    found = brought_by_first_load(str(tmp_path / "w.h5"))
    assert found >= {"h5py", "numpy", "tensor_bridge.checkpoint.read._hdf5"}
