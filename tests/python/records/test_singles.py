"""Single examples: their own memory, used again once they are gone, and records that do not fit."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
import torch

from tensor_bridge import StringTensor, records
from tensor_bridge.errors import RecordError
from tensor_bridge.records._record_file import RecordFile
from tensor_bridge.records._singles import singles
from tensor_bridge.records._spec_parser import SpecParser

SPEC = {
    "n": records.FixedLenFeature((), "int64"),
    "x": records.FixedLenFeature((2, 3), "float32"),
    "s": records.FixedLenFeature((), bytes),
    "t": records.FixedLenFeature((2,), bytes),
    "none": records.FixedLenFeature((), "int64", default_value=-1),
}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("singles")
    written = {name: feature for name, feature in SPEC.items() if name != "none"}
    with records.Writer(folder / "good", written) as writer:
        for n in range(40):
            x = torch.full((2, 3), 0.5 * n)
            writer.write({"n": n, "x": x, "s": b"s" * n, "t": [b"", b"%d" % n]})
    with records.Writer(folder / "wrong", {"n": records.FixedLenFeature((2,), "int64")}) as writer:
        writer.write({"n": [1, 2]})
    path = folder / "r"
    path.write_bytes((folder / "good").read_bytes() + (folder / "wrong").read_bytes())
    return str(path)


def check(example: dict[str, object], n: int) -> None:
    assert list(example) == list(SPEC)
    assert torch.equal(example["n"], torch.tensor(n))
    assert torch.equal(example["x"], torch.full((2, 3), 0.5 * n))
    s, t = example["s"], example["t"]
    assert isinstance(s, StringTensor)
    assert isinstance(t, StringTensor)
    assert (s.shape, s.item(), t.shape, t.tolist()) == ((), b"s" * n, (2,), [b"", b"%d" % n])
    assert type(s.shape) is torch.Size
    assert torch.equal(example["none"], torch.tensor(-1))


def test_examples_come_up_to_the_one_that_does_not_fit(path: str) -> None:
    batch = RecordFile(path).read(41)
    assert batch is not None
    examples = singles(SpecParser(SPEC), batch)
    found = [next(examples) for _ in range(40)]
    with pytest.raises(RecordError, match='record 0, feature "n"'):
        next(examples)
    for n, example in enumerate(found):
        check(example, n)


def test_each_example_has_memory_of_its_own_which_is_used_again_when_it_is_free(path: str) -> None:
    dataset = records.RecordDataset(path, SPEC)
    first, other = dataset[7], dataset[8]
    first["x"].zero_()
    first["s"].bytes.zero_()
    check(other, 8)
    check(dataset[7], 7)
    assert dataset[7]["x"].untyped_storage().nbytes() == 24
    kept = other["x"]
    addresses = set()
    del first, other
    for _ in range(50):
        addresses.add(dataset[9]["x"].data_ptr())
    gc.collect()
    assert len(addresses) < 50
    assert kept.data_ptr() not in addresses
    assert torch.equal(kept, torch.full((2, 3), 4.0))
    kept.resize_(4, 5).zero_()
    kept.requires_grad_()


def test_a_record_by_its_number_is_bytes(path: str) -> None:
    dataset = records.RecordDataset(path)
    whole = list(records.RecordFile(path))
    assert [dataset[n] for n in range(-41, 41)] == whole * 2
    assert dataset[torch.tensor(3)] == whole[3]
    for number in (41, -42):
        with pytest.raises(IndexError):
            dataset[number]
    with pytest.raises((TypeError, IndexError)):
        dataset[1.5]  # type: ignore[call-overload]


def test_a_damaged_record_is_not_given_by_its_number(path: str, tmp_path: Path) -> None:
    whole = bytearray(Path(path).read_bytes())
    whole[20] ^= 1
    damaged = tmp_path / "damaged"
    damaged.write_bytes(whole)
    dataset = records.RecordDataset(damaged)
    with pytest.raises(RecordError, match="checksum"):
        dataset[0]
    assert dataset[1] == list(records.RecordFile(path))[1]
    assert records.RecordDataset(damaged, verify=False)[0] != dataset[1]
