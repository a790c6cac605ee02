"""Installs from source in environments of the matrix, in each way that the pages name.

    python tools/source_installs.py [NAME...]      # by default ENVIRONMENTS

Run it on demand: an environment takes some minutes and 7 GB, one at a time. The result of each way
and the doctor's summary are kept in tests/matrix/source/<name>.json.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import build_wheel
import matrix

ROOT = Path(__file__).resolve().parents[1]
RESULTS = matrix.RESULTS / "source"
# The oldest release, two releases without a DLPack header that the build can use, and the newest.
TORCHES = ("2.6.0", "2.7.1", "2.8.0", "2.15.0")
ENVIRONMENTS = tuple(e for e in matrix.ENVIRONMENTS if e.tensorflow and e.torch in TORCHES)


def lines_of(page: str, block: int) -> list[str]:
    """The commands of a block under the first heading that installs."""
    text = (ROOT / page).read_text("utf-8").partition("## Install")[2]
    return re.findall(r"```sh\n(.*?)```", text, re.DOTALL)[block].splitlines()


def ways(sdist: str) -> dict[str, list[str]]:
    """The commands of each way."""
    return {
        "README": lines_of("README.md", 0),
        "uv pip install .": ["uv pip install ."],
        "pip install SDIST": [f"pip install {sdist}"],
        "without isolation": lines_of("docs/get_started.md", 1),
        "editable": ["pip install --no-build-isolation -e ."],
        "uv, without isolation": ["uv pip install --no-build-isolation ."],
    }


# An isolated build of uv does not see torch. Its error must begin with this remedy.
REFUSED = {"uv pip install .": "Build without isolation, where torch is installed: "}


def _unpack(archive: Path, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")


def tried(commands: list[str], folder: Path, python: Path) -> dict[str, Any]:
    env = {
        "PATH": f"{python.parent}:{Path(sys.executable).parent}:/usr/bin:/bin",
        "VIRTUAL_ENV": str(python.parents[1]),
        "CUDA_VISIBLE_DEVICES": "-1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    begin = time.monotonic()
    for command in commands:
        done = matrix.run("sh", "-c", f"cd {folder} && {command}", env=env)
        if done.returncode != 0:
            said = " ".join((done.stdout + done.stderr).partition("(message):")[2].split())
            said = re.sub(r"(?<!\S)/\S+", "PATH", said)  # of this machine
            return {"ends": "failed", "says": said[:300] or done.stderr[-1500:]}
    seconds = round(time.monotonic() - begin)
    doctor = matrix.run(python, "-m", "tensor_bridge", "doctor", "--json", env=env)
    summary = json.loads(doctor.stdout)["summary"] if doctor.stdout.startswith("{") else {}
    matrix.run(python, "-m", "pip", "uninstall", "-y", matrix.DISTRIBUTION, env=env)
    kept = ("adapter in use", "tf to torch", "torch to tf")
    return {
        "ends": "ready" if doctor.returncode == 0 else doctor.stdout[-1500:],
        "doctor": {name: summary.get(name) for name in kept},
        "seconds": seconds,
    }


def examine(environment: matrix.Environment) -> dict[str, Any]:
    scratch = matrix.SCRATCH / f"source-{environment.name}"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        python = matrix.create(environment, scratch / "venv", extra=["pip"])
        archive = scratch / "tree.tar"
        subprocess.run(["git", "archive", "-o", archive, "HEAD"], cwd=ROOT, check=True)
        _unpack(archive, scratch / "tree")
        made = matrix.uv(
            "build", "--sdist", "--quiet", "--out-dir", scratch / "sdist", scratch / "tree"
        )
        if made.returncode != 0:
            raise SystemExit(f"building the source distribution failed:\n{made.stderr[-2000:]}")
        (sdist,) = (scratch / "sdist").glob("*.tar.gz")
        found = {}
        for way, commands in ways(str(sdist)).items():
            _unpack(archive, scratch / "tree")  # without what the last way built
            found[way] = tried(commands, scratch / "tree", python)
            print(f"{environment.name}: {way}: {found[way]}", flush=True)
        return {"commit": build_wheel.commit(), "date": time.strftime("%Y-%m-%d"), "ways": found}
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        shutil.rmtree(matrix.CACHE, ignore_errors=True)


def violations(result: dict[str, Any]) -> list[str]:
    """The ways that did not end as expected."""
    found = []
    for way, how in result["ways"].items():
        right = how["says"].startswith(REFUSED[way]) if way in REFUSED and "says" in how else False
        if not right and how["ends"] != "ready":
            found.append(f"{way}: {how}")
    return found


def main(arguments: list[str]) -> int:
    RESULTS.mkdir(exist_ok=True)
    failed = False
    for environment in matrix.ENVIRONMENTS:
        if environment.name in arguments or (not arguments and environment in ENVIRONMENTS):
            result = examine(environment)
            path = RESULTS / f"{environment.name}.json"
            path.write_text(json.dumps(result, indent=2) + "\n", "utf-8")
            failed = failed or bool(violations(result))
            print("\n".join(violations(result)))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
