"""Runs every benchmark, each in a process of its own, and keeps the numbers in results/.

    python benchmarks/run.py [NAME...] [--quick] [--large] [--output FOLDER]

One after the other: two at once would time each other.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
# The name of a script, and what Keras is to be in its process.
BENCHMARKS = {
    "to_torch": "torch",
    "to_tf": "tensorflow",
    "structures": "tensorflow",
    "strings": "tensorflow",
    "memory": "tensorflow",
    "threads": "tensorflow",
    "cpp": "tensorflow",
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", choices=[[], *BENCHMARKS], help="all, if none is given")
    options, rest = parser.parse_known_args(arguments)
    start = time.monotonic()
    failed = []
    for name, backend in BENCHMARKS.items():
        if options.names and name not in options.names:
            continue
        environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
        command = [sys.executable, str(HERE / f"bench_{name}.py"), *rest]
        if subprocess.run(command, env=environment, check=False).returncode:
            failed.append(name)
    print(
        f"{time.monotonic() - start:.0f} s" + (f"; failed: {', '.join(failed)}" if failed else "")
    )
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
