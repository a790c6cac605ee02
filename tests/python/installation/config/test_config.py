"""`python -m tensor_bridge.config`: the folders of this installation's C++ SDK."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fresh import run_python
from tree import ROOT

from tensor_bridge import _C, FrameworkError, config

LIBRARIES = Path(_C.__file__).parent
HEADERS = sorted(path.name for path in (ROOT / "include/tensor_bridge").glob("*.h"))


def run_config(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tensor_bridge.config", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_the_folders_hold_what_they_are_for() -> None:
    assert config.library_dir() == LIBRARIES
    assert (config.library_dir() / "libtensor_bridge.so").is_file()
    shipped = sorted(path.name for path in (config.include_dir() / "tensor_bridge").iterdir())
    assert shipped == HEADERS
    for name in HEADERS:
        ours = (ROOT / "include/tensor_bridge" / name).read_bytes()
        assert (config.include_dir() / "tensor_bridge" / name).read_bytes() == ours
    assert (config.cmake_dir() / "tensor_bridgeConfig.cmake").is_file()
    assert (config.cmake_dir() / "tensor_bridgeConfigVersion.cmake").is_file()


def test_the_command_prints_what_was_asked_for_in_that_order() -> None:
    done = run_config("--includedir", "--cmakedir", "--libdir")
    assert (done.returncode, done.stderr) == (0, "")
    expected = (config.include_dir(), config.cmake_dir(), config.library_dir())
    assert done.stdout.splitlines() == [str(folder) for folder in expected]


@pytest.mark.parametrize("arguments", [(), ("--nowhere",), ("--cmakedir", "x")])
def test_a_wrong_command_line_says_what_is_right(arguments: tuple[str, ...]) -> None:
    done = run_config(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--cmakedir" in done.stderr


def test_the_command_loads_no_framework() -> None:
    run_python(
        """
        import sys
        from tensor_bridge import config
        assert config.main(["--cmakedir"]) == 0
        assert not {"torch", "tensorflow", "numpy"} & set(sys.modules)
        """
    ).check()


def test_an_installation_without_the_sdk_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = config.find_spec("tensor_bridge._C")
    assert spec is not None
    monkeypatch.setattr(config, "find_spec", lambda name: spec)
    monkeypatch.setattr(spec, "origin", str(tmp_path / "_C.abi3.so"))
    for find in (config.library_dir, config.include_dir, config.cmake_dir):
        with pytest.raises(FrameworkError, match="install tensor_bridge again"):
            find()
    shutil.copy(LIBRARIES / "libtensor_bridge.so", tmp_path)
    assert config.library_dir() == tmp_path
    for option in ("--includedir", "--cmakedir"):
        assert config.main([option]) == 1
        printed = capsys.readouterr()
        assert printed.out == ""
        assert "install tensor_bridge again" in printed.err
    monkeypatch.setattr(config, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="_C is missing"):
        config.library_dir()
