"""Elements on a device: a pinned copy, and a transfer that runs one element ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tensor_bridge import _C, _structures
from tensor_bridge.composite import for_torch
from tensor_bridge.data._process import OfOneProcess
from tensor_bridge.errors import UnsupportedDeviceError, UnsupportedTypeError

if TYPE_CHECKING:
    import torch


def map_tensors(function: Callable[[torch.Tensor], torch.Tensor], element: Any) -> Any:
    """Returns the element with ``function`` applied to each tensor and part of a composite."""
    import optree

    def leaf(value: Any) -> Any:
        if _is_plain(value):
            return function(value)
        found = for_torch(value)
        if found is not None and found.parts is not None:
            parts, make = found.parts(value)
            return make([map_tensors(function, part) for part in parts])
        if _C.is_torch_tensor(value):
            return function(value)
        if _structures.is_node(value):  # optree does not know attrs classes
            _, children, rebuild = _structures.children(value)
            return rebuild([map_tensors(function, child) for child in children])
        return value

    return optree.tree_map(leaf, element, none_is_leaf=True, namespace=_structures.NAMESPACE)


def _is_plain(value: Any) -> bool:
    """Whether the value is a tensor with one block of memory, which can be pinned."""
    import torch

    return _C.is_torch_tensor(value) and value.layout is torch.strided and not value.is_nested


def pins(pin_memory: bool) -> bool:
    """Whether to pin memory: if requested and possible. If impossible it warns, as torch does.

    It does not raise, because training scripts request pinning on every machine.
    """
    import torch

    if pin_memory and not torch.cuda.is_available():
        import warnings

        warnings.warn(
            "pin_memory=True, but torch sees no GPU: the tensors are in ordinary memory",
            UserWarning,
            stacklevel=5,
        )
        return False
    if pin_memory:
        _C.require_torch_cuda()
    return bool(pin_memory)


class Mover(OfOneProcess):
    """Iterator over the elements of another one on ``device``.

    Args:
      source: `Elements` or a similar iterator.
      device: The device of the tensors; None leaves them on the host.
      pin_memory: On the host, copies them into pinned memory.

    Raises:
      UnsupportedDeviceError: There is no such device.
    """

    def __init__(self, source: Any, device: Any, pin_memory: bool) -> None:
        import torch

        super().__init__()
        self._source = source
        self._device: torch.device | None = None if device is None else torch.device(device)
        cuda = self._device is not None and self._device.type == "cuda"
        if cuda:
            _C.require_torch_cuda()
        if cuda and not torch.cuda.is_available():
            raise UnsupportedDeviceError(
                "device='cuda' needs a CUDA build of torch and a visible GPU; neither is here"
            )
        if self._device == torch.device("cuda"):
            # The current device, as in Tensor.to(), fixed for the whole pass.
            self._device = torch.device("cuda", torch.cuda.current_device())
        self._pin = pin_memory or cuda
        self._stream = torch.cuda.Stream(self._device) if cuda else None
        # (values on the host, element, moved tensors, event), or an exception.
        self._ahead: deque[Any] = deque()
        self._started = False
        self.finished = False

    def __iter__(self) -> Mover:
        self._check_process()
        return self

    def begin(self) -> bool:
        """Fetches the first element ahead; returns whether there is one."""
        self._check_process()
        if not self._started:
            self._started = True
            self._fetch()
        return bool(self._ahead)

    def __next__(self) -> Any:
        self.begin()
        if not self._ahead:
            self.finished = True
            raise StopIteration
        item = self._ahead.popleft()
        if isinstance(item, Exception):
            self._fetch()
            raise item
        self._fetch()
        _, element, moved, event = item
        if event is not None:
            self._hand_over(moved, event)
        return element

    @property
    def delivered_last(self) -> bool:
        """Whether there is no further element."""
        return self._started and not self._ahead

    def undelivered(self) -> list[list[Any]]:
        """Values of the elements that were fetched ahead."""
        self._check_process()
        return [item[0] for item in self._ahead if not isinstance(item, Exception)]

    def _fetch(self) -> None:
        try:
            try:
                flat = self._source.next_flat()
            except StopIteration:
                return
            item = (flat, *self._moved(self._source.build(flat)))
        except Exception as e:  # belongs to the next element, not to the one being delivered
            self._ahead.append(e)
        else:
            self._ahead.append(item)

    def _moved(self, element: Any) -> tuple[Any, list[torch.Tensor], Any]:
        """Returns the element on its device, its tensors, and the event of their transfer."""
        import torch

        moved: list[torch.Tensor] = []

        def move(x: torch.Tensor) -> torch.Tensor:
            moved.append(self._move(x))
            return moved[-1]

        if self._stream is None:
            if self._device is not None or self._pin:
                element = map_tensors(move, element)
            return element, moved, None
        with torch.cuda.stream(self._stream):
            element = map_tensors(move, element)
            event = torch.cuda.Event()
            event.record(self._stream)
        return element, moved, event

    def _move(self, x: torch.Tensor) -> torch.Tensor:
        if not _is_plain(x):
            if self._stream is not None:
                raise UnsupportedTypeError(
                    f"cannot move a tensor of layout {x.layout} to {self._device} while the one "
                    "before is computed on; convert it in the pipeline, or move it yourself "
                    "(device=None)"
                )
            return x if self._device is None else x.to(self._device)
        if self._pin and x.device.type == "cpu":
            x = x.pin_memory()
        return x if self._device is None else x.to(self._device, non_blocking=self._pin)

    def _hand_over(self, moved: list[torch.Tensor], event: Any) -> None:
        """Makes the current stream wait for the transfer, and the allocator for the stream."""
        import torch

        stream = torch.cuda.current_stream(self._device)
        stream.wait_event(event)
        for x in moved:
            x.record_stream(stream)
