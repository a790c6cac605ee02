"""Gradients across the frameworks: TensorFlow inside torch.autograd, torch under a GradientTape.

>>> import tensorflow as tf, torch
>>> from tensor_bridge.autograd import tf_to_torch
>>> x = torch.tensor([1.0, 2.0], requires_grad=True)
>>> tf_to_torch(tf.square)(x).sum().backward()
>>> x.grad
tensor([2., 4.])

Importing this module loads neither framework.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tensor_bridge import _lazy
from tensor_bridge.errors import GradientError

if TYPE_CHECKING:
    from torch.nn import Module

    from tensor_bridge._torch_compile import compile_conversions
    from tensor_bridge.autograd.tf_in_torch._tf_function import TfFunction, tf_to_torch
    from tensor_bridge.autograd.tf_in_torch._tf_module import TfModuleBase
    from tensor_bridge.autograd.torch_in_tf._torch_function import TorchFunction, torch_to_tf
    from tensor_bridge.autograd.torch_in_tf._torch_layer import TorchLayerBase as TorchLayer

    class TfModule(TfModuleBase, Module):  # type: ignore[misc]
        """As `tf_module_class` makes it."""


__all__ = [
    # TensorFlow in torch
    "tf_to_torch",
    "TfFunction",
    "TfModule",
    # torch in TensorFlow
    "torch_to_tf",
    "TorchFunction",
    "TorchLayer",
    # torch.compile
    "compile_conversions",
    # exceptions
    "GradientError",
]

_LAZY = {
    "tf_to_torch": "tf_in_torch._tf_function",
    "TfFunction": "tf_in_torch._tf_function",
    "torch_to_tf": "torch_in_tf._torch_function",
    "TorchFunction": "torch_in_tf._torch_function",
    "compile_conversions": "._torch_compile",
    # Classes that are made when torch or Keras is there to derive them from.
    "TfModule": "tf_in_torch._tf_module:tf_module_class",
    "TorchLayer": "torch_in_tf._torch_layer:torch_layer_class",
}


# Hidden from type checkers, so that they report a misspelt name.
if not TYPE_CHECKING:
    __getattr__, __dir__ = _lazy.attributes(globals(), _LAZY)
