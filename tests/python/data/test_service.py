"""tf.data service: a real dispatcher and two workers on this machine."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from ranks import run_ranks

import tensor_bridge
from tensor_bridge.data import DataServiceError, ResumeError, loader

# Imports TensorFlow once; each line "dispatcher port" starts a worker in a fork of it.
NURSERY = """
import os, signal, sys, time
import tensorflow as tf
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for line in sys.stdin:
    if os.fork():
        continue
    dispatcher, port = line.split()
    service = tf.data.experimental.service
    worker = service.WorkerServer(service.WorkerConfig(
        dispatcher_address=dispatcher, port=int(port), heartbeat_interval_ms=100))
    print(os.getpid(), worker._address, flush=True)
    time.sleep(600)
    os._exit(0)
"""


class Nursery:
    """Starts workers, and ends those that still run."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", NURSERY],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._alive: set[int] = set()

    def start(self, dispatcher: str, port: int = 0) -> tuple[int, str]:
        """The process and the address of a new worker."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(dispatcher.split("://")[1], port, file=self._process.stdin, flush=True)
        pid, address = self._process.stdout.readline().split()
        self._alive.add(int(pid))
        return int(pid), address

    def kill(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        self._alive.remove(pid)

    def stop(self) -> None:
        for pid in list(self._alive):
            self.kill(pid)
        self._process.kill()
        self._process.communicate()


class Cluster:
    """A dispatcher in this process, and workers."""

    def __init__(self, nursery: Nursery, count: int) -> None:
        service = tf.data.experimental.service
        self._server = service.DispatchServer(service.DispatcherConfig(port=0))
        self.address = self._server.target
        self.workers = [nursery.start(self.address) for _ in range(count)]


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    made = Nursery()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def workers(nursery: Nursery) -> Cluster:
    return Cluster(nursery, 2)


def numbers(elements: Any) -> list[int]:
    return [int(element) for element in elements]


def test_every_element_once_under_dynamic_sharding(workers: Cluster) -> None:
    made = loader(tf.data.Dataset.range(30), service=workers.address)
    for _ in range(2):
        assert sorted(numbers(made)) == list(range(30))
    assert made.stats().elements == 30


def test_other_policies_are_named(workers: Cluster) -> None:
    made = loader(tf.data.Dataset.range(5), service=workers.address, sharding="off")
    assert sorted(numbers(made)) == sorted([*range(5)] * 2)
    with pytest.raises(tensor_bridge.InvalidOptionError, match="sharding must be one of"):
        loader(tf.data.Dataset.range(5), service=workers.address, sharding="static")
    with pytest.raises(tensor_bridge.InvalidOptionError, match="grpc://"):
        loader(tf.data.Dataset.range(5), service="localhost")
    with pytest.raises(tensor_bridge.InvalidOptionError, match="timeout"):
        loader(tf.data.Dataset.range(5), service=workers.address, timeout=0)


def test_positions_are_refused(workers: Cluster) -> None:
    made = loader(tf.data.Dataset.range(5), service=workers.address)
    for _ in range(2):
        with pytest.raises(ResumeError, match="service"):
            made.state_dict()
        elements = iter(made)
        next(elements)
    with pytest.raises(ResumeError, match="service"):
        made.load_state_dict({})
    made.close()
    del elements


def test_two_ranks_share_one_job(workers: Cluster, tmp_path: Path) -> None:
    seen = run_ranks(
        f"""
        made = loader(tf.data.Dataset.range(200), service={workers.address!r})
        see([[int(i) for i in made] for _ in range(2)])
        """,
        tmp_path,
    )
    for epoch in (0, 1):
        assert sorted(seen[0][epoch] + seen[1][epoch]) == list(range(200))


def test_a_killed_worker_is_an_error_in_time(nursery: Nursery) -> None:
    own = Cluster(nursery, 2)
    made = loader(tf.data.Dataset.range(2000), service=own.address, timeout=120)
    elements: Any = iter(made)
    seen = [int(next(elements)) for _ in range(5)]
    nursery.kill(own.workers[0][0])
    elements._limit = 1.5  # only now, because starting takes longer
    last = time.monotonic()

    def take_all(rest: Any) -> None:
        nonlocal last
        for element in rest:
            seen.append(int(element))
            last = time.monotonic()

    with pytest.raises(DataServiceError, match="A worker may have died") as caught:
        take_all(elements)
    assert time.monotonic() - last > 1.3
    assert isinstance(caught.value, ConnectionError)
    assert caught.value.addresses == (own.address,)
    assert caught.value.delivered == len(seen) == len(set(seen))
    assert own.address in str(caught.value)
    assert list(elements) == []  # the pass is over
    made.close()
    del elements, caught
    gc.collect()


def test_a_worker_that_comes_back_lets_the_epoch_complete(nursery: Nursery) -> None:
    own = Cluster(nursery, 1)
    pid, address = own.workers[0]
    made = loader(tf.data.Dataset.range(1000), service=own.address, timeout=200, sharding="off")
    elements = iter(made)
    seen = [int(next(elements)) for _ in range(5)]
    nursery.kill(pid)
    port = int(address.rsplit(":", 1)[1])
    timer = threading.Timer(1.0, nursery.start, [own.address, port])
    timer.start()
    seen += numbers(elements)
    timer.join()
    # The dispatcher keeps no journal here, so the new worker begins its part again.
    assert seen[:5] == [0, 1, 2, 3, 4]
    assert set(seen) == set(range(1000))
