"""A TensorFlow callable as a torch.nn.Module whose parameters are its variables."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, NoReturn

from tensor_bridge import _refusals
from tensor_bridge._frameworks import ensure_tensorflow
from tensor_bridge._options import checks_keywords
from tensor_bridge.autograd.tf_in_torch import _mirror
from tensor_bridge.autograd.tf_in_torch._tf_function import TfFunction, tf_to_torch
from tensor_bridge.errors import UnsupportedTypeError

if TYPE_CHECKING:

    class _Module:
        """The attributes of torch.nn.Module that are used here."""

        training: bool
        _parameters: dict[str, Any]
        _buffers: dict[str, Any]

        def __init__(self) -> None: ...
        def register_parameter(self, name: str, param: Any) -> None: ...
        def register_buffer(self, name: str, tensor: Any) -> None: ...
        def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None: ...
        def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None: ...
else:
    _Module = object


def _variables_of(fn: Any, given: Iterable[Any] | None) -> list[Any]:
    if given is not None:
        return list(given)
    found = getattr(fn, "variables", None)
    if found is None or callable(found):
        raise UnsupportedTypeError(
            f"expected an object that knows its variables (a Keras layer or model, a tf.Module, a "
            f"signature of a SavedModel), got {_refusals.a_class(fn)}; give them: "
            "TfModule(fn, variables=[...])"
        )
    variables = list(found)
    if not variables and getattr(fn, "built", True) is False:
        raise UnsupportedTypeError(
            f"expected a model with variables, got {_refusals.a_class(fn)} that is not built "
            "yet: call it once on data, or model.build(input_shape), then wrap it"
        )
    return variables


def _name_of(variable: Any) -> str:
    name = getattr(variable, "path", None) or variable.name
    return str(name).split(":")[0].replace(".", "_") or "variable"


def _takes_training(fn: Any) -> bool:
    target = getattr(fn, "call", fn)  # Keras
    target = getattr(target, "python_function", target)  # tf.function
    try:
        return "training" in inspect.signature(target).parameters
    except (TypeError, ValueError):
        return False


class TfModuleBase(_Module):
    """A torch.nn.Module that is a TensorFlow function, layer or model.

    Its parameters are the trainable variables and its buffers the other variables, named by their
    paths. They share the variables' memory until one side is written. A torch optimizer steps the
    parameters; the next call, and `push`, give TensorFlow the new values with one assign each,
    without a copy. Changes by TensorFlow (statistics of a BatchNormalization, loaded weights) reach
    the parameters and buffers at the next call, at `pull` and at `state_dict`. If both sides
    changed a variable, the next call raises `GradientError`.

    ``train()`` and ``eval()`` set the argument ``training`` of a callable that has one, unless the
    call gives it.

    Args:
      fn: A Keras layer or model that is built, a tf.Module with ``__call__``, a signature of a
        SavedModel, or any TensorFlow callable together with ``variables``.
      variables: The variables, if ``fn`` does not tell them or some are to be left out. The
        trainable ones become parameters.
      graph: Whether the calls run as one `tf.function`, traced once for each signature.
      sparse: Whether `tf.IndexedSlices` gradients become sparse torch gradients.
      higher_order: As for `tf_to_torch`.

    Raises:
      UnsupportedTypeError: ``fn`` is not callable, does not tell its variables, or is not built.

    Example:
      >>> import tensorflow as tf, torch
      >>> from tensor_bridge.autograd import TfModule
      >>> dense = tf.keras.layers.Dense(1, kernel_initializer="ones")
      >>> dense.build((None, 2))
      >>> module = TfModule(dense)
      >>> optimizer = torch.optim.SGD(module.parameters(), lr=0.5)
      >>> module(torch.tensor([[1.0, 2.0]])).sum().backward()
      >>> optimizer.step()
      >>> module(torch.tensor([[1.0, 2.0]]))
      tensor([[0.]], grad_fn=<TensorFlowCallBackward>)
      >>> dense.kernel.numpy().tolist()
      [[0.5], [0.0]]
    """

    @checks_keywords
    def __init__(
        self,
        fn: Callable[..., Any],
        *,
        variables: Iterable[Any] | None = None,
        graph: bool = False,
        sparse: bool = False,
        higher_order: bool | None = None,
    ) -> None:
        super().__init__()
        tensorflow = ensure_tensorflow()
        target = tf_to_torch(fn).fn
        self.fn = fn
        self._takes_training = _takes_training(fn)
        mirrors: dict[str, _mirror.Mirror] = {}
        for variable in _variables_of(fn, variables):
            trainable = bool(getattr(variable, "trainable", True))
            mirror = _mirror.Mirror(variable, trainable)
            # A name that is taken, by nn.Module or by another variable, is changed.
            name, number = _name_of(variable), 0
            while hasattr(self, name):
                number += 1
                name = f"{_name_of(variable)}_{number}"
            if trainable:
                self.register_parameter(name, mirror.own)
            else:
                self.register_buffer(name, mirror.own)
            mirrors[name] = mirror
        self._mirrors = mirrors
        if graph:
            target = tensorflow.function(lambda *a, **k: fn(*a, **k), autograph=False)
        self._function: TfFunction[Any] = TfFunction(
            target, tuple(mirrors.values()), sparse, higher_order
        )

    def _tensors(self) -> list[Any]:
        """The tensors that stand for the variables now, in the order of the mirrors."""
        parameters, buffers = self._parameters, self._buffers
        return [parameters[n] if n in parameters else buffers[n] for n in self._mirrors]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the TensorFlow function with torch values for its variables."""
        if self._takes_training and "training" not in kwargs:
            kwargs["training"] = self.training
        return self._function.call_with(self._tensors(), args, kwargs)

    def pull(self) -> None:
        """Gives the parameters and buffers the values of the variables."""
        for mirror, x in zip(self._mirrors.values(), self._tensors(), strict=True):
            mirror.pull(x, force=True)

    def push(self) -> None:
        """Gives the variables the values of the parameters and buffers."""
        for mirror, x in zip(self._mirrors.values(), self._tensors(), strict=True):
            mirror.force(x)

    def _each(self) -> Iterator[tuple[_mirror.Mirror, Any]]:
        for mirror, x in zip(self._mirrors.values(), self._tensors(), strict=True):
            mirror.own = x
            yield mirror, x

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        for mirror, x in self._each():
            mirror.pull(x)
        super()._save_to_state_dict(destination, prefix, keep_vars)

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        for name, (mirror, x) in zip(self._mirrors, list(self._each()), strict=True):
            if prefix + name in state_dict:
                mirror.force(x)

    def __deepcopy__(self, memo: Any) -> NoReturn:
        raise UnsupportedTypeError(
            "a TfModule cannot be copied, because its variables are TensorFlow's; copy the "
            "TensorFlow model (tf.keras.models.clone_model) and wrap the copy"
        )

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise UnsupportedTypeError(
            "a TfModule cannot be pickled, because its variables are TensorFlow's; save its "
            "state_dict(), and wrap the TensorFlow model again where it is loaded"
        )

    def extra_repr(self) -> str:
        """The callable and its number of variables."""
        name = getattr(self.fn, "name", None) or getattr(self.fn, "__name__", "")
        return f"{type(self.fn).__name__} {name!r}, {len(self._mirrors)} variables"


@cache
def tf_module_class() -> type[TfModuleBase]:
    """The class, made when torch is there to derive it from."""
    import torch

    members = {"__doc__": TfModuleBase.__doc__, "__module__": "tensor_bridge.autograd"}
    return type("TfModule", (TfModuleBase, torch.nn.Module), members)
