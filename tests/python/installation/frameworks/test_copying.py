"""A torch for which no adapter is proven: everything is copied exactly, with one warning.

The tests' torch claims to be 2.99, which is all that the package sees of its release, or its
adapter breaks its promises.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from functools import partial
from pathlib import Path

import needs
import pytest
import torch
from claims import claims_test
from fresh import TENSORFLOW_FIRST, run_forked, run_python
from package_copy import FROM_COPY, copy_of_the_package
from tree import ROOT, SUPPORT

PRELUDE = """
import gc
import warnings

import tensor_bridge

import tensorflow as tf
import torch

torch.__version__ = "2.99.0"
from tensor_bridge.testing import live_owners, shares_memory

T = tf.constant([[1.0, 2.0], [3.0, 4.0]])
INTERFACES = (tensor_bridge, tensor_bridge.TensorBridge())

with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    for interface in INTERFACES:
        interface.to_torch(T)
        interface.to_tf(torch.ones(2))
        interface.to_torch(T)

def raises(error, function, *words):
    try:
        function()
    except error as e:
        for word in words:
            assert word in str(e), (word, str(e))
    else:
        raise AssertionError(f"expected {error.__name__}")
"""

CLAIMS = {
    "it is said once": """
        assert len(said) == 1, [str(w.message) for w in said]
        assert said[0].category is RuntimeWarning
        text = str(said[0].message)
        for word in ("torch 2.99 is newer", "every conversion copies", "pip install 'torch<2.16'"):
            assert word in text, text
        """,
    "values arrive and are copies": """
        for interface in INTERFACES:
            x = interface.to_torch(T)
            assert type(x) is torch.Tensor
            assert not shares_memory(T, x)
            assert x.tolist() == [[1.0, 2.0], [3.0, 4.0]]
            assert x.is_contiguous() and not x.requires_grad and not x._is_view()
            x.add_(100)
            assert T.numpy().tolist() == [[1.0, 2.0], [3.0, 4.0]]
            u = interface.to_tf(x)
            assert not shares_memory(u, x)
            x.zero_()
            assert u.numpy().tolist() == [[101.0, 102.0], [103.0, 104.0]]
        """,
    "every dtype that goes at all goes exactly": """
        import numpy as np
        import needs
        names = [row for row in needs.rows() if row.kind in ("shared", "viewed")]
        assert len(names) > 15
        for row in names:
            dtype = tf.dtypes.as_dtype(row.name)
            numbers = np.array([[0, 1, 0], [1, 1, 0]]).astype(dtype.as_numpy_dtype)
            t = tf.constant(numbers)
            x = tensor_bridge.to_torch(t)
            assert tuple(x.shape) == (2, 3) and str(x.dtype) in (row.torch_name, row.nearest), row
            if row.kind == "shared":
                real = x.real if x.is_complex() else x
                assert real.to(torch.float64).tolist() == [[0, 1, 0], [1, 1, 0]], row
                u = tensor_bridge.to_tf(x)
                assert u.dtype == dtype
                assert u.numpy().tobytes() == t.numpy().tobytes(), row
        if needs.has("int4"):
            int4 = tf.dtypes.as_dtype("int4")
            assert tensor_bridge.to_torch(tf.cast([1, -2, 7], int4)).tolist() == [1, -2, 7]
            x = torch.tensor([1, -2, 7], dtype=torch.int8)
            u = tf.cast(tensor_bridge.to_tf(x, dtype="int4"), tf.int32)
            assert u.numpy().tolist() == [1, -2, 7]
            raises(ValueError, lambda: tensor_bridge.to_tf(torch.tensor([99]), dtype="int4"))
        """,
    "shapes of every rank": """
        for shape in ((), (0,), (1,), (0, 3), (2, 0, 1), (2, 1, 3), (1,) * 9):
            t = tf.random.stateless_uniform(shape, seed=(1, 2))
            x = tensor_bridge.to_torch(t)
            assert tuple(x.shape) == shape and x.tolist() == t.numpy().tolist()
            assert tensor_bridge.to_tf(x).numpy().tolist() == t.numpy().tolist()
        """,
    "tensors whose memory is not their values": """
        c = torch.tensor([1 + 2j, 3 - 4j])
        m = torch.arange(12.0).reshape(3, 4)
        for x in (m.t(), m[:, 1:3], m[1:].expand(2, 2, 4), c.conj(), c.conj().imag, m[0, 1:],
                  torch._efficientzerotensor(3), m.requires_grad_(), m.detach().to_mkldnn()):
            plain = x.detach()
            plain = plain.to_dense() if plain.layout is not torch.strided else plain
            want = plain.resolve_conj().resolve_neg().tolist() if x.shape != (3,) else None
            got = tensor_bridge.to_tf(x).numpy().tolist()
            assert got == (want if want is not None else x.detach().add(0).tolist()), x
        """,
    "what cannot go is refused as ever": """
        class Sub(torch.Tensor):
            pass
        assert tensor_bridge.to_tf(torch.ones(2).as_subclass(Sub)).shape == (2,)
        q = torch.quantize_per_tensor(torch.ones(2), 0.5, 0, torch.quint8)
        short = torch.ones(8)
        short.untyped_storage().resize_(4)
        from torch._subclasses import FakeTensorMode
        with FakeTensorMode():
            fake = torch.ones(2)
        for x in (q, torch.ones(2, device="meta"), short, fake):
            raises(tensor_bridge.TensorBridgeError, lambda: tensor_bridge.to_tf(x))
        mapped = torch.func.vmap(tensor_bridge.to_tf)
        raises(tensor_bridge.TensorBridgeError, lambda: mapped(torch.ones(2, 2)))
        """,
    "asking for a share is refused": """
        for interface in INTERFACES:
            raises(BufferError, lambda: interface.to_torch(T, copy=False), "cannot be intercepted")
            raises(ValueError, lambda: interface.to_torch(T, on_write="alias"), "conversion copies")
            raises(BufferError, lambda: interface.to_tf(torch.ones(2), copy=False))
            assert interface.explain(T).action == "copied"
            assert "cannot be intercepted" in interface.explain(T).reason
        assert tensor_bridge.explain(torch.ones(2)).action == "copied"
        for interface in INTERFACES:
            assert interface.to_torch(T, on_write="raise").add_(1).tolist()[0][0] == 2.0
        """,
    "structures, strings and composites": """
        tree = {"a": [T, tf.constant(3)], "s": tf.constant([b"x", b"yz"]), "v": tf.Variable([1.0])}
        x = tensor_bridge.to_torch(tree)
        assert x["a"][1].item() == 3 and x["v"].tolist() == [1.0]
        assert tensor_bridge.to_torch(tree["s"], strings="list") == [b"x", b"yz"]
        again = tensor_bridge.to_tf(x)
        assert again["s"].numpy().tolist() == [b"x", b"yz"]
        sparse = tf.sparse.from_dense([[0.0, 5.0], [6.0, 0.0]])
        assert tensor_bridge.to_torch(sparse).to_dense().tolist() == [[0.0, 5.0], [6.0, 0.0]]
        ragged = tf.ragged.constant([[1.0], [2.0, 3.0]])
        nested = tensor_bridge.to_torch(ragged)
        assert [r.tolist() for r in nested.unbind()] == [[1.0], [2.0, 3.0]]
        """,
    "batches of records": """
        import os, tempfile
        from tensor_bridge import records
        spec = {
            "x": records.FixedLenFeature((2,), "float32"),
            "s": records.FixedLenFeature((), bytes),
            "v": records.VarLenFeature("int64"),
            "r": records.RaggedFeature("int64"),
        }
        path = os.path.join(tempfile.mkdtemp(), "a.tfrecord")
        with records.Writer(path, spec) as writer:
            for i in range(5):
                row = list(range(i))
                writer.write({"x": [i, -i], "s": b"s" * i, "v": row, "r": row})
        dataset = records.RecordDataset(path, spec)
        collated = records.collate(dataset.__getitems__(list(range(5))))
        for batch in (*records.loader(path, spec, batch_size=5), collated):
            assert batch["x"].tolist() == [[i, -i] for i in range(5)]
            assert batch["s"].tolist() == [b"s" * i for i in range(5)]
            assert [row.tolist() for row in batch["r"].unbind()] == [[*range(i)] for i in range(5)]
            sparse = batch["v"].coalesce()
            assert sparse.shape == (5, 4)
            assert sparse.values().tolist() == [k for i in range(5) for k in range(i)]
            assert sparse.indices()[0].tolist() == [i for i in range(5) for k in range(i)]
            batch["x"].add_(1)
        for i, single in enumerate(dataset):
            assert single["x"].tolist() == [i, -i] and single["s"].item() == b"s" * i
    """,
    "tf.data and its thread": """
        ds = tf.data.Dataset.range(6).batch(2)
        got = [batch.tolist() for batch in tensor_bridge.data.loader(ds)]
        assert got == [[0, 1], [2, 3], [4, 5]]
        """,
    "many threads": """
        import threading
        wrong = []
        def work():
            for i in range(200):
                t = tf.fill([17], float(i))
                if tensor_bridge.to_torch(t).tolist() != [float(i)] * 17:
                    wrong.append(i)
        threads = [threading.Thread(target=work) for _ in range(4)]
        [t.start() for t in threads], [t.join() for t in threads]
        assert not wrong
        """,
    "memory is given back": """
        import resource
        big = tf.zeros([1 << 20])
        for _ in range(3):
            tensor_bridge.to_tf(tensor_bridge.to_torch(big))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for _ in range(100):
            tensor_bridge.to_tf(tensor_bridge.to_torch(big))
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000
        gc.collect()
        assert live_owners() == 0
        """,
    "C++ is refused": """
        library = INTERFACES[1]._library
        assert library.tb_use_torch(2, 99) == 10
        assert b"C++ needs a torch" in library.tb_last_error(), library.tb_last_error()
        assert library.tb_use_torch(2, 13) == 10
        """,
}


test_with_a_torch_that_is_newer = claims_test(
    PRELUDE, CLAIMS, partial(run_python, PYTHONPATH=str(SUPPORT))
)


def test_the_process_ends_well() -> None:
    done = run_forked(
        """
        import warnings
        warnings.simplefilter("ignore")
        torch.__version__ = "3.1.0"
        import tensor_bridge
        kept = tensor_bridge.to_torch({"a": tf.zeros([4])}), tensor_bridge.to_tf(torch.ones(3))
        print(kept[0]["a"].tolist())
        """,
        exits=True,
        after=(TENSORFLOW_FIRST,),
    )
    assert done.check() == "[0.0, 0.0, 0.0, 0.0]"


@pytest.mark.parametrize("interface", ["tensor_bridge", "tensor_bridge.TensorBridge()"])
def test_the_first_conversions_of_many_threads(interface: str) -> None:
    """The adapter that copies runs Python while other threads wait for it."""
    out = run_forked(
        f"""
        import sys, threading, warnings
        warnings.simplefilter("ignore")
        torch.__version__ = "2.99.0"
        import tensor_bridge
        sys.setswitchinterval(1e-6)
        t, interface, start, seen = tf.constant([1.0, 2.0]), {interface}, threading.Barrier(8), []
        def convert():
            start.wait()
            seen.append(interface.to_torch(t).tolist())
        threads = [threading.Thread(target=convert, daemon=True) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        print(seen == [[1.0, 2.0]] * 8)
        """,
        after=(TENSORFLOW_FIRST,),
    ).check()
    assert out == "True"


# ---- Adapters that cannot be used ----------------------------------------------------------------

USE = """
import json, warnings
{version}
t = tf.constant([1.0, 2.0])
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    try:
        x = tensor_bridge.to_torch(t)
        tensor_bridge.TensorBridge().to_tf(x)
        result = "shared" if tensor_bridge.testing.shares_memory(t, x) else "copied"
        assert x.add_(1).tolist() == [2.0, 3.0] and t.numpy().tolist() == [1.0, 2.0]
    except tensor_bridge.FrameworkError as e:
        result = str(e)
print(json.dumps([result, [str(w.message) for w in said if w.category is RuntimeWarning]]))
"""

# Like the real adapter, except that it claims that writes happen in place.
BROKEN = """
#include <dlfcn.h>
#include "adapters/torch_abi.h"
using namespace tensor_bridge;
extern "C" __attribute__((visibility("default"))) const void* tb_torch_adapter_table(
    uint32_t abi, const TorchHost* host) {
  void* real = dlopen("REAL", RTLD_NOW);
  auto entry = reinterpret_cast<TorchAdapterEntry>(dlsym(real, kTorchAdapterEntry));
  static TorchAdapter table = *entry(abi, host);
  table.mutableData = [](tb_torch_tensor* tensor, void** data) {
    int64_t shape[64], strides[64];
    TensorRef ref;
    const tb_status status = table.view(tensor, shape, strides, &ref);
    *data = ref.dl.data;
    return status;
  };
  return &table;
}
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return copy_of_the_package(tmp_path)


def adapter_of(package: Path) -> Path:
    files = package.glob("libtensor_bridge_torch_2_*.so")
    groups = (int(file.stem.rpartition("_")[2]) for file in files)
    first = max(minor for minor in groups if minor <= needs.torch_release[1])
    return package / f"libtensor_bridge_torch_2_{first}.so"


def use(package: Path, version: str = "") -> tuple[str, list[str]]:
    """The outcome of a conversion with that package, or the error, and the warnings."""
    code = FROM_COPY.format(folder=str(package.parent)) + USE.format(version=version)
    done = run_forked(code, after=(TENSORFLOW_FIRST,)).check()
    result, said = json.loads(done.splitlines()[-1])
    return result, said


def test_an_adapter_that_is_for_another_build_of_torch(package: Path) -> None:
    adapter_of(package).write_text("not a library")
    result, (said,) = use(package)
    assert result == "copied"
    assert "does not load with this build of torch" in said
    assert "file too short" in said or "invalid ELF header" in said
    assert "pip install --force-reinstall 'torch>=2.6,<2.16'" in said


def test_an_adapter_that_is_missing(package: Path) -> None:
    adapter_of(package).unlink()
    result, said = use(package)
    assert said == []
    assert "there is no adapter for torch" in result
    assert "Build it again where this one is" in result


@pytest.mark.skipif(shutil.which("g++") is None, reason="no compiler")
@needs.torch_since(13, "its DLPack header is too old to compile with")
def test_an_adapter_that_fails_its_self_test(package: Path, tmp_path: Path) -> None:
    torch_headers = Path(torch.__file__).parent / "include"
    (tmp_path / "include" / "dlpack").mkdir(parents=True)
    (tmp_path / "include/dlpack/dlpack.h").symlink_to(torch_headers / "ATen/dlpack.h")
    adapter = adapter_of(package)
    real = adapter.rename(tmp_path / "real.so")
    source = tmp_path / "broken.cc"
    source.write_text(BROKEN.replace("REAL", str(real)))
    includes = [f"-I{folder}" for folder in (ROOT / "src", ROOT / "include", tmp_path / "include")]
    command = ["g++", "-std=c++17", "-shared", "-fPIC", *includes, "-o", adapter, source, "-ldl"]
    subprocess.run(command, check=True)
    result, (said,) = use(package)
    assert result == "copied"
    assert "failed its self-test (a write to a shared tensor is not intercepted)" in said
    assert "install another build of torch" in said


def test_a_pre_release_is_what_no_adapter_of_the_wheel_is_proven_with(package: Path) -> None:
    major, minor = needs.torch_release
    version = f'torch.__version__ = "{major}.{minor}.0a0+git1234567"'
    adapter = adapter_of(package)
    others = [f for f in adapter.parent.glob("libtensor_bridge_torch_2_*.so") if f != adapter]
    for other in others:
        other.unlink()
    assert use(package, version) == ("shared", []), "built where that torch is installed"
    shutil.copy(adapter, adapter.with_name("libtensor_bridge_torch_2_4.so"))
    result, (said,) = use(package, version)
    assert result == "copied"
    assert f"torch {major}.{minor} is a pre-release" in said
