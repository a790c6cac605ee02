"""records only needs torch: no NumPy, no TensorFlow, no protobuf."""

from __future__ import annotations

from pathlib import Path

import pytest
from fresh import run_python

ABSENT = ("numpy", "tensorflow", "keras", "google.protobuf", "tensorflow_datasets")

NOTHING_LOADED = f"""
loaded = [name for name in {(*ABSENT, "torch")} if name in sys.modules]
assert not loaded, loaded
"""

WORK = f"""
import sys, warnings

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.startswith({ABSENT}):
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Refuse())
warnings.filterwarnings("ignore", message="Failed to initialize NumPy")

from tensor_bridge import records

path = sys.argv[1]
spec = {{
    "n": records.FixedLenFeature((), "int64"),
    "x": records.VarLenFeature("float32"),
    "s": records.FixedLenFeature((), bytes),
}}
for compression in ("", "GZIP"):
    with records.Writer(path, spec, compression=compression, overwrite=True) as writer:
        for n in range(10):
            writer.write({{"n": n, "x": [0.5] * n, "s": b"%d" % n}})
    assert len(list(records.RecordFile(path))) == 10
    dataset = records.IterableRecordDataset(path, spec, shuffle=4, batch_size=3)
    assert sorted(n for batch in dataset for n in batch["n"].tolist()) == list(range(10))
with records.Writer(path, spec, overwrite=True) as writer:
    writer.write({{"n": 3, "x": [1.0], "s": b"text"}})
assert records.infer(path).keys() == spec.keys()

from torch.utils.data import DataLoader

dataset = records.RecordDataset(path, spec)
(batch,) = DataLoader(dataset, batch_size=4, collate_fn=records.collate)
assert batch["n"].tolist() == [3]
assert not [name for name in sys.modules if name.startswith({ABSENT})]
print("done")
"""


def test_importing_the_wing_loads_neither_torch_nor_others() -> None:
    run_python("import sys\nimport tensor_bridge.records" + NOTHING_LOADED).check()


@pytest.mark.parametrize("name", ["torch", "google.protobuf"])
def test_a_wing_that_loads_something_is_found(name: str) -> None:
    done = run_python(f"import sys\nimport {name}" + NOTHING_LOADED)
    assert done.code
    assert name in done.err


def test_files_are_written_and_read_where_only_torch_is_installed(tmp_path: Path) -> None:
    assert run_python(WORK, str(tmp_path / "r")).check() == "done"
