"""A torch.nn.Module as a Keras 3 layer whose weights are its parameters."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import cache
from typing import TYPE_CHECKING, Any

from tensor_bridge import _C, _dtypes, composite
from tensor_bridge._frameworks import ensure_tensorflow
from tensor_bridge.autograd.torch_in_tf import _torch_function
from tensor_bridge.errors import InvalidOptionError, UnsupportedTypeError

if TYPE_CHECKING:
    import torch

    class _Layer:
        """The attributes of keras.layers.Layer that are used here."""

        built: bool
        supports_jit: bool
        compute_dtype: str | None
        variable_dtype: str | None

        def __init__(self, **kwargs: Any) -> None: ...
        def add_weight(self, **kwargs: Any) -> Any: ...
        def get_config(self) -> dict[str, Any]: ...
else:
    _Layer = object


class TorchLayerBase(_Layer):
    """A Keras 3 layer (TensorFlow backend) that is a torch.nn.Module.

    Its weights are the module's parameters and buffers: Keras's optimizers train those that
    required grad; ``save`` and ``save_weights`` store all of them. They share the module's memory
    until either is written. After that the layer's values are the ones used: `pull` gives them to
    the module, and `push` takes the module's values.

    Under a mixed precision policy the module runs under `torch.autocast`, with float32 parameters.
    ``training=`` puts the module into train or eval mode. What it changes in its buffers (the
    statistics of a BatchNorm) is assigned to the weights.

    A module is code, which no model file holds. A layer that is to be saved in a model
    (``model.save``, ``clone_model``) needs a ``factory`` that Keras can find again.

    Args:
      module: The torch.nn.Module. A lazy module must have seen an input.
      factory: Instead of ``module``: a function that returns it, registered with
        ``keras.saving.register_keras_serializable``.
      arguments: Keywords for the factory; JSON must be able to hold them.
      output_signature: Structure of tf.TensorSpec like the module's result, if running the module
        on torch's fake tensors cannot find it.
      **kwargs: The keywords of keras.layers.Layer.

    Raises:
      UnsupportedTypeError: there is no module, or Keras has another backend, or is Keras 2.

    Example:
      >>> import keras, tensorflow as tf, torch
      >>> from tensor_bridge.autograd import TorchLayer
      >>> model = keras.Sequential([keras.Input((3,)), TorchLayer(torch.nn.Linear(3, 1))])
      >>> [tuple(weight.shape) for weight in model.trainable_variables]
      [(1, 3), (1,)]
    """

    def __init__(
        self,
        module: torch.nn.Module | None = None,
        *,
        factory: Callable[..., torch.nn.Module] | None = None,
        arguments: Mapping[str, Any] | None = None,
        output_signature: Any = None,
        **kwargs: Any,
    ) -> None:
        import keras
        import torch

        ensure_tensorflow()
        if not hasattr(keras, "ops"):
            raise UnsupportedTypeError(
                f"expected Keras 3, got Keras {keras.__version__}; TensorFlow 2.16 and newer come "
                "with Keras 3; with this one call the module in a tf.function by "
                "tensor_bridge.autograd.torch_to_tf"
            )
        if (module is None) == (factory is None):
            raise InvalidOptionError("expected module or factory, and not both")
        if factory is not None:
            module = factory(**dict(arguments or {}))
        if not isinstance(module, torch.nn.Module):
            raise UnsupportedTypeError(
                f"expected a torch.nn.Module, got a {type(module).__module__}."
                f"{type(module).__qualname__}; a function without parameters needs no layer: use "
                "tensor_bridge.autograd.torch_to_tf"
            )
        super().__init__(**kwargs)
        # In a list, so that Keras does not look inside.
        self._torch = (module,)
        self._factory = (factory, dict(arguments or {}))
        self._signature = (output_signature,)
        self.supports_jit = False  # XLA has no py_function
        frozen: dict[str, Any] = {}
        trainable: dict[str, Any] = {}
        for name, parameter in module.named_parameters():
            group = trainable if parameter.requires_grad else frozen
            group[name] = self._weight(name, parameter, parameter.requires_grad)
        for name, buffer in module.named_buffers():
            frozen[name] = self._weight(name, buffer, False)
        self._names = (tuple(frozen), tuple(trainable))
        self._buffers = tuple(dict(module.named_buffers()))
        self._values = tuple(frozen.values()), tuple(trainable.values())
        self.built = True

    def _weight(self, name: str, x: torch.Tensor, trainable: bool) -> Any:
        # Keras keeps the initializer, which must not keep a TensorFlow value alive.
        def initial(shape: Any, dtype: Any = None) -> Any:
            return _C.convert_pytorch_to_tf(x)

        return self.add_weight(
            name=name,
            shape=tuple(x.shape),
            dtype=_dtypes.tf_dtype(x.dtype).name,
            initializer=initial,
            trainable=trainable,
            autocast=False,  # torch casts for each operation: see `_autocast`
        )

    @property
    def module(self) -> torch.nn.Module:
        """The torch module. Its parameters have the weights' values after `pull`."""
        return self._torch[0]

    def _pairs(self) -> list[tuple[Any, torch.Tensor]]:
        named = dict(self.module.named_parameters()) | dict(self.module.named_buffers())
        names = [*self._names[0], *self._names[1]]
        variables = [*self._values[0], *self._values[1]]
        return [(v, named[name]) for name, v in zip(names, variables, strict=True)]

    def pull(self) -> None:
        """Gives the module's parameters and buffers the values of the layer's weights."""
        for variable, x in self._pairs():
            x.data = _C.convert_tf_to_pytorch(variable)

    def push(self) -> None:
        """Gives the layer's weights the values of the module's parameters and buffers."""
        for variable, x in self._pairs():
            composite.assign(variable, x.detach())

    def build(self, *shapes: Any, **named: Any) -> None:
        """Nothing is left to build."""

    def call(self, *args: Any, training: Any = None, **kwargs: Any) -> Any:
        """Calls the module."""
        frozen, trainable = self._values
        mode = bool(training)
        call = _torch_function.without_autograph(_torch_function.call)
        signature = self._signature[0]
        if signature is not None:
            signature = (signature, self._moved(mode))
        # Keras's fit never releases its graphs (Keras 3.15, TensorFlow 2.21). A graph must not keep
        # the layer alive; it does not keep the layer's variables alive either.
        reference = weakref.ref(self)

        def functional(*values: Any) -> Any:
            layer = reference()
            if layer is None:
                raise RuntimeError("the TorchLayer that this graph calls is gone")
            return layer._functional(*values)

        functional.__name__ = type(self.module).__name__  # in messages
        result, moved = call(
            functional,
            signature,
            (list(frozen), list(trainable), args, kwargs, mode),
            {},
            constants=len(frozen),
        )
        for variable, value in zip(frozen, moved, strict=True):
            if value is not None:
                variable.assign(value)
        return result

    def _moved(self, mode: bool) -> list[Any]:
        import tensorflow as tf

        return [
            tf.TensorSpec(variable.shape, variable.dtype)
            if mode and name in self._buffers
            else None
            for name, variable in zip(self._names[0], self._values[0], strict=True)
        ]

    def _functional(
        self, frozen: list[Any], trainable: list[Any], args: Any, kwargs: Any, mode: bool
    ) -> Any:
        """The module with these tensors for its parameters and buffers."""
        from torch.func import functional_call

        module = self.module
        if module.training != mode:
            module.train(mode)
        if mode:
            # A clone: a buffer that is written in place keeps TensorFlow's former buffer alive,
            # which keeps that of the step before, and so on: a chain that grows with every step.
            frozen = [
                x.clone() if name in self._buffers else x
                for name, x in zip(self._names[0], frozen, strict=True)
            ]
        names = [*self._names[0], *self._names[1]]
        state = dict(zip(names, [*frozen, *trainable], strict=True))
        with self._autocast(frozen, trainable):
            result = functional_call(module, state, tuple(args), kwargs)
        # All buffers: torch's batch_norm does not raise the version of those that it writes.
        moved = [
            x if mode and name in self._buffers else None
            for name, x in zip(self._names[0], frozen, strict=True)
        ]
        return result, moved

    def _autocast(self, frozen: list[Any], trainable: list[Any]) -> Any:
        """Torch's autocast if Keras's policy is mixed, so that each operation has its own dtype."""
        import torch

        compute = getattr(torch, self.compute_dtype or "", None)
        if compute not in (torch.float16, torch.bfloat16) or self.variable_dtype != "float32":
            return nullcontext()
        devices = {x.device.type for x in (*frozen, *trainable)} or {"cpu"}
        return torch.autocast(devices.pop(), dtype=compute)

    def get_config(self) -> dict[str, Any]:
        """What Keras keeps of the layer.

        Raises:
          UnsupportedTypeError: the layer was made of a module, or its factory is not registered.
        """
        import keras

        factory, arguments = self._factory
        if factory is None:
            raise UnsupportedTypeError(
                "a torch module is code, which no model file holds, so this TorchLayer cannot be "
                "saved in a model. Make it from a registered function: "
                "@keras.saving.register_keras_serializable() on one that returns the module, then "
                "TorchLayer(factory=that, arguments={...}); or save the weights only: "
                "model.save_weights()"
            )
        name = keras.saving.get_registered_name(factory)
        if keras.saving.get_registered_object(name) is not factory:
            raise UnsupportedTypeError(
                f"the factory {name!r} of this TorchLayer is not registered, so a loaded model "
                "could not find it; decorate it with @keras.saving.register_keras_serializable()"
            )
        if self._signature[0] is not None:
            raise UnsupportedTypeError(
                "a TorchLayer with output_signature= cannot be saved in a model; save the weights "
                "only: model.save_weights()"
            )
        return {**super().get_config(), "factory": name, "arguments": arguments}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Any:
        """The layer that `get_config` described; its factory has to be registered here too.

        Raises:
          UnsupportedTypeError: it is not registered.
        """
        import keras

        config = dict(config)
        name = config.pop("factory")
        factory = keras.saving.get_registered_object(name)
        if factory is None:
            raise UnsupportedTypeError(
                f"the model has a TorchLayer whose factory {name!r} is not registered in this "
                "process; import the code that registers it, or give custom_objects="
            )
        return cls(factory=factory, **config)


@cache
def torch_layer_class() -> type[TorchLayerBase]:
    """The class, made when Keras is there to derive it from.

    Raises:
      UnsupportedTypeError: Keras has another backend than TensorFlow.
    """
    ensure_tensorflow()
    import keras

    if keras.backend.backend() != "tensorflow":
        raise UnsupportedTypeError(
            f"expected Keras with the TensorFlow backend, got {keras.backend.backend()!r}; set "
            "KERAS_BACKEND=tensorflow before Keras is imported"
        )
    members = {"__doc__": TorchLayerBase.__doc__, "__module__": "tensor_bridge.autograd"}
    made = type("TorchLayer", (TorchLayerBase, keras.layers.Layer), members)
    # Keras 2.12 has that function only here.
    registered: type[TorchLayerBase] = keras.utils.register_keras_serializable("tensor_bridge")(
        made
    )
    return registered
