"""Copies between plain memory and torch tensors, through torch's public Python functions only.

Used with a torch for which no adapter is proven; `src/extension/copying_torch.cc` calls these
functions. Not for: any other torch, with which the adapters share memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def empty(
    dtype: str,
    shape: tuple[int, ...],
    strides: tuple[int, ...] | None,
    nbytes: int,
    looked_up: int,
) -> tuple[torch.Tensor, int]:
    """A new tensor on the host, and the address of its storage.

    Args:
      dtype: torch's name of the dtype: "torch.float32".
      shape: its shape.
      strides: its strides, in elements; None is row-major.
      nbytes: the storage's size; with ``looked_up`` the number of its elements.
      looked_up: whether one byte of the source becomes one element.
    """
    import torch

    kind: torch.dtype = getattr(torch, dtype.removeprefix("torch."))
    # On the CPU, whatever the default device is.
    bytes_ = nbytes * kind.itemsize if looked_up else nbytes
    flat = torch.empty((bytes_ // kind.itemsize,), dtype=kind, device="cpu")
    address = flat.data_ptr()
    return flat.resize_(shape) if strides is None else flat.as_strided(shape, strides), address


def from_capsule(capsule: object) -> torch.Tensor:
    """A tensor on the memory of a DLPack capsule ("dltensor"), which it keeps and then releases."""
    import torch

    return torch.from_dlpack(capsule)


def _address(x: torch.Tensor) -> int:
    # data_ptr() would end torch's own copy-on-write sharing.
    read: Any = getattr(x, "const_data_ptr", x.data_ptr)
    return int(read())


def _reaches_last_element(x: torch.Tensor) -> bool:
    last = sum((size - 1) * stride for size, stride in zip(x.shape, x.stride(), strict=True))
    end = (x.storage_offset() + last + 1) * x.element_size()
    return x.numel() == 0 or bool(end <= x.untyped_storage().nbytes())


def _obstacle(x: torch.Tensor) -> tuple[str, str]:
    """Why a tensor's memory does not hold its values, and torch's name of the reason."""
    import torch

    if getattr(type(x), "__torch_dispatch__", None) is not torch.Tensor.__torch_dispatch__:
        return "wrapped", type(x).__name__
    # Private; torch 2.6 to 2.15.
    if torch._C._functorch.is_functorch_wrapped_tensor(x) or torch._is_functional_tensor(x):
        return "wrapped", type(x).__name__
    if x.layout is torch._mkldnn:
        return "mkldnn", str(x.layout)
    if x.layout is not torch.strided or x.is_nested:
        return "not dense", str(x.layout).removeprefix("torch.").capitalize()
    if x.is_quantized:
        return "quantized", str(x.dtype)
    if x.is_meta:
        return "meta", "meta"
    if x.device.type != "cpu":
        return "device", str(x.device)
    if x._is_zerotensor():
        return "zero", ""
    if not _reaches_last_element(x):
        return "no memory", ""
    for name, found in (
        ("conjugate", x.is_conj()),
        ("negative", x.is_neg()),
        ("strided", not x.is_contiguous()),
    ):
        if found:
            return name, ""
    return "none", ""


def describe(
    x: torch.Tensor,
) -> tuple[str, str, bool, tuple[int, ...], tuple[int, ...], int, int, str]:
    """Obstacle, dtype, requires_grad, shape, strides, address or 0, bytes of a dense copy, name.

    The strides are those of a tensor whose memory holds its values. The name is torch's name of the
    obstacle.
    """
    obstacle, name = _obstacle(x)
    if obstacle in ("wrapped", "not dense"):
        return obstacle, str(x.dtype), x.requires_grad, (), (), 0, 0, name
    strides = tuple(x.stride()) if obstacle in ("none", "strided") else ()
    address = _address(x) if obstacle in ("none", "strided", "conjugate", "negative") else 0
    nbytes = min(x.numel() * x.element_size(), 2**63 - 1)
    return obstacle, str(x.dtype), x.requires_grad, tuple(x.shape), strides, address, nbytes, name


def values(x: torch.Tensor, cast: str | None) -> tuple[torch.Tensor, int, int]:
    """The values in row-major host memory, its address and its size. The tensor keeps it alive."""
    import torch

    with torch.no_grad():
        y = x.detach()
        if y.layout is not torch.strided:
            y = y.to_dense()
        if y._is_zerotensor():
            y = torch.zeros(y.shape, dtype=y.dtype)
        y = y.to(device="cpu").resolve_conj().resolve_neg()
        if cast is not None:
            y = y.to(dtype=getattr(torch, cast))
        y = y.contiguous()
    return y, _address(y), y.numel() * y.element_size()
