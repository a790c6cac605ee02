"""State that lives exactly as long as a tensor of a framework's graph does.

A compiled function keeps between forward and backward nothing but tensors. A token is a tensor of
one element whose memory is a Python object's: when the framework drops it, the object dies and the
state with it, whether a backward ever came or not. It is found by the address of the memory, and
its value is always 0, so that two runs of a function return equal tensors.
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
    # Before torch 2.13 that is a copy. Nobody writes to a token, so TensorFlow may have its memory.
    import tensorflow as tf

    return tf.experimental.dlpack.from_dlpack(torch.utils.dlpack.to_dlpack(token))


def find(token: torch.Tensor) -> Any | None:
    """The state of a token, or None if the tensor is another one's copy."""
    return _states.get(_dense.torch_address(token))


def find_tf(token: Any) -> Any | None:
    """The same, for a token that was given to TensorFlow."""
    return _states.get(_C.tf_address(token))


def living() -> int:
    """How many states there are."""
    return len(_states)
