"""Each call that the page on records names for those who come from another reader is made."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pages import ROOT, Page, spans

from tensor_bridge import records

PAGE = Page(ROOT / "docs/guides/records.md")
TABLE = PAGE.text.partition("## Coming from another reader")[2].partition("\n\n[")[0]
CALLS = [span for span in spans(TABLE) if span.startswith("records.") and span.endswith(")")]
READING = [call for call in CALLS if not call.startswith("records.tfds")]


def test_the_table_is_found() -> None:
    assert len(CALLS) == 5
    assert len(READING) == 4


@pytest.mark.parametrize("call", READING)
def test_a_named_call_reads_every_record(call: str, tmp_path: Path) -> None:
    path = tmp_path / "r.tfrecord"
    spec = {"x": records.VarLenFeature("float32")}
    with records.Writer(path, spec) as writer:
        for i in range(100):
            writer.write({"x": [float(i)]})
    if not torch.cuda.is_available():
        call = call.replace('device="cuda"', 'device="cpu"')
    found = eval(call, {"records": records, "path": path, "paths": [path], "spec": spec})
    values = [value for each in found for value in each["x"].coalesce().values().tolist()]
    assert sorted(values) == list(range(100))
