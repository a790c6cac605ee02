"""The doctor's report on processes that crash, and on this installation, which works."""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
from pathlib import Path

import needs
import pytest
from fresh import run_python

import tensor_bridge
from tensor_bridge import cli, doctor
from tensor_bridge.doctor import _facts
from tensor_bridge.doctor._facts import run_trial


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The place for a fake `tensorflow` that is found before the real one."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path / "tensorflow.py"


@pytest.mark.parametrize(
    ("code", "end"),
    [
        ("import os\nos.abort()", "signal 6"),
        ("import os\nos._exit(3)", "exit 3"),
        ("import os\nos._exit(0)", "exit 0"),
        ("raise OSError('libx.so')", "raised"),
        ("import time\ntime.sleep(60)", "timeout"),
    ],
)
def test_how_a_framework_ends_the_process_is_seen(fake: Path, code: str, end: str) -> None:
    fake.write_text(f"import sys\nprint('last words', file=sys.stderr)\n{code}\n")
    trial = run_trial(("tensorflow", "torch"), timeout=6 if end == "timeout" else 240)
    assert (trial.stage, trial.end) == ("import tensorflow", end)
    loaded = [Path(path).name for path in trial.data.pop("libraries")]
    assert loaded == ["libtensor_bridge.so"]
    assert trial.data == ({"error": "OSError: libx.so"} if end == "raised" else {})
    assert trial.log == "last words"


def test_what_a_process_had_loaded_before_it_ended(fake: Path) -> None:
    fake.write_text(
        "import torch, sys\n"
        "class Next:\n"
        "    def __getattr__(self, name):\n"
        "        import os; os.abort()\n"
        "sys.modules['tensorflow'] = Next()\n"
        "__version__ = Next.__version__ = '2.21.0'\n"
    )
    trial = run_trial(("tensorflow", "torch"))
    assert (trial.stage, trial.end) == ("looking for GPUs", "signal 6")
    assert any("libgomp" in path for path in trial.data["libraries"])


def test_libraries_that_the_loader_would_find_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("libtensorflow.so.2", "libprotobuf.so.9", "libother.so", "tensorflow.txt"):
        (tmp_path / name).touch()
    monkeypatch.setenv("LD_LIBRARY_PATH", f"/nowhere:{tmp_path}:")
    found = [Path(path).name for path in _facts._on_library_path()]
    assert found == ["libprotobuf.so.9", "libtensorflow.so.2"]


def test_looking_fixes_no_start_method() -> None:
    out = run_python(
        """
        import multiprocessing
        from tensor_bridge.doctor import _facts
        _facts.run_trial = lambda order: None
        print(_facts.gather().start_method)
        multiprocessing.set_start_method("spawn")
        print(_facts.gather().start_method)
        """
    ).check()
    default = multiprocessing.get_all_start_methods()[0]
    assert out.split() == [default, "spawn"]


def test_a_missing_framework_is_no_trial() -> None:
    out = run_python(
        """
        import sys
        from tensor_bridge import cli

        class Barrier:
            def find_spec(self, name, path=None, target=None):
                if name == "tensorflow":
                    raise ModuleNotFoundError(name)

        sys.meta_path.insert(0, Barrier())
        assert cli.main(["doctor"]) == 1
        assert not {"torch", "tensorflow", "numpy"} & set(sys.modules)
        """
    ).check()
    assert "error: tensorflow: tensorflow is not installed" in out
    assert "tf to torch     not tried" in out
    assert "conversion is not possible: 1 error" in out


def test_this_installation_shares_where_its_torch_can() -> None:
    command = [sys.executable, "-m", "tensor_bridge", "doctor", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["ok"] is True
    summary = report["summary"]
    assert summary["tensor_bridge"] == tensor_bridge.__version__
    assert (summary["tf to torch"], summary["torch to tf"]) == ("shared", needs.SHARED_TO_TF)
    assert summary["write in torch"] == "stays in torch"
    assert summary["adapter in use"] in summary["adapters"].split(", ")
    for trial in report["facts"]["trials"]:
        assert trial["end"] == "done"
        names = [Path(path).name for path in trial["data"]["libraries"]]
        assert "libtensor_bridge.so" in names
        assert any(name.startswith("libtensorflow_framework.so") for name in names)


def test_the_exit_code_is_that_of_the_report(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from doctor_facts import facts

    found = facts(start_method="fork")
    monkeypatch.setattr("tensor_bridge.doctor.gather", lambda: found)
    assert cli.main(["doctor"]) == 0
    assert "note: fork" in capsys.readouterr().out
    found = facts(adapters=())
    assert cli.main(["doctor", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["findings"][0]["check"] == "adapter"
    assert doctor.examine().exit_code == 1


@pytest.mark.parametrize("arguments", [[], ["nurse"], ["doctor", "--xml"]])
def test_a_wrong_command_line_exits_with_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert "doctor" in capsys.readouterr().err


def test_the_command_says_its_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"tensor_bridge {tensor_bridge.__version__}\n"
