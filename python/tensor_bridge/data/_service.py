"""tf.data service: the pipeline runs on TensorFlow's workers."""

from __future__ import annotations

from typing import Any

from tensor_bridge.errors import InvalidOptionError

POLICIES = ("dynamic", "off", "file", "data", "file_or_data", "hint")


class Service:
    """The address of a dispatcher, and how its workers share a dataset."""

    def __init__(
        self, address: str, sharding: str, job_name: str | None, timeout: float | None
    ) -> None:
        if "://" not in str(address):
            raise InvalidOptionError(
                f"service must be a dispatcher's address, 'grpc://host:port', got {address!r}"
            )
        if sharding not in POLICIES:
            raise InvalidOptionError(f"sharding must be one of {POLICIES}, got {sharding!r}")
        if timeout is not None and not timeout > 0:
            raise InvalidOptionError(f"timeout must be None or positive seconds, got {timeout!r}")
        self._address = str(address)
        self._sharding = sharding
        self._job_name = _common_name() if job_name is None else job_name
        self.timeout = timeout

    def addresses(self) -> tuple[str, ...]:
        """The dispatcher's address; it knows its workers."""
        return (self._address,)

    def distribute(self, dataset: Any) -> Any:
        """The dataset as the workers deliver it."""
        import tensorflow as tf

        service = tf.data.experimental.service
        policy = getattr(service.ShardingPolicy, self._sharding.upper())
        return dataset.apply(
            service.distribute(
                processing_mode=policy, service=self._address, job_name=self._job_name
            )
        )


def _common_name() -> str | None:
    """Returns the name of a job that all ranks share; None if there is one rank."""
    import uuid

    import torch

    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return None
    if distributed.get_world_size() == 1:
        return None
    names = [f"tensor_bridge_{uuid.uuid4().hex}" if distributed.get_rank() == 0 else None]
    distributed.broadcast_object_list(names)
    return names[0]
