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
import signal
import socket
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

_SUPPORT = Path(__file__).parent


class RankPair:
    """The two processes, from the tests' side.

    They are started when a run needs them: for the first one, and after one in which a rank gave
    no answer, for it may wait for the other forever.
    """

    def __init__(self, errors: Path) -> None:
        self._errors = errors
        self._process: subprocess.Popen[bytes] | None = None
        self._ends: list[socket.socket] = []

    def _start(self) -> None:
        pairs = [socket.socketpair() for _ in range(2)]
        theirs = [pair[1].fileno() for pair in pairs]
        environment = {
            **os.environ,
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "TQDM_DISABLE": "1",
            "CUDA_VISIBLE_DEVICES": "-1",
            "OMP_NUM_THREADS": "1",
        }
        with self._errors.open("w") as file:
            self._process = subprocess.Popen(
                [sys.executable, str(_SUPPORT / "rank_pair.py"), *map(str, theirs)],
                pass_fds=theirs,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env=environment,
                start_new_session=True,  # so that `close` can end both
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
        if self._process is None:
            self._start()
        line = json.dumps([name, draw, alone]).encode() + b"\n"
        for end in self._ends:
            end.sendall(line)
        return self._receive(timeout)

    def _receive(self, timeout: float) -> list[Any]:
        lines = [b"", b""]
        deadline = time.monotonic() + timeout
        failed = False
        with selectors.DefaultSelector() as selector:
            for number, end in enumerate(self._ends):
                selector.register(end, selectors.EVENT_READ, number)
            while selector.get_map():
                events = selector.select(max(0.0, deadline - time.monotonic()))
                if not events:
                    break
                for key, _ in events:
                    part = key.fileobj.recv(1 << 16)  # type: ignore[union-attr]
                    lines[key.data] += part
                    if part and not part.endswith(b"\n"):
                        continue
                    selector.unregister(key.fileobj)
                    if not failed and (not part or json.loads(lines[key.data])[0] is not None):
                        failed = True  # the other may fail too, or wait for this one
                        deadline = min(deadline, time.monotonic() + 5)
        ended = [line.endswith(b"\n") for line in lines]
        answers = [json.loads(line) for line, whole in zip(lines, ended, strict=True) if whole]
        if not all(ended):
            self._kill()
        errors = [error for error, _ in answers if error is not None]
        assert not errors, "\n".join([*errors, self._said()])
        assert all(ended), f"no answer in time, or a rank ended: {lines}\n{self._said()}"
        return [value for _, value in answers]

    def _said(self) -> str:
        return self._errors.read_text()[-6000:]

    def _kill(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self.close()

    def close(self) -> None:
        if self._process is None:
            return
        for end in self._ends:
            end.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._process = None


def _serve(rank: int, end: socket.socket, other: socket.socket) -> None:
    import torch
    import training_loops

    torch.set_num_threads(1)
    end.sendall(b"[null, null]\n")
    ports = other.makefile()
    for line in end.makefile():
        name, draw, alone = json.loads(line.replace("@RANK", str(rank)))
        # Rank 0 has the store and tells its port. If a port is chosen before, another process
        # may take it, or rank 1, which asks until somebody answers, gets itself as the peer.
        if rank == 0:
            store = torch.distributed.TCPStore(
                "localhost", 0, is_master=True, wait_for_workers=False
            )  # until the next run, as the other rank needs it longer than this one
            port = store.port
            other.sendall(f"{port}\n".encode())
        else:
            port = int(ports.readline())
        # Each time, for Lightning removes some of it.
        environment = {
            "RANK": rank,
            "LOCAL_RANK": rank,
            "WORLD_SIZE": 2,
            "MASTER_ADDR": "localhost",
            "MASTER_PORT": port,
            "TORCHELASTIC_USE_AGENT_STORE": True,
        }
        os.environ.update({key: str(value) for key, value in environment.items()})
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
    between = socket.socketpair()
    second = os.fork()
    rank = 0 if second else 1
    for pair in (ends, between):
        pair[1 - rank].close()
    try:
        _serve(rank, ends[rank], between[rank])
    finally:
        if rank == 1:
            os._exit(0)
    os.waitpid(second, 0)
    os._exit(0)


if __name__ == "__main__":
    _main([socket.socket(fileno=int(number)) for number in sys.argv[1:]])
