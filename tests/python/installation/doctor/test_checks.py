"""Each check of the doctor: silent if everything is right, and its finding if not."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from doctor_facts import LIBRARIES, ORDERS, facts, trials
from pages import Page
from tree import ROOT

from tensor_bridge.doctor import Report, examine
from tensor_bridge.doctor._facts import Trial

PAGE = Page(ROOT / "docs/guides/doctor.md")
CRASHED = Trial(ORDERS[0], "import torch", "signal 6", log="LLVM ERROR: inconsistency")
GPUS = {"torch": ["NVIDIA H100"], "tensorflow": ["/physical_device:GPU:0"]}
GROWTH = {"TF_FORCE_GPU_ALLOW_GROWTH": "true"}

# An error, the level and name of the finding, words of its text, words of its remedy.
CASES: list[tuple[dict[str, Any], str, str, str, str]] = [
    (
        {"distributions": {"tensor-bridge": "0.3.1"}},
        "error",
        "other project",
        "tensor-bridge 0.3.1",
        "pip uninstall -y tensor-bridge",
    ),
    ({"free_threaded": True}, "error", "python", "free-threaded", "ordinary build"),
    (
        {"modules": {"tensorflow": False}, "trials": ()},
        "error",
        "tensorflow",
        "not installed",
        "'tensorflow>=2.12,<2.22'",
    ),
    (
        {"modules": {"torch": False}, "trials": ()},
        "error",
        "torch",
        "not installed",
        "'torch>=2.6,<2.16'",
    ),
    ({"distributions": {"tensorflow": "2.11.1"}}, "error", "tensorflow", "2.11.1", "pip install"),
    ({"distributions": {"tensorflow": "2.22.0"}}, "error", "tensorflow", "2.22.0", "pip install"),
    ({"distributions": {"torch": "2.5.1"}}, "error", "torch", "2.5.1", "pip install"),
    (
        {"distributions": {"tensorflow-cpu": "2.20.0"}},
        "warning",
        "several TensorFlows",
        "tensorflow and tensorflow-cpu",
        "pip uninstall -y tensorflow tensorflow-cpu",
    ),
    ({"adapters": ()}, "error", "adapter", "no torch adapter", "--no-build-isolation"),
    (
        {"trials": (CRASHED, trials()[1])},
        "warning",
        "import order",
        "ends with signal 6 while import torch; last words: LLVM ERROR",
        "import torch before tensorflow",
    ),
    (
        {"trials": (CRASHED, CRASHED)},
        "error",
        "conversion",
        "tensorflow and then torch ends with signal 6",
        "--force-reinstall",
    ),
    (
        {"trials": (Trial(ORDERS[0], "looking for GPUs", "timeout"),)},
        "error",
        "conversion",
        "hangs while looking for GPUs",
        "CUDA_VISIBLE_DEVICES=-1",
    ),
    (
        {"trials": (Trial(ORDERS[0], "import torch", "raised", {"error": "OSError: no"}),)},
        "error",
        "conversion",
        "fails with OSError: no",
        "do what the message says",
    ),
    (
        {"trials": trials(write="reaches TensorFlow")},
        "error",
        "protection",
        "reached TensorFlow",
        "do not convert",
    ),
    (
        {
            "trials": trials(
                to_torch="copied",
                to_tf="copied",
                torch="2.13.0",
                reason="the adapter for torch 2.13 failed its self-test (a write is lost)",
                remedy="install another build",
            )
        },
        "warning",
        "sharing",
        "every conversion copies: the adapter for torch 2.13 failed its self-test",
        "install another build",
    ),
    (
        {"on_library_path": ("/opt/libtensorflow/lib/libtensorflow.so.2",)},
        "warning",
        "second TensorFlow",
        "LD_LIBRARY_PATH leads to /opt/libtensorflow/lib/libtensorflow.so.2",
        "LD_LIBRARY_PATH",
    ),
    (
        {"on_library_path": ("/opt/lib/libprotobuf.so.9",), "trials": (CRASHED, CRASHED)},
        "warning",
        "protobuf",
        "/opt/lib/libprotobuf.so.9",
        "LD_LIBRARY_PATH",
    ),
    (
        {"trials": trials(to_tf="copied", torch="2.8.0")},
        "note",
        "sharing",
        "to_tf copies with torch 2.8.0",
        "'torch>=2.13,<2.16'",
    ),
    ({"trials": trials(to_tf="copied")}, "warning", "sharing", "to_tf copies", "torch>=2.13"),
    (
        {"modules": {"triton": True}},
        "warning",
        "triton",
        "TensorFlow 2.21.0 loads its libraries globally",
        "import tensor_bridge (or triton) before TensorFlow",
    ),
    (
        {"trials": trials(libraries=[*LIBRARIES, "/usr/lib/libtensorflow.so.2"])},
        "error",
        "second TensorFlow",
        "/usr/lib/libtensorflow.so.2",
        "one TensorFlow only",
    ),
    (
        {"environment": {"LD_PRELOAD": "/usr/lib/libtensorflow.so.2"}},
        "warning",
        "second TensorFlow",
        "LD_PRELOAD",
        "unset",
    ),
    (
        {"trials": trials(libraries=[*LIBRARIES, "/opt/mkl/libiomp5.so"])},
        "warning",
        "OpenMP",
        "/opt/mkl/libiomp5.so, /site/torch/lib/libgomp-24e2ab19.so.1",
        "from one source",
    ),
    (
        {"environment": {"KMP_DUPLICATE_LIB_OK": "True"}},
        "warning",
        "OpenMP",
        "KMP_DUPLICATE_LIB_OK",
        "unset it",
    ),
    (
        {"trials": trials(libraries=[*LIBRARIES, "/opt/conda/lib/libprotobuf.so.25"])},
        "warning",
        "protobuf",
        "/opt/conda/lib/libprotobuf.so.25",
        "LD_LIBRARY_PATH",
    ),
    (
        {"trials": trials(gpus=GPUS)},
        "warning",
        "GPU memory",
        "leaves torch none",
        "TF_FORCE_GPU_ALLOW_GROWTH=true",
    ),
    (
        {"trials": trials(gpus=GPUS | {"tensorflow": []})},
        "warning",
        "GPU visibility",
        "torch sees 1 GPU(s), tensorflow sees 0",
        "tensorflow[and-cuda]",
    ),
    (
        {"trials": trials(gpus=GPUS | {"torch": []}), "environment": GROWTH},
        "warning",
        "GPU visibility",
        "tensorflow sees 1 GPU(s), torch sees 0",
        "CUDA_VISIBLE_DEVICES",
    ),
    (
        {"trials": trials(gpus=GPUS), "environment": GROWTH},
        "note",
        "GPU",
        "has not been proven",
        "compare values",
    ),
    ({"start_method": "fork"}, "note", "fork", "hangs", "set_start_method('spawn')"),
]


def test_nothing_is_found_where_nothing_is_wrong() -> None:
    report = examine(facts())
    assert report.findings == ()
    assert report.exit_code == 0
    assert str(report).endswith("ready to convert: nothing found")


@pytest.mark.parametrize(("changes", "level", "check", "text", "remedy"), CASES)
def test_what_is_wrong_is_found(
    changes: dict[str, Any], level: str, check: str, text: str, remedy: str
) -> None:
    report = examine(facts(**changes))
    found = [f for f in report.findings if (f.level, f.check) == (level, check)]
    assert len(found) == 1, report.findings
    assert text in found[0].text
    assert remedy in found[0].remedy
    assert report.exit_code == any(f.level == "error" for f in report.findings)
    assert f"{level}: {check}: " in str(report)


@pytest.mark.parametrize(
    "changes",
    [
        {"modules": {"triton": True}, "distributions": {"tensorflow": "2.18.0"}},
        {"environment": GROWTH},
        {"on_library_path": ("/opt/lib/libprotobuf.so.9", "/opt/lib/libgomp.so.1")},
        {"on_library_path": (LIBRARIES[1],)},
        {"environment": {"KMP_DUPLICATE_LIB_OK": "0", "LD_PRELOAD": "/usr/lib/libasan.so"}},
        {"distributions": {"tensorflow-intel": "2.21.0"}},
        {"distributions": {"tensorflow-cpu-aws": "2.15.1"}},
        {"distributions": {"torch": "2.15.0+cu130", "tensorflow": "2.12.0"}},
    ],
)
def test_what_is_right_is_not_found(changes: dict[str, Any]) -> None:
    assert examine(facts(**changes)).findings == ()


def test_the_page_lists_every_finding() -> None:
    listed = {cells[0].strip("`") for cells in PAGE.rows("findings")}
    assert listed == {check for _, _, check, _, _ in CASES}
    text = " ".join((ROOT / "python/tensor_bridge/doctor/_checks.py").read_text().split())
    named = set(re.findall(r'Finding\( ?(?:"\w+"[^,]*|[^,]*), "([\w ]+)",', text))
    named |= set(re.findall(r'"([\w ]+)": \( r"lib', text)) | {"tensorflow", "torch"}
    assert named == listed, "a finding without a case here"


def test_json_holds_what_the_text_holds() -> None:
    report = examine(facts(trials=(CRASHED, CRASHED)))
    decoded = json.loads(report.to_json())
    assert decoded["ok"] is False
    assert [f["check"] for f in decoded["findings"]] == ["conversion"]
    assert decoded["summary"]["tensorflow"] == "2.21.0"
    assert decoded["summary"]["tf to torch"] == "not tried"
    assert decoded["facts"]["trials"][0]["end"] == "signal 6"
    assert isinstance(report, Report)
