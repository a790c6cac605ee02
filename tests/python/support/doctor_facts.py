"""Facts of an installation with nothing wrong, for tests to spoil."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tensor_bridge.doctor import Facts
from tensor_bridge.doctor._facts import Trial

LIBRARIES = [
    "/site/tensorflow/libtensorflow_cc.so.2",
    "/site/tensorflow/libtensorflow_framework.so.2",
    "/site/torch/lib/libgomp-24e2ab19.so.1",
    "/site/tensor_bridge/libtensor_bridge.so",
    "/site/tensor_bridge/libtensor_bridge_torch_2_13.so",
]
DATA = {
    "tensorflow": "2.21.0",
    "torch": "2.13.0",
    "gpus": {"torch": [], "tensorflow": []},
    "to_torch": "shared",
    "write": "stays in torch",
    "to_tf": "shared",
    "libraries": LIBRARIES,
    "protobuf": "6.31.1",
    "adapter": "2.13",
}
ORDERS = (("tensorflow", "torch"), ("torch", "tensorflow"))
STAGE = "looking at the loaded libraries"


def trials(**data: Any) -> tuple[Trial, ...]:
    """Both trials, finished, with other data."""
    return tuple(Trial(order, STAGE, "done", DATA | data) for order in ORDERS)


FACTS = Facts(
    python="3.12.3",
    platform="Linux x86_64",
    free_threaded=False,
    distributions={"tensorflow": "2.21.0", "torch": "2.13.0"},
    adapters=("2.13",),
    modules={"tensorflow": True, "torch": True, "triton": False},
    environment={},
    start_method="spawn",
    trials=trials(),
    on_library_path=(),
)


def facts(**changes: Any) -> Facts:
    """The facts with changes; a dict is merged into the existing one."""
    merged = {
        name: getattr(FACTS, name) | value if isinstance(value, dict) else value
        for name, value in changes.items()
    }
    return replace(FACTS, **merged)
