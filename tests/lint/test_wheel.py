"""The errors that the tools of `make wheel` find, without building a wheel, which takes minutes."""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path

import build_wheel
import pytest
import target
import torch_wheels
from binaries import library_dir

NAME = f"tf_torch_tensor_bridge-0.1.0-cp310-abi3-{target.PLATFORM}.whl"


def test_a_wheel_of_every_supported_minor_is_looked_at() -> None:
    minors = [minor for group in torch_wheels.groups() for minor in group]
    assert list(torch_wheels.RELEASES) == minors
    for minor, release in torch_wheels.RELEASES.items():
        assert release.startswith(f"{minor}.")


@pytest.mark.parametrize("arch", target.SUPPORTED)
@pytest.mark.parametrize("minor", torch_wheels.RELEASES)
def test_a_list_says_of_which_wheel_it_is(
    minor: str, arch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_wheels, "LISTS", torch_wheels.LISTS.parent / arch)
    listed = torch_wheels.Listed.read(minor)
    assert listed.wheel.startswith(f"torch-{torch_wheels.RELEASES[minor]}-")
    assert listed.wheel.endswith(f"_{arch}.whl")
    assert len(listed.sha256) == len(listed.record_sha256) == 64
    assert listed.symbols.keys() == {*torch_wheels.LINKED, torch_wheels.SEARCHED}
    assert all(listed.symbols.values())


def test_a_list_is_read_as_it_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_wheels, "LISTS", tmp_path)
    listed = torch_wheels.Listed("a.whl", "0" * 64, "1" * 64, {"libc10.so": {"b": "TLS"}})
    listed.write("2.99")
    assert torch_wheels.Listed.read("2.99") == listed


def test_a_stand_in_has_the_symbols_of_the_library(tmp_path: Path) -> None:
    real = torch_wheels.exported(library_dir() / "libtensor_bridge.so")
    assert real["tb_version"] == "FUNC"
    defined = real | {"a_variable": "OBJECT", "a_tls": "TLS", "_ZNSt6thread": "FUNC"}
    stand_in = tmp_path / "libreal.so"
    torch_wheels.write_stand_in(stand_in, defined)
    # libstdc++'s own symbols are left out.
    assert torch_wheels.exported(stand_in).keys() == defined.keys() - {"_ZNSt6thread"}
    assert torch_wheels.exported(stand_in)["a_tls"] == "TLS"


def test_a_missing_symbol_stops_the_link(tmp_path: Path) -> None:
    stand_in = tmp_path / "libreal.so"
    torch_wheels.write_stand_in(stand_in, {"there": "FUNC"})
    for name, links in (("there", True), ("gone", False)):
        source = f'extern "C" void {name}(); void f() {{ {name}(); }}\n'
        command = ["g++", "-x", "c++", "-", "-shared", "-fPIC", "-Wl,--no-undefined", "-x", "none"]
        done = subprocess.run(
            [*command, str(stand_in), "-o", str(tmp_path / "out.so")],
            input=source,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode == 0) == links, done.stderr


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel with the libraries of this build, for a torch with all symbols of its adapter."""
    (adapter,) = library_dir().glob("libtensor_bridge_torch_*.so")
    minors = [adapter.stem.removeprefix("libtensor_bridge_torch_").replace("_", ".")]
    wanted = build_wheel.undefined(adapter)
    wrap = build_wheel.looked_up(adapter)
    assert wanted
    assert wrap
    there = wanted | wrap
    monkeypatch.setattr(torch_wheels, "groups", lambda: [minors])
    monkeypatch.setattr(
        torch_wheels, "symbols", lambda minor, library: dict.fromkeys(there, "FUNC")
    )
    path = tmp_path / NAME
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for library in library_dir().glob("*.so"):
            archive.write(library, f"tensor_bridge/{library.name}")
        for name in build_wheel.FILES:
            if not name.endswith(".so"):
                archive.writestr(f"tensor_bridge/{name}", "")
    return path


def test_a_right_wheel_passes(wheel: Path) -> None:
    assert list(build_wheel.violations(wheel)) == []


@pytest.mark.parametrize(
    "tag", [f"cp310-abi3-linux_{target.ARCH}", f"cp311-cp311-{target.PLATFORM}"]
)
def test_another_tag_is_found(wheel: Path, tag: str) -> None:
    renamed = wheel.rename(wheel.with_name(f"tf_torch_tensor_bridge-0.1.0-{tag}.whl"))
    (found,) = build_wheel.violations(renamed)
    assert "expected a cp310-abi3 wheel" in found


def test_what_torch_lacks_is_found(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_wheels, "symbols", lambda minor, library: {})
    found = list(build_wheel.violations(wheel))
    assert any("has no _ZN3c10" in violation for violation in found)
    assert any("THPVariable_Wrap" in violation for violation in found)


def test_missing_files_and_adapters_are_found(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_wheels, "groups", lambda: [["2.99"]])
    assert "expected ['libtensor_bridge_torch_2_99.so']" in "\n".join(build_wheel.violations(wheel))
    monkeypatch.setattr(torch_wheels, "groups", list)
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tensor_bridge/_C.pyi", "")
    found = "\n".join(build_wheel.violations(wheel))
    assert "no _C.abi3.so" in found
    assert "no libtensor_bridge.so" in found
    assert "no cmake/tensor_bridgeConfig.cmake" in found
    assert "no include/tensor_bridge/torch.h" in found


def test_a_large_wheel_is_found(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_wheel, "MAX_BYTES", 1000)
    (found,) = build_wheel.violations(wheel)
    assert "more than 1000" in found
