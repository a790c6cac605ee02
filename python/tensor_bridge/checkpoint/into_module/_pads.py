"""Zeros that a convolution puts before and after its input: a word in Keras, numbers in torch.

The arithmetic of "same" is TensorFlow's: tensorflow/core/framework/kernel_shape_util.cc,
``GetWindowedOutputSizeVerbose``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

# (before, behind) for an input of a size.
Pads = Callable[[int], tuple[int, int]]


@dataclass(frozen=True)
class Axis:
    """What a convolution does along one axis.

    Attributes:
      kernel: Taps of the kernel.
      stride: Steps between outputs.
      dilation: Steps between taps.
    """

    kernel: int
    stride: int
    dilation: int

    @property
    def reach(self) -> int:
        """Inputs from the first tap to the last, both counted."""
        return (self.kernel - 1) * self.dilation + 1

    def same(self, size: int) -> tuple[int, int]:
        """The zeros of "same" before and after an input; an odd zero goes after it."""
        outputs = -(-size // self.stride)
        total = max((outputs - 1) * self.stride + self.reach - size, 0)
        return total // 2, total - total // 2

    def keras(self, padding: str) -> Pads | None:
        """The zeros that Keras puts around an input; None for an unknown word."""
        if padding == "valid":
            return lambda size: (0, 0)
        if padding == "same":
            return self.same
        if padding == "causal":
            return lambda size: (self.reach - 1, 0)
        if padding == "full":
            return lambda size: (self.reach - 1, self.reach - 1)
        return None

    def outputs(self, size: int, pads: tuple[int, int]) -> int:
        return (size + sum(pads) - self.reach) // self.stride + 1

    def agree(self, one: Pads, other: Pads, size: int) -> bool:
        """Whether the outputs are the same for an input of that size.

        Zeros at the end that no output reaches make no difference.
        """
        a, b = one(size), other(size)
        return a[0] == b[0] and self.outputs(size, a) == self.outputs(size, b)

    def differing_size(self, one: Pads, other: Pads, size: int | None) -> int | None:
        """An input size for which outputs differ; ``size`` itself if it is known."""
        # Once the kernel fits, "same" depends only on the remainder of the size by the stride.
        sizes = range(self.reach, self.reach + self.stride) if size is None else (size,)
        return next((n for n in sizes if not self.agree(one, other, n)), None)

    def transposed(self, padding: str, extra: int | None, size: int) -> tuple[int, int]:
        """For a transposed convolution: outputs cut off at the beginning, and outputs left.

        Follows ``compute_conv_transpose_output_length`` of Keras, and TensorFlow's gradient of a
        convolution, which is a transposed convolution.
        """
        if extra is None:
            left = size * self.stride
            if padding != "same":
                left += max(self.reach - self.stride, 0)
        else:
            cut = self.reach // 2 if padding == "same" else 0
            left = (size - 1) * self.stride + self.reach - 2 * cut + extra
        total = max((size - 1) * self.stride + self.reach - left, 0)
        return (total // 2 if padding == "same" else 0), left
