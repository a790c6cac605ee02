"""Decodes images to tensors. Not for: the libraries that decode (`_image_decoders`)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from tensor_bridge import _refusals
from tensor_bridge._options import checks_keywords
from tensor_bridge.errors import InvalidOptionError, RecordError, UnsupportedTypeError
from tensor_bridge.records._image_decoders import MODES, find_decoder

if TYPE_CHECKING:
    import torch

    from tensor_bridge.composite import StringTensor

__all__ = ["Image", "PaddedImages", "decode_image"]

_SIZES = ("list", "pad", "same")


class PaddedImages(NamedTuple):
    """Images of several sizes in one tensor.

    Attributes:
      images: uint8 or uint16 of shape ``(count, channels, height, width)``, with the largest height
        and the largest width; zeros below and right of each image.
      sizes: Height and width of each image, int64 of shape ``(count, 2)``.
    """

    images: torch.Tensor
    sizes: torch.Tensor


def _check(channels: int | None, dtype: Any) -> str:
    if channels not in MODES:
        raise InvalidOptionError(f"expected channels as 1, 2, 3, 4 or None, got {channels!r}")
    name = str(dtype).removeprefix("torch.")
    if name not in ("uint8", "uint16"):
        raise InvalidOptionError(
            f"expected dtype uint8 or uint16 for images, got {name}; convert the result"
        )
    return name


def _decode(data: torch.Tensor, channels: int | None, dtype: str, decoder: str | None) -> Any:
    import torch

    name, decode = find_decoder(decoder)
    try:
        if not data.numel():
            raise RecordError("the bytes are empty")
        image = decode(data, channels, getattr(torch, dtype))
    except MemoryError:
        raise
    except Exception as e:  # OSError, SyntaxError or RuntimeError, depending on the library
        reason = str(e).strip().partition("\n")[0] or type(e).__name__
        raise RecordError(f"expected an image that {name} can decode: {reason}") from e
    if image.dim() != 3:
        raise RecordError(f"expected one image, got {image.shape[0]} frames")
    return image


@checks_keywords
def decode_image(
    data: Any, *, channels: int | None = 3, dtype: Any = "uint8", decoder: str | None = None
) -> torch.Tensor:
    """Decodes one image.

    No NumPy array is made. torchcodec and Pillow do without NumPy; torchvision loads it.

    Args:
      data: The encoded image: bytes, or a uint8 tensor of one dimension on the CPU.
      channels: 1 (gray), 2 (gray, alpha), 3 (RGB), 4 (RGB, alpha), or None for the file's own
        channels. With 1 or 3, alpha is dropped. EXIF orientation is not applied.
      dtype: torch.uint8, or torch.uint16 for PNG of 16 bits.
      decoder: "torchcodec" (0.16 or newer), "torchvision" or "pillow"; by default the first of them
        that loads. For JPEG and for conversions to gray, their results differ by a few units.

    Returns:
      A tensor of shape ``(channels, height, width)`` on the CPU that owns its memory. Its strides
      are the decoder's, often those of channels last.

    Raises:
      RecordError: `data` is damaged, or not an image that the decoder supports.
      FrameworkError: The named decoder, or every decoder, fails to load.
      InvalidOptionError: A keyword is invalid.
      UnsupportedTypeError: `data` is neither bytes nor such a tensor.
    """
    import torch

    name = _check(channels, dtype)
    if isinstance(data, (bytes, bytearray, memoryview)):
        data = torch.frombuffer(bytearray(data) or bytearray(1), dtype=torch.uint8)[: len(data)]
    elif not isinstance(data, torch.Tensor):
        raise UnsupportedTypeError(
            f"expected the bytes of an image or a uint8 tensor, got {_refusals.a_class(data)}"
        )
    if data.dtype != torch.uint8 or data.dim() != 1 or data.device.type != "cpu":
        raise UnsupportedTypeError(
            "expected a uint8 tensor of one dimension on the CPU, got "
            f"{data.dtype} of {data.dim()} dimensions on {data.device}"
        )
    image: torch.Tensor = _decode(data.contiguous(), channels, name, decoder)
    return image


@checks_keywords
@dataclass(frozen=True)
class Image:
    """Decodes images, as ``decode=`` of a feature of bytes.

    A single image becomes a tensor of shape ``(channels, height, width)``, the result of
    `decode_image`.

    Attributes:
      channels: As for `decode_image`.
      dtype: As for `decode_image`.
      sizes: The result for several images: "list", a list of tensors (nested lists for features of
        more dimensions); "pad", `PaddedImages`; "same", one tensor, and an error if sizes differ.
      on_error: "raise", or "skip": an image that cannot be decoded becomes a tensor without pixels,
        of shape ``(channels, 0, 0)``, and a warning.
      decoder: As for `decode_image`.

    Raises:
      InvalidOptionError: An attribute is invalid.
    """

    channels: int | None = 3
    dtype: Any = "uint8"
    sizes: str = "list"
    on_error: str = "raise"
    decoder: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "dtype", _check(self.channels, self.dtype))
        if self.sizes not in _SIZES:
            raise InvalidOptionError(f"expected sizes as {', '.join(_SIZES)}, got {self.sizes!r}")
        if self.on_error not in ("raise", "skip"):
            raise InvalidOptionError(f'expected on_error="raise" or "skip", got {self.on_error!r}')
        if self.sizes == "same" and self.on_error == "skip":
            raise InvalidOptionError('on_error="skip" needs sizes="list" or "pad"')

    def decode(self, strings: StringTensor) -> Any:
        """Decodes the images of a column.

        Returns:
          A tensor, a list of tensors or `PaddedImages`, as `sizes` says, on the CPU.

        Raises:
          RecordError: An image cannot be decoded, or `sizes` does not allow its size.
          FrameworkError: As for `decode_image`.
        """
        data = strings.bytes.cpu()
        ends = strings.offsets.tolist()
        images = [self._one(data[ends[i] : ends[i + 1]], i) for i in range(len(ends) - 1)]
        shape = tuple(strings.shape)
        if not shape:
            return images[0]
        if self.sizes == "list":
            return _nested(images, shape)
        return self._padded(images, shape) if self.sizes == "pad" else self._stacked(images, shape)

    def _one(self, data: torch.Tensor, number: int) -> torch.Tensor:
        import torch

        try:
            image: torch.Tensor = _decode(data, self.channels, self.dtype, self.decoder)
        except RecordError as e:
            if self.on_error == "raise":
                raise RecordError(f"image {number}: {e}") from e
            warnings.warn(f"image {number} is skipped: {e}", stacklevel=2)
            return torch.empty(self.channels or 1, 0, 0, dtype=getattr(torch, self.dtype))
        return image

    def _channels(self, images: list[torch.Tensor]) -> int:
        found = {int(image.shape[0]) for image in images if image.numel()}
        if len(found) > 1:
            raise RecordError(
                f"expected the same number of channels in all images, got {sorted(found)}; set "
                'channels= or sizes="list"'
            )
        return found.pop() if found else self.channels or 1

    def _padded(self, images: list[torch.Tensor], shape: tuple[int, ...]) -> PaddedImages:
        import torch

        channels = self._channels(images)
        sizes = torch.tensor([tuple(image.shape[1:]) for image in images], dtype=torch.int64)
        sizes = sizes.reshape(-1, 2)
        height, width = sizes.amax(0).tolist() if images else (0, 0)
        dtype = getattr(torch, self.dtype)
        padded = torch.zeros(len(images), channels, height, width, dtype=dtype)
        for place, image in zip(padded, images, strict=True):
            if image.numel():
                place[:, : image.shape[1], : image.shape[2]] = image
        return PaddedImages(padded.reshape(*shape, *padded.shape[1:]), sizes.reshape(*shape, 2))

    def _stacked(self, images: list[torch.Tensor], shape: tuple[int, ...]) -> torch.Tensor:
        import torch

        found = {tuple(image.shape) for image in images}
        if len(found) > 1:
            raise RecordError(
                f'expected images of one shape, got {sorted(found)}; use sizes="list" or "pad"'
            )
        if not images:
            return torch.empty(*shape, self.channels or 1, 0, 0, dtype=getattr(torch, self.dtype))
        return torch.stack(images).reshape(*shape, *images[0].shape)


def _nested(items: list[Any], shape: tuple[int, ...]) -> list[Any]:
    if len(shape) == 1:
        return items
    size = len(items) // shape[0] if shape[0] else 0
    return [_nested(items[i * size : (i + 1) * size], shape[1:]) for i in range(shape[0])]
