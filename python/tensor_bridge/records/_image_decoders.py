"""One function per library that decodes images. Not for: columns of images (`_images`)."""

from __future__ import annotations

import ctypes
import io
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from tensor_bridge.errors import FrameworkError, InvalidOptionError, RecordError

if TYPE_CHECKING:
    import torch

__all__ = ["DECODERS", "MODES", "find_decoder"]

# Channels -> the name of the mode in torchcodec and torchvision, and in Pillow.
MODES = {
    None: ("UNCHANGED", ""),
    1: ("GRAY", "L"),
    2: ("GRAY_ALPHA", "LA"),
    3: ("RGB", "RGB"),
    4: ("RGB_ALPHA", "RGBA"),
}

# A decoder: (bytes as a uint8 tensor, channels, uint8 or uint16) -> an image, CHW.
_Decode = Callable[[Any, Any, Any], Any]


def _torchcodec() -> _Decode:
    decoders = import_module("torchcodec.decoders")
    if not hasattr(decoders, "decode_image"):
        raise ImportError("releases before 0.16 do not decode images")
    decode_image = decoders.decode_image

    def decode(data: torch.Tensor, channels: int | None, dtype: torch.dtype) -> torch.Tensor:
        image: torch.Tensor = decode_image(data, mode=MODES[channels][0], output_dtype=dtype)
        return image

    return decode


def _torchvision() -> _Decode:
    vision = import_module("torchvision.io")
    modes = vision.ImageReadMode

    def decode(data: torch.Tensor, channels: int | None, dtype: torch.dtype) -> torch.Tensor:
        import torch

        image: torch.Tensor = vision.decode_image(data, getattr(modes, MODES[channels][0]))
        if image.dtype == torch.uint16 and dtype == torch.uint8:
            # The high byte, as libpng reduces 16 bits to 8.
            return image.view(torch.uint8).reshape(*image.shape, 2)[..., 1].contiguous()
        return _widened(image, dtype)

    return decode


def _pillow() -> _Decode:
    images = import_module("PIL.Image")

    def decode(data: torch.Tensor, channels: int | None, dtype: torch.dtype) -> torch.Tensor:
        import torch

        # Pillow reads from a file object.
        encoded = ctypes.string_at(data.data_ptr(), data.numel())
        with images.open(io.BytesIO(encoded)) as image:
            image.load()
            if image.mode in ("I;16", "I;16B", "I"):
                return _pillow_16(image, channels, dtype)
            if dtype == torch.uint16 and image.format == "PNG" and encoded[24] == 16:
                raise RecordError(
                    "Pillow reduces 16 bits of several channels to 8; install torchcodec or "
                    "torchvision"
                )
            mode = MODES[channels][1] or _plain_mode(image)
            if image.mode != mode:
                image = image.convert(mode)
            width, height = image.size
            return _widened(_of_rows(image.tobytes(), torch.uint8, height, width), dtype)

    return decode


def _plain_mode(image: Any) -> str:
    """The name of the nearest mode in MODES."""
    if image.mode in ("L", "LA", "RGB", "RGBA"):
        mode: str = image.mode
        return mode
    if image.mode == "1":
        return "L"
    return "RGBA" if "transparency" in image.info else "RGB"


def _pillow_16(image: Any, channels: int | None, dtype: torch.dtype) -> torch.Tensor:
    """A gray image of 16 bits. Pillow's own conversion to 8 bits would clip values above 255."""
    import torch

    if channels not in (None, 1):
        raise RecordError(
            f"Pillow cannot convert a gray image of 16 bits to {channels} channels; use channels=1"
        )
    width, height = image.size
    raw = image.convert("I").tobytes()
    wide = _of_rows(raw, torch.int32, height, width)
    if dtype == torch.uint8:
        return (wide >> 8).to(torch.uint8)
    return wide.to(torch.uint16)


def _of_rows(raw: bytes, dtype: torch.dtype, height: int, width: int) -> torch.Tensor:
    """A copy as CHW, with the strides of HWC like the other decoders' images."""
    import torch

    pixels = torch.empty(len(raw), dtype=torch.uint8, device="cpu")
    ctypes.memmove(pixels.data_ptr(), raw, len(raw))
    return pixels.view(dtype).view(height, width, -1).permute(2, 0, 1)


def _widened(image: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Widens 8 bits to 16 so that the largest value stays the largest, like libpng."""
    import torch

    if image.dtype == dtype:
        return image
    return (image.to(torch.int32) * 257).to(dtype)


# In the order in which find_decoder() tries them.
DECODERS: dict[str, Callable[[], _Decode]] = {
    "torchcodec": _torchcodec,
    "torchvision": _torchvision,
    "pillow": _pillow,
}


@cache
def find_decoder(name: str | None) -> tuple[str, _Decode]:
    """Returns the name and the function of a decoder, or of the first that loads if none is named.

    Raises:
      FrameworkError: The named decoder, or every decoder, fails to load.
      InvalidOptionError: There is no such decoder.
    """
    if name is not None and name not in DECODERS:
        raise InvalidOptionError(f"expected decoder= as {', '.join(DECODERS)}, got {name!r}")
    failures = []
    for tried in DECODERS if name is None else (name,):
        try:
            return tried, DECODERS[tried]()
        # OSError and RuntimeError come from a library for another build of torch.
        except (ImportError, OSError, RuntimeError, AttributeError) as e:
            reason = (str(e).strip() or type(e).__name__).splitlines()[0]
            failures.append(f"{tried} ({reason})")
    raise FrameworkError(
        f"no image decoder can be loaded: {'; '.join(failures)}; install torchcodec 0.16 or "
        "newer, torchvision or Pillow: pip install pillow",
        name=name,
    )
