"""Lists, tuples, dicts and named tuples of any depth, which the extension walks."""

from __future__ import annotations

import collections
import enum
import gc
import sys
import threading
from typing import Any, NamedTuple

import needs
import pytest
import tensorflow as tf
import torch
from hypothesis import strategies as st
from properties import quick_and_thorough
from sharing import in_threads, nothing_kept, owners, tf_bytes, torch_bytes
from ways import TO_TF, TO_TORCH, WAYS, Way

import tensor_bridge
from tensor_bridge.testing import shares_memory


class Point(NamedTuple):
    x: Any
    y: Any = None


Plain = collections.namedtuple("Plain", "first second")


class Level(enum.IntEnum):
    LOW = 1


class Name(str):
    __slots__ = ()


PLAIN = [
    *(None, True, False, 0, -1, 10**50, 1.5, float("inf"), 2 + 3j, "text", "", b"bytes", b""),
    *(Level.LOW, Name("name")),
]


def test_each_container_and_its_leaves(way: Way) -> None:
    a, b, c, d = (way.leaf((i + 1, 2)) for i in range(4))
    source = [a, (b, {"k": c}), Point(d, [a])]
    result = way.convert(source)
    assert type(result) is list
    assert type(result[1]) is tuple
    assert type(result[1][1]) is dict
    assert type(result[2]) is Point
    for leaf, converted in zip(
        (a, b, c, d, a),
        (result[0], result[1][0], result[1][1]["k"], result[2].x, result[2].y[0]),
        strict=True,
    ):
        assert way.is_converted(leaf, converted)


@pytest.mark.parametrize(
    "make",
    [
        lambda x: [x],
        lambda x: (x,),
        lambda x: {"a": x},
        lambda x: Point(x),
        lambda x: Plain(x, x),
        lambda x: [[[[x]]]],
        lambda x: {"a": {"b": {"c": (x, [x])}}},
    ],
)
def test_root_of_any_kind(make: Any, way: Way) -> None:
    source = make(way.leaf())
    result = way.convert(source)
    assert type(result) is type(source)
    assert len(result) == len(source)


def test_source_is_not_changed(way: Way) -> None:
    x = way.leaf()
    inner: list[Any] = [x, None]
    source = {"a": inner, "b": (x,), "c": Point(x, inner)}
    before = repr(source)
    result = way.convert(source)
    assert source["a"] is inner
    assert inner[0] is x
    assert repr(source) == before
    result["a"].append(1)
    result["new"] = 1
    assert len(inner) == 2
    assert len(source) == 3


@pytest.mark.parametrize("value", PLAIN, ids=repr)
def test_plain_data_stays_the_same_object(value: Any, way: Way) -> None:
    source = [way.leaf(), value, (value, {"k": value}), Point(value, value)]
    result = way.convert(source)
    assert result[1] is value
    assert result[2][0] is value
    assert result[2][1]["k"] is value
    assert result[3].x is value
    assert result[3].y is value


def test_tensors_of_the_target_framework_pass_unchanged(way: Way) -> None:
    other = way.other()
    result = way.convert({"leaf": way.leaf(), "others": [other, (other,)]})
    assert result["others"][0] is other
    assert result["others"][1][0] is other


def test_composites_of_the_target_framework_pass_unchanged() -> None:
    sparse = torch.eye(3).to_sparse()
    assert tensor_bridge.to_torch([tf.ones(2), sparse])[1] is sparse
    ragged = tf.ragged.constant([[1.0], [2.0, 3.0]])
    variable = tf.Variable(1.0)
    result = tensor_bridge.to_tf([torch.ones(2), ragged, variable])
    assert result[1] is ragged
    assert result[2] is variable


def test_composites_inside_are_converted() -> None:
    result = tensor_bridge.to_torch(
        {"v": tf.Variable([1.0]), "s": tf.sparse.eye(3), "t": [tf.ones(2)]}
    )
    assert result["v"].tolist() == [1]
    assert result["s"].layout is torch.sparse_coo
    again = tensor_bridge.to_tf(result)
    assert isinstance(again["s"], tf.SparseTensor)


def test_keys_of_any_kind_and_their_order(way: Way) -> None:
    keys = [3, "b", "a", None, (1, 2), 1.5, Level.LOW, frozenset([1]), b"k", "a b'\n"]
    source = {key: way.leaf() for key in keys}
    result = way.convert(source)
    assert list(result) == keys


def test_empty_containers_inside_stay(way: Way) -> None:
    result = way.convert([way.leaf(), [], (), {}, [[], {"a": ()}]])
    assert result[1:] == [[], (), {}, [[], {"a": ()}]]


def test_one_tensor_in_many_places(way: Way) -> None:
    x = way.leaf()
    with owners() as added:
        result = way.convert([x] * 10)
        assert all(way.is_converted(x, r) for r in result)
        assert added() <= 10
        del result


@needs.dtype("int4")
def test_keywords_apply_to_every_leaf() -> None:
    t = TO_TORCH.leaf()
    result = tensor_bridge.to_torch({"a": [t, t]}, copy=True)
    assert not any(shares_memory(t, x) for x in result["a"])
    result = tensor_bridge.to_torch((t, [t]), on_write="raise")
    for x in (result[0], result[1][0]):
        with needs.forbidden_write():
            x.zero_()
    x = torch.tensor([1, -2], dtype=torch.int8)
    result = tensor_bridge.to_tf([x, {"k": x}], dtype="int4", grad="raise")
    assert result[0].dtype == result[1]["k"].dtype == tf.as_dtype("int4")
    w = torch.nn.Parameter(torch.ones(2))
    with pytest.raises(tensor_bridge.InvalidOptionError, match=r"^at \[1\]: grad="):
        tensor_bridge.to_tf([x, w], grad="raise")


@pytest.mark.parametrize("options", [{"copy": 3}, {"nonsense": 1}, {"unknown": "drop"}])
def test_wrong_keywords_are_refused_before_anything_is_converted(
    options: dict[str, Any], way: Way
) -> None:
    with owners(), pytest.raises((tensor_bridge.InvalidOptionError, TypeError)):
        way.convert([way.leaf()], **options)


def test_protection_of_the_leaves(way: Way) -> None:
    x = way.leaf()
    result = way.convert({"a": [x]})["a"][0]
    t, y = (x, result) if way is TO_TORCH else (result, x)
    before = tf_bytes(t)
    y.zero_()
    assert tf_bytes(t) == before
    assert not shares_memory(t, y)


# ---- depth ---------------------------------------------------------------------------------------


def nested(leaf: Any, depth: int, kinds: str) -> Any:
    wrap = {
        "l": lambda v: [v],
        "t": lambda v: (v,),
        "d": lambda v: {"k": v},
        "n": lambda v: Point(v),
        "o": lambda v: collections.OrderedDict(k=v),
    }
    for i in range(depth):
        leaf = wrap[kinds[i % len(kinds)]](leaf)
    return leaf


@pytest.mark.parametrize(("kinds", "depth"), [("l", 700), ("td", 700), ("ldtn", 700), ("o", 80)])
def test_deep_nesting(kinds: str, depth: int, way: Way) -> None:
    x = way.leaf()
    result = way.convert(nested(x, depth, kinds))
    for _ in range(depth):
        result = next(iter(result.values())) if isinstance(result, dict) else result[0]
    assert way.is_converted(x, result)


@pytest.mark.parametrize("kinds", ["l", "td", "n", "o", "lo"])
def test_deeper_than_python_goes_is_a_recursion_error(kinds: str, way: Way) -> None:
    # Python 3.12 and 3.13 allow native code a depth of 10,000 calls.
    source = nested(way.leaf(), 30_000, kinds)
    with owners(), pytest.raises(RecursionError):
        way.convert(source)
    assert tensor_bridge.explain(source).error is RecursionError
    way.convert([way.leaf()])


def cycle(way: Way, kind: str) -> Any:
    x = way.leaf()
    if kind == "list":
        source: Any = [x]
        source.append(source)
    elif kind == "dict":
        source = {"x": x}
        source["again"] = [source]
    elif kind == "tuple":
        source = ([x],)
        source[0].append(source)
    else:
        source = collections.OrderedDict(x=x)
        source["again"] = source
    return source


@pytest.mark.parametrize("kind", ["list", "dict", "tuple", "ordered dict"])
def test_cycles_are_recursion_errors(kind: str, way: Way) -> None:
    with owners():
        source = cycle(way, kind)
        with pytest.raises(RecursionError):
            way.convert(source)
    assert tensor_bridge.explain(source).action == "refused"
    source.clear() if hasattr(source, "clear") else source[0].clear()


# ---- errors --------------------------------------------------------------------------------------


def test_path_of_a_leaf_that_is_refused(way: Way) -> None:
    bad = way.refused()
    for source, path in [
        ([way.leaf(), bad], "[1]"),
        ((way.leaf(), [bad]), "[1][0]"),
        ({"a": {"b c": [bad]}}, "['a']['b c'][0]"),
        (Point(way.leaf(), bad), ".y"),
        ({3: Point([{"x": bad}])}, "[3].x[0]['x']"),
        ({(1, "a"): bad}, "[(1, 'a')]"),
        (collections.OrderedDict(k=[bad]), "['k'][0]"),
        ([collections.deque([way.leaf(), (bad,)])], "[0][1][0]"),
    ]:
        with pytest.raises(way.bad) as caught:
            way.convert(source)
        assert type(caught.value) is way.bad
        assert str(caught.value).startswith(f"at {path}: "), str(caught.value)


@pytest.mark.parametrize("position", [0, 5, 9])
def test_error_in_the_middle_leaks_nothing(position: int, way: Way) -> None:
    leaves = [way.leaf() for _ in range(10)]
    with nothing_kept():
        for bad in (way.refused(), object()):
            broken = [*leaves[:position], bad, *leaves[position:]]
            for source in (broken, tuple(broken), dict(enumerate(broken)), [{"k": broken}]):
                with pytest.raises((way.bad, tensor_bridge.UnsupportedTypeError)):
                    way.convert(source)
    # Leaves that were converted before the error are released; the sources are unchanged.
    for leaf in leaves:
        assert way.is_converted(leaf, way.convert(leaf))


def test_keys_whose_repr_misbehaves(way: Way) -> None:
    class Raises:
        def __repr__(self) -> str:
            raise RuntimeError("no repr")

    class Odd:
        def __init__(self, text: str) -> None:
            self.text = text

        def __repr__(self) -> str:
            return self.text

    for key in (Raises(), Odd("%s {} \ud800"), Odd("a" * 100_000), Odd("\0")):
        with pytest.raises(way.bad, match=r"^at \["):
            way.convert({key: [way.refused()]})


@pytest.mark.parametrize(
    "value",
    [[], (), {}, [None], [[], {"a": ()}], [1, 2.5, "a"], {"a": [True]}, Point(1), Plain(None, ())],
    ids=repr,
)
def test_structure_without_a_leaf_is_a_type_error(value: Any, way: Way) -> None:
    with pytest.raises(tensor_bridge.UnsupportedTypeError, match=f"got a {type(value).__name__}"):
        way.convert(value)
    with pytest.raises(tensor_bridge.UnsupportedTypeError):
        way.convert(value, unknown="keep")
    assert tensor_bridge.explain(value).action == "refused"


def test_structure_of_the_target_framework_alone_has_no_leaf(way: Way) -> None:
    with pytest.raises(tensor_bridge.UnsupportedTypeError, match="without any"):
        way.convert([way.other(), {"a": way.other()}])


def test_the_ctypes_interface_takes_single_tensors_only(way: Way) -> None:
    bridge = tensor_bridge.TensorBridge()
    with pytest.raises(tensor_bridge.UnsupportedTypeError, match="expected a"):
        getattr(bridge, way.name)([way.leaf()])


class MyList(list[Any]):
    pass


class MyDict(dict[str, Any]):
    pass


class MyTuple(tuple[Any, ...]):
    __slots__ = ()


class FakeNamed(tuple[Any, ...]):
    """Claims to have fields, but another number than it has items."""

    _fields = ("a", "b", "c")
    __slots__ = ()


@pytest.mark.parametrize("kind", [MyList, MyTuple, FakeNamed, set, frozenset])
def test_other_containers_are_unknown(kind: type, way: Way) -> None:
    source = [way.leaf(), kind([1, 2])]
    with pytest.raises(
        tensor_bridge.UnsupportedTypeError, match=rf"^at \[1\]: .*{kind.__name__}.*unknown='keep'"
    ):
        way.convert(source)
    assert way.convert(source, unknown="keep")[1] is source[1]


def test_subclass_of_dict_is_unknown(way: Way) -> None:
    with pytest.raises(tensor_bridge.UnsupportedTypeError, match="MyDict"):
        way.convert(MyDict(a=way.leaf()))


def test_named_tuple_with_a_constructor_of_its_own(way: Way) -> None:
    class Strict(Plain):
        __slots__ = ()

        def __new__(cls, *_: Any) -> Any:
            raise AssertionError("the conversion ran the constructor")

    x = way.leaf()
    result = way.convert([tuple.__new__(Strict, (x, 1))])[0]
    assert type(result) is Strict
    assert way.is_converted(x, result.first)


def test_packed_sequence_of_torch_s() -> None:
    packed = torch.nn.utils.rnn.pack_sequence([torch.ones(3), torch.ones(2)])
    result = tensor_bridge.to_tf(packed)
    assert type(result) is type(packed)
    assert TO_TF.is_converted(packed.data, result.data)
    assert result.unsorted_indices is None


# ---- one native pass -----------------------------------------------------------------------------


def test_no_python_function_runs_for_a_leaf(way: Way) -> None:
    source = {"a": [way.leaf() for _ in range(100)], "b": (way.leaf(), Point(way.leaf(), 3))}
    way.convert(source)
    calls: list[Any] = []
    sys.setprofile(lambda frame, event, _: event == "call" and calls.append(frame.f_code.co_name))
    try:
        way.convert(source)
        way.convert(source, copy=None)
    finally:
        sys.setprofile(None)
    # Named tuples are made with their own _make.
    assert set(calls) <= {"_make", "<lambda>"}, calls


def test_thousand_leaves(way: Way) -> None:
    leaves = [way.leaf((i % 7 + 1,)) for i in range(1000)]
    with nothing_kept():
        result = way.convert(leaves)
        assert all(way.is_converted(a, b) for a, b in zip(leaves, result, strict=True))
        del result
        gc.collect()


def test_structure_that_changes_while_it_is_converted(way: Way) -> None:
    source: dict[Any, Any] = {i: [way.leaf((2,))] for i in range(50)}
    stop = threading.Event()

    def change() -> None:
        i = 0
        while not stop.is_set():
            source[i % 100] = [way.leaf((2,))]
            source.pop((i * 7) % 100, None)
            i += 1

    def convert() -> None:
        try:
            for _ in range(50):
                way.convert([way.leaf(), source])
        finally:
            stop.set()

    in_threads(change, convert, timeout=240)


# ---- properties ----------------------------------------------------------------------------------

plain = st.sampled_from(PLAIN)
leaves = st.sampled_from(["leaf", "other"]) | plain.map(lambda v: ("plain", v))
trees = st.recursive(
    leaves,
    lambda children: (
        st.lists(children, max_size=4)
        | st.lists(children, max_size=3).map(tuple).map(lambda t: ("tuple", t))
        | st.dictionaries(st.sampled_from(["a", "b", 1, None]), children, max_size=3)
        | st.tuples(children, children).map(lambda t: Point(*t))
        | st.lists(children, max_size=3).map(lambda v: collections.deque(v, maxlen=5))
        | st.dictionaries(st.sampled_from("xy"), children, max_size=2).map(collections.OrderedDict)
    ),
    max_leaves=12,
)


def build(tree: Any, way: Way) -> Any:
    if tree == "leaf":
        return way.leaf((2,))
    if tree == "other":
        return way.other((2,))
    if type(tree) is tuple:
        kind, value = tree
        return value if kind == "plain" else tuple(build(v, way) for v in value)
    if isinstance(tree, Point):
        return Point(build(tree.x, way), build(tree.y, way))
    if isinstance(tree, dict):
        return type(tree)((k, build(v, way)) for k, v in tree.items())
    if isinstance(tree, collections.deque):
        return collections.deque((build(v, way) for v in tree), maxlen=5)
    return [build(v, way) for v in tree]


def check(source: Any, result: Any, way: Way) -> int:
    """Returns the number of converted leaves, and asserts that everything else is unchanged."""
    if isinstance(source, (tf.Tensor, torch.Tensor)):
        if isinstance(source, way.result):
            assert result is source
            return 0
        assert way.is_converted(source, result)
        return 1
    if isinstance(source, dict):
        assert type(result) is type(source)
        assert list(result) == list(source)
        return sum(check(source[k], result[k], way) for k in source)
    if isinstance(source, (list, tuple, collections.deque)):
        assert type(result) is type(source)
        assert getattr(result, "maxlen", None) == getattr(source, "maxlen", None)
        return sum(check(a, b, way) for a, b in zip(source, result, strict=True))
    assert result is source
    return 0


def count(tree: Any) -> int:
    if isinstance(tree, (tf.Tensor, torch.Tensor)):
        return 1
    if isinstance(tree, dict):
        return sum(map(count, tree.values()))
    return sum(map(count, tree)) if isinstance(tree, (list, tuple, collections.deque)) else 0


def check_tree(tree: Any, name: str) -> None:
    way = WAYS[name]
    source = build(tree, way)
    with owners():
        convertible = "leaf" in repr(tree)
        if not convertible:
            if not isinstance(source, way.result):
                with pytest.raises(tensor_bridge.UnsupportedTypeError):
                    way.convert(source)
            return
        result = way.convert(source)
        assert check(source, result, way) >= 1
        explanation = tensor_bridge.explain(source)
        if not isinstance(source, (tf.Tensor, torch.Tensor)):
            assert len(explanation.leaves) == count(source)
        del result


test_any_tree, test_any_tree_thoroughly = quick_and_thorough(
    check_tree, trees, st.sampled_from(list(WAYS))
)


@needs.shares_to_tf
def test_there_and_back_shares_every_leaf() -> None:
    source = {"a": [TO_TF.leaf(), (TO_TF.leaf(), 3)], "b": Point(TO_TF.leaf())}
    again = tensor_bridge.to_torch(tensor_bridge.to_tf(source))
    assert torch_bytes(again["a"][1][0]) == torch_bytes(source["a"][1][0])
    assert again["b"].x.const_data_ptr() == source["b"].x.const_data_ptr()
