"""The other kinds of nodes: ordered and default dicts, deques, struct sequences, dataclasses, attrs
classes, what users register with optree, and the containers that Keras and TensorFlow track."""

from __future__ import annotations

import collections
import dataclasses
import time
from collections.abc import Iterator
from typing import Any, ClassVar

import attrs
import needs
import optree
import pytest
import tensorflow as tf
import torch
from sharing import nothing_kept, owners
from ways import TO_TF, TO_TORCH, Way

import tensor_bridge
from tensor_bridge.testing import shares_memory

# ---- classes of the standard library -------------------------------------------------------------


def test_ordered_dict_keeps_its_order(way: Way) -> None:
    source = collections.OrderedDict(b=way.leaf(), a=way.leaf(), c=1)
    source.move_to_end("b")
    result = way.convert(source)
    assert type(result) is collections.OrderedDict
    assert list(result) == ["a", "c", "b"]
    assert way.is_converted(source["a"], result["a"])
    assert list(source) == ["a", "c", "b"]


def test_default_dict_keeps_factory_and_order(way: Way) -> None:
    source = collections.defaultdict(list, {"z": way.leaf(), "a": [way.leaf()], 3: None})
    result = way.convert([source])[0]
    assert type(result) is collections.defaultdict
    assert result.default_factory is list
    assert list(result) == ["z", "a", 3]
    assert way.is_converted(source["a"][0], result["a"][0])
    assert result["new"] == []
    assert "new" not in source


def test_deque_keeps_its_length(way: Way) -> None:
    source = collections.deque([way.leaf(), (way.leaf(),)], maxlen=3)
    result = way.convert({"d": source})["d"]
    assert type(result) is collections.deque
    assert result.maxlen == 3
    assert way.is_converted(source[1][0], result[1][0])


def test_struct_sequences(way: Way) -> None:
    source = [time.localtime(), way.leaf()]
    assert way.convert(source)[0] == source[0]
    found = torch.max(torch.ones(2, 3), dim=0)
    result = tensor_bridge.to_tf(found)
    assert type(result) is torch.return_types.max
    assert shares_memory(result.values, found.values) == needs.SHARES_TO_TF
    assert shares_memory(result.indices, found.indices) == needs.SHARES_TO_TF


def test_registered_subclasses_only(way: Way) -> None:
    class Mine(collections.OrderedDict[str, Any]):
        pass

    with pytest.raises(tensor_bridge.UnsupportedTypeError, match="Mine"):
        way.convert(Mine(a=way.leaf()))


# ---- dataclasses ---------------------------------------------------------------------------------


@dataclasses.dataclass
class Pair:
    first: Any
    second: Any = None
    count: int = 0
    kind: ClassVar[str] = "pair"


@dataclasses.dataclass(frozen=True)
class Frozen:
    first: Any
    second: Any = None


@dataclasses.dataclass(slots=True)
class Slotted:
    first: Any
    second: Any = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FrozenSlotted:
    first: Any
    second: Any = dataclasses.field(default=None, repr=False, compare=False)


@dataclasses.dataclass
class Derived(Pair):
    third: Any = None


@dataclasses.dataclass
class NotByInit:
    first: Any
    second: Any = dataclasses.field(init=False, default=None)


@pytest.mark.parametrize("kind", [Pair, Frozen, Slotted, FrozenSlotted, Derived, NotByInit])
def test_dataclasses_of_every_make(kind: Any, way: Way) -> None:
    source = kind(first=way.leaf())
    object.__setattr__(source, "second", [way.leaf((3,)), "text"])
    result = way.convert(source)
    assert type(result) is kind
    assert way.is_converted(source.first, result.first)
    assert way.is_converted(source.second[0], result.second[0])
    assert result.second[1] == "text"
    assert not way.is_converted(source.first, source.first)
    inside = way.convert({"k": [source]})["k"][0]
    assert way.is_converted(source.first, inside.first)


@dataclasses.dataclass
class RunsCode:
    first: Any
    scale: dataclasses.InitVar[int] = 3
    derived: Any = dataclasses.field(init=False)

    def __post_init__(self, scale: int) -> None:
        assert not getattr(type(self), "forbidden", False), "the conversion ran __post_init__"
        self.derived = scale
        self.extra = "attribute that is no field"


def test_constructor_is_not_run_and_other_attributes_stay(way: Way) -> None:
    source = RunsCode(way.leaf(), scale=5)
    RunsCode.forbidden = True
    try:
        result = way.convert(source)
    finally:
        del RunsCode.forbidden
    assert way.is_converted(source.first, result.first)
    assert result.derived == 5
    assert result.extra == "attribute that is no field"


def test_unset_field_stays_unset(way: Way) -> None:
    source = Slotted(way.leaf())
    del source.second
    result = way.convert(source)
    assert way.is_converted(source.first, result.first)
    assert not hasattr(result, "second")


@dataclasses.dataclass
class Output(collections.OrderedDict[str, Any]):
    """Like the outputs of Hugging Face's models, whose fields are items too."""

    loss: Any = None
    logits: Any = None
    states: Any = None

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if getattr(self, field.name) is not None:
                super().__setitem__(field.name, getattr(self, field.name))

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        super().__setattr__(key, value)

    def __reduce__(self) -> Any:
        return type(self), tuple(getattr(self, f.name) for f in dataclasses.fields(self))


def test_fields_that_are_items_too(way: Way) -> None:
    source = Output(logits=way.leaf(), states=(way.leaf((3,)),))
    result = way.convert(source)
    assert type(result) is Output
    assert list(result) == ["logits", "states"]
    assert result["logits"] is result.logits
    assert way.is_converted(source.logits, result.logits)
    assert way.is_converted(source["states"][0], result["states"][0])
    assert result.loss is None
    assert source["logits"] is source.logits


def test_class_of_a_dataclass_is_no_node(way: Way) -> None:
    with pytest.raises(tensor_bridge.UnsupportedTypeError, match="type"):
        way.convert([way.leaf(), Pair])


def test_path_through_fields(way: Way) -> None:
    source = Pair([Frozen(way.leaf(), {"k": way.refused()})])
    with pytest.raises(way.bad, match=r"^at \.first\[0\]\.second\['k'\]: "):
        way.convert(source)


def test_cycle_through_fields(way: Way) -> None:
    source = Pair(way.leaf())
    source.second = [source]
    with owners(), pytest.raises(RecursionError):
        way.convert(source)
    assert tensor_bridge.explain(source).error is RecursionError
    source.second = None


def test_dataclass_without_a_leaf(way: Way) -> None:
    with pytest.raises(tensor_bridge.UnsupportedTypeError):
        way.convert(Pair(1, "a"))


def test_error_in_a_field_leaks_nothing(way: Way) -> None:
    with nothing_kept(), pytest.raises(way.bad):
        way.convert(Pair([way.leaf() for _ in range(5)], Frozen(way.leaf(), way.refused())))


# ---- attrs ---------------------------------------------------------------------------------------


@attrs.define
class Defined:
    first: Any
    second: Any = None


@attrs.frozen
class FrozenAttrs:
    first: Any
    second: Any = attrs.field(init=False, default=None)


@attrs.define(slots=False)
class Dict:
    first: Any
    second: Any = attrs.field(default=None, alias="other")


@attrs.define
class Private:
    _first: Any
    second: Any = None

    @property
    def first(self) -> Any:
        return self._first


@pytest.mark.parametrize("kind", [Defined, FrozenAttrs, Dict, Private])
def test_attrs_classes_of_every_make(kind: Any, way: Way) -> None:
    source = kind(way.leaf())
    object.__setattr__(source, "second", (way.leaf((3,)), 1))
    result = way.convert([source])[0]
    assert type(result) is kind
    assert way.is_converted(source.first, result.first)
    assert way.is_converted(source.second[0], result.second[0])


def test_validators_and_converters_are_not_run(way: Way) -> None:
    def forbid(*_: Any) -> Any:
        assert not forbidden, "the conversion ran the class's code"

    @attrs.define(on_setattr=forbid)
    class Checked:
        first: Any = attrs.field(validator=forbid)

    forbidden = False
    source = Checked(way.leaf())
    forbidden = True
    result = way.convert(source)
    assert way.is_converted(source.first, result.first)


# ---- registered by users -------------------------------------------------------------------------


class Batch:
    def __init__(self, inputs: Any, labels: Any, note: str) -> None:
        self.inputs, self.labels, self.note = inputs, labels, note


class Elsewhere(Batch):
    pass


@pytest.fixture
def registered() -> Iterator[None]:
    optree.register_pytree_node(
        Batch,
        lambda b: ((b.inputs, b.labels), b.note, ("inputs", "labels")),
        lambda note, children: Batch(*children, note),
        namespace="tensor_bridge",
    )
    optree.register_pytree_node(
        Elsewhere,
        lambda b: ((b.inputs, b.labels), b.note),
        lambda note, children: Elsewhere(*children, note),
        namespace="another library",
    )
    yield
    optree.unregister_pytree_node(Batch, namespace="tensor_bridge")
    optree.unregister_pytree_node(Elsewhere, namespace="another library")


@pytest.mark.usefixtures("registered")
def test_node_that_a_user_registered(way: Way) -> None:
    source = Batch(way.leaf(), [way.leaf((3,))], "noted")
    for result in (way.convert(source), way.convert([{"k": source}])[0]["k"]):
        assert type(result) is Batch
        assert result.note == "noted"
        assert way.is_converted(source.inputs, result.inputs)
        assert way.is_converted(source.labels[0], result.labels[0])
    with pytest.raises(way.bad, match=r"^at \[0\]\['labels'\]\[1\]: "):
        way.convert([Batch(way.leaf(), [1, way.refused()], "")])


@pytest.mark.usefixtures("registered")
def test_other_namespaces_do_not_count(way: Way) -> None:
    with pytest.raises(tensor_bridge.UnsupportedTypeError, match="Elsewhere"):
        way.convert(Elsewhere(way.leaf(), None, ""))


def test_unregistered_node_is_unknown_again(way: Way) -> None:
    with pytest.raises(tensor_bridge.UnsupportedTypeError, match="Batch"):
        way.convert(Batch(way.leaf(), None, ""))


def test_error_of_a_registered_function_comes_through(way: Way) -> None:
    class Broken:
        pass

    class BrokenError(Exception):
        pass

    def fail(_: Any) -> Any:
        raise BrokenError

    optree.register_pytree_node(Broken, fail, fail, namespace="tensor_bridge")
    try:
        with nothing_kept(), pytest.raises(BrokenError):
            way.convert([way.leaf(), Broken()])
        assert tensor_bridge.explain([way.leaf(), Broken()]).action == "refused"
    finally:
        optree.unregister_pytree_node(Broken, namespace="tensor_bridge")


# ---- containers that track their values in frameworks --------------------------------------------

Named = collections.namedtuple("Named", "a b")


def test_lists_and_dicts_of_a_keras_model() -> None:
    model = tf.keras.Model()
    model.things = [TO_TORCH.leaf(), {"a": TO_TORCH.leaf(), "b": (TO_TORCH.leaf(), 1)}]
    assert type(model.things) is not list
    result = tensor_bridge.to_torch(model.things)
    assert type(result) is list
    assert type(result[1]) is dict
    assert TO_TORCH.is_converted(model.things[1]["b"][0], result[1]["b"][0])
    assert tensor_bridge.explain(model.things).action == "shared"


def test_weights_of_a_keras_layer() -> None:
    layer = tf.keras.layers.Dense(3)
    layer.build((None, 2))
    result = tensor_bridge.to_torch(layer.weights)
    assert [tuple(x.shape) for x in result] == [(2, 3), (3,)]


def test_containers_of_a_module_and_of_a_checkpoint() -> None:
    v = tf.Variable([1.0, 2.0])
    tracked = tf.train.Checkpoint()
    tracked.list = [v, [v]]
    tracked.tuple = (v, [v])
    tracked.named = Named(v, 1)
    tracked.ordered = collections.OrderedDict(z=v, a=v)
    tracked.dict = {"z": v, "a": [v]}
    kinds = {
        "list": list,
        "tuple": tuple,
        "named": Named,
        "ordered": collections.OrderedDict,
        "dict": dict,
    }
    for name, kind in kinds.items():
        source = getattr(tracked, name)
        assert type(source) is not kind
        for result in (tensor_bridge.to_torch(source), tensor_bridge.to_torch([source])[0]):
            assert type(result) is kind, name
            values = list(result.values() if isinstance(result, dict) else result)
            assert values[0].tolist() == [1, 2]
        assert tensor_bridge.explain(source).action == "shared", name
    assert list(tensor_bridge.to_torch(tracked.ordered)) == ["z", "a"]


def test_tracked_lists_pass_unchanged_towards_tensorflow() -> None:
    tracked = tf.train.Checkpoint()
    tracked.list = [tf.Variable(1.0), 2]
    result = tensor_bridge.to_tf([TO_TF.leaf(), tracked.list])
    assert result[1][0] is tracked.list[0]


def test_state_dict_of_a_module() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    state = module.state_dict()
    result = tensor_bridge.to_tf(state)
    assert list(result) == list(state)
    shared = {shares_memory(result[k], state[k]) for k in state if state[k].numel()}
    assert shared == {needs.SHARES_TO_TF}
    restored = tensor_bridge.to_torch(result)
    module.load_state_dict(restored)
    assert all(torch.equal(restored[k], state[k]) for k in state)
