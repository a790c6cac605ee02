"""State that lives exactly as long as a tensor in a framework's graph.

A compiled function keeps only tensors between forward and backward. A token is a tensor of one
element whose memory belongs to a Python object: when the framework drops the tensor, the object and
the state die, whether or not a backward pass came. The state is found by the address of the memory.
The value is always 0, so that two runs of a function return equal tensors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tensor_bridge import _C, _dense

if TYPE_CHECKING:
    import torch

_ALIGNMENT = 64  # what TensorFlow needs to take memory over

_states: dict[int, Any] = {}


class _Memory(bytearray):
    """What a token's tensor keeps alive."""

    address = 0

    def __del__(self) -> None:
        states = _states
        if states is not None:  # at the interpreter's end
            states.pop(self.address, None)


def issue(state: Any) -> torch.Tensor:
    """A token, an int32 tensor of shape (1,), for a state."""
    import torch

    memory = _Memory(2 * _ALIGNMENT)
    start = _dense.torch_address(torch.frombuffer(memory, dtype=torch.uint8))
    token = torch.frombuffer(memory, dtype=torch.int32, count=1, offset=-start % _ALIGNMENT)
    memory.address = _dense.torch_address(token)
    _states[memory.address] = state
    return token


def issue_tf(state: Any) -> Any:
    """A token for a state, given to TensorFlow."""
    import torch

    token = issue(state)
    given = _C.convert_pytorch_to_tf(token)
    if find_tf(given) is not None:
        return given
    # `to_tf` would copy before torch 2.13. Nobody writes to a token, so its memory can be shared.
    import tensorflow as tf

    return tf.experimental.dlpack.from_dlpack(torch.utils.dlpack.to_dlpack(token))


def find(token: torch.Tensor) -> Any | None:
    """The state of a token, or None if the tensor is a copy of a token."""
    return _states.get(_dense.torch_address(token))


def find_tf(token: Any) -> Any | None:
    """Like `find`, for a token that was given to TensorFlow."""
    return _states.get(_C.tf_address(token))


def living() -> int:
    """How many states there are."""
    return len(_states)
