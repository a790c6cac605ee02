"""No code is loaded from the current folder, where an attacker may have planted some."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from tensor_bridge import config
from tensor_bridge.doctor._facts import run_trial

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="no compiler")

# The arguments: a folder to go to, the path of the library from there ("" if the program is linked
# with it), a library with the name of torch's, and the folder to go to before the adapter is
# loaded.
PROGRAM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#ifdef WITHOUT_FOLDER
char* getcwd(char* buffer, size_t size) { errno = ENOENT; return NULL; }
#endif
int main(int count, char** given) {
  if (chdir(given[1]) != 0) return 2;
  int flags = RTLD_NOW | RTLD_GLOBAL;
  if (given[2][0] != 0 && dlopen(given[2], flags) == NULL) return puts(dlerror()), 3;
  if (dlopen(given[3], flags) == NULL) return puts(dlerror()), 4;
  if (chdir(given[4]) != 0) return 5;
  int32_t (*use)(int32_t, int32_t) = dlsym(RTLD_DEFAULT, "tb_use_torch");
  const char* (*error)(void) = dlsym(RTLD_DEFAULT, "tb_last_error");
  int32_t status = use(2, 13);
  printf("status %d: %s\n", status, error());
  return 0;
}
"""
# Prints a line when it is loaded, and is then refused.
ADAPTER = r"""
#include <stdint.h>
#include <stdio.h>
__attribute__((constructor)) static void loaded(void) { puts("loaded " NAME); }
const void* tb_torch_adapter(uint32_t abi, const void* host) { return 0; }
"""


def compiled(source: str, target: Path, *options: str | Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    path = target.with_suffix(".c")
    path.write_text(source, encoding="utf-8")
    subprocess.run(["gcc", "-w", path, "-o", target, *options, "-ldl"], check=True)
    return target


class Rig(NamedTuple):
    """Two folders with the same names of files; ours are in `good`."""

    good: Path
    evil: Path
    torch: Path
    program: Path
    linked: Path
    without_folder: Path

    def run(self, program: Path, path: str, *, start: Path | None = None, **env: str) -> str:
        """The output when torch is used from `evil` after the library was opened in `start`."""
        start = self.good if start is None else start
        command = [program, start, path, self.torch, self.evil]
        # Begins in `start`, because a linked library is opened before the program runs.
        done = subprocess.run(
            command, check=True, capture_output=True, text=True, env=os.environ | env, cwd=start
        )
        return done.stdout


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Rig:
    folder = tmp_path_factory.mktemp("folders").resolve()
    good, evil = folder / "good", folder / "evil"
    shared = ["-shared", "-fPIC"]
    for place in (good, evil):
        # At every place to which a path from another folder could lead.
        for below in (place / "lib", place):
            adapter = below / "libtensor_bridge_torch_2_13.so"
            compiled(ADAPTER, adapter, *shared, f'-DNAME="{adapter}"')
    library = shutil.copy(config.library_dir() / "libtensor_bridge.so", good / "lib")
    shutil.copy(config.library_dir() / "libtensor_bridge.so", good)
    torch = compiled("", folder / "libtorch_cpu.so", *shared, "-Wl,-soname,libtorch_cpu.so")
    link = ["-Wl,--no-as-needed", library, "-Wl,-rpath,lib", "-Wl,--disable-new-dtags"]
    return Rig(
        good,
        evil,
        torch,
        compiled(PROGRAM, folder / "program"),
        compiled(PROGRAM, folder / "linked", f"-L{good / 'lib'}", *link),
        compiled(PROGRAM, folder / "without_folder", "-rdynamic", "-DWITHOUT_FOLDER"),
    )


def loaded(said: str) -> list[str]:
    return [line.removeprefix("loaded ") for line in said.splitlines() if "loaded " in line]


ADAPTER_NAME = "libtensor_bridge_torch_2_13.so"


@pytest.mark.parametrize(
    ("path", "search"),
    [
        ("lib/libtensor_bridge.so", None),
        ("./lib/libtensor_bridge.so", None),
        ("lib/../lib/libtensor_bridge.so", None),
        ("libtensor_bridge.so", "lib"),
        ("libtensor_bridge.so", "./lib"),
    ],
)
def test_the_adapter_beside_a_library_of_a_relative_path_is_loaded(
    rig: Rig, path: str, search: str | None
) -> None:
    env = {} if search is None else {"LD_LIBRARY_PATH": search}
    (found,) = loaded(rig.run(rig.program, path, **env))
    assert os.path.realpath(found) == str(rig.good / "lib" / ADAPTER_NAME)


@pytest.mark.parametrize("search", ["", ":/nowhere", "."])
def test_the_adapter_of_a_library_in_the_current_folder_is_loaded(rig: Rig, search: str) -> None:
    # Without a search path, by a path: a name with a slash is a path.
    path = "libtensor_bridge.so" if search else "./libtensor_bridge.so"
    (found,) = loaded(rig.run(rig.program, path, LD_LIBRARY_PATH=search))
    assert os.path.realpath(found) == str(rig.good / ADAPTER_NAME)


def test_the_adapter_beside_a_library_that_is_linked_by_a_relative_path_is_loaded(rig: Rig) -> None:
    (found,) = loaded(rig.run(rig.linked, ""))
    assert os.path.realpath(found) == str(rig.good / "lib" / ADAPTER_NAME)


def test_an_absolute_path_goes_on_as_it_did(rig: Rig) -> None:
    path = str(rig.good / "lib" / "libtensor_bridge.so")
    assert loaded(rig.run(rig.program, path)) == [str(rig.good / "lib" / ADAPTER_NAME)]


def test_a_folder_that_cannot_be_told_is_refused(rig: Rig) -> None:
    said = rig.run(rig.without_folder, "lib/libtensor_bridge.so")
    assert not loaded(said)
    assert "status 10" in said
    assert "absolute path" in said


def test_a_planted_adapter_would_announce_itself(rig: Rig, tmp_path: Path) -> None:
    """The tests above can fail."""
    shutil.copytree(rig.evil, tmp_path / "evil")
    library = shutil.copy(config.library_dir() / "libtensor_bridge.so", tmp_path / "evil" / "lib")
    (found,) = loaded(rig.run(rig.program, str(library)))
    assert found.startswith(str(rig.evil))


@pytest.mark.alone
def test_the_doctors_trial_runs_nothing_of_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("re", "json", "os", "pathlib", "typing", "optree", "tensor_bridge", "torch"):
        (tmp_path / f"{name}.py").write_text("open('planted', 'w')\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    # Without the slow imports.
    trial = run_trial(())
    assert trial.end == "raised"
    assert trial.data["error"] == "KeyError: 'torch'"
    assert not (tmp_path / "planted").exists()
