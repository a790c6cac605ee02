"""Objects of one process: TensorFlow's threads and those of tensor_bridge do not survive a fork."""

from __future__ import annotations

import os
from typing import Any

from tensor_bridge.errors import WorkerProcessError

_ELSEWHERE = (
    "a TensorFlow dataset cannot be iterated in another process: TensorFlow's threads do not "
    "survive a fork. Use num_workers=0: tf.data works in its own threads, and tensor_bridge "
    "prefetches in another, so worker processes would gain nothing; more cores are used with "
    "num_parallel_calls=tf.data.AUTOTUNE in the pipeline, more machines with "
    "tensor_bridge.data.loader(ds, service=...)"
)


class OfOneProcess:
    """Base of objects that only the process that created them can use.

    Every public method calls `_check_process` before it takes a lock, because a thread that does
    not exist in the child may hold the lock.
    """

    def __init__(self) -> None:
        self._process = os.getpid()

    def _is_here(self) -> bool:
        return os.getpid() == self._process

    def _check_process(self) -> None:
        if os.getpid() != self._process:
            raise WorkerProcessError(_ELSEWHERE)

    def __getstate__(self) -> Any:
        raise WorkerProcessError(_ELSEWHERE)
