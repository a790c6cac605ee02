"""Two ranks of torch.distributed over gloo that stay alive and take draws over pipes.

As a program it is the server: it imports what `training_loops` needs once, and forks the ranks.
"""

from __future__ import annotations

import faulthandler
import gc
import json
import os
import random
import selectors
import socket
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

_SUPPORT = Path(__file__).parent


class RankPair:
    """The two processes, from the tests' side."""

    def __init__(self, errors: Path) -> None:
        self._errors = errors
        pairs = [socket.socketpair() for _ in range(2)]
        theirs = [pair[1].fileno() for pair in pairs]
        environment = {
            **os.environ,
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "TQDM_DISABLE": "1",
            "CUDA_VISIBLE_DEVICES": "-1",
            "OMP_NUM_THREADS": "1",
        }
        with errors.open("w") as file:
            self._process = subprocess.Popen(
                [sys.executable, str(_SUPPORT / "rank_pair.py"), *map(str, theirs)],
                pass_fds=theirs,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env=environment,
            )
        self._ends = [pair[0] for pair in pairs]
        for _, end in pairs:
            end.close()
        self._receive(120)  # both are ready

    def run(
        self, name: str, *, alone: bool = False, timeout: float = 120, **draw: Any
    ) -> list[Any]:
        """Calls a function of `training_loops` with the draw; returns each rank's result.

        Args:
          name: The function's name.
          alone: Whether the processes do not know of each other.
          timeout: Seconds.
          draw: The arguments of `training_loops.Draw`; "@RANK" in them is the rank's number.
        """
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        line = json.dumps([name, draw, alone, port]).encode() + b"\n"
        for end in self._ends:
            end.sendall(line)
        return self._receive(timeout)

    def _receive(self, timeout: float) -> list[Any]:
        lines = [b"", b""]
        deadline = time.monotonic() + timeout
        with selectors.DefaultSelector() as selector:
            for number, end in enumerate(self._ends):
                selector.register(end, selectors.EVENT_READ, number)
            while not all(line.endswith(b"\n") for line in lines):
                events = selector.select(max(0.0, deadline - time.monotonic()))
                if not events:
                    raise AssertionError(f"no answer in time: {lines}\n{self._said()}")
                for key, _ in events:
                    part = key.fileobj.recv(1 << 16)  # type: ignore[union-attr]
                    if not part:
                        raise AssertionError(f"a rank ended\n{self._said()}")
                    lines[key.data] += part
        answers = [json.loads(line) for line in lines]
        for error, _ in answers:
            assert error is None, f"{error}\n{self._said()}"
        return [value for _, value in answers]

    def _said(self) -> str:
        return self._errors.read_text()[-6000:]

    def close(self) -> None:
        for end in self._ends:
            end.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _serve(rank: int, end: socket.socket) -> None:
    import torch
    import training_loops

    # Lightning removes some of it.
    environment = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "localhost"}
    torch.set_num_threads(1)
    end.sendall(b"[null, null]\n")
    for line in end.makefile():
        name, draw, alone, port = json.loads(line.replace("@RANK", str(rank)))
        os.environ.update({k: str(v) for k, v in {**environment, "MASTER_PORT": port}.items()})
        random.seed(0)
        # A rank that waits for the other forever shows where it waits.
        faulthandler.dump_traceback_later(90)
        try:
            answer = [None, training_loops.run(name, draw, alone)]
        except BaseException:
            answer = [traceback.format_exc(), None]
        faulthandler.cancel_dump_traceback_later()
        end.sendall(json.dumps(answer).encode() + b"\n")


def _main(ends: list[socket.socket]) -> None:
    sys.path[:0] = [str(_SUPPORT)]
    import training_loops  # noqa: F401  # once for both

    import tensor_bridge  # noqa: F401  # before TensorFlow

    gc.freeze()
    second = os.fork()
    rank = 0 if second else 1
    ends[1 - rank].close()
    try:
        _serve(rank, ends[rank])
    finally:
        if rank == 1:
            os._exit(0)
    os.waitpid(second, 0)
    os._exit(0)


if __name__ == "__main__":
    _main([socket.socket(fileno=int(number)) for number in sys.argv[1:]])
