"""The layer of each group of a weight file of Keras 3 and late Keras 2.

Such a file has a group for each object, at the path of the attributes that lead to it, and in it a
group "vars" (keras/src/saving/saving_lib.py, _save_state). Objects in a list or dict are counted by
their classes, "dense", "dense_1"; so are the layers of a model, in "layers". That is no name: the
configuration says which layer is meant, or from Keras 3.6 on the attribute "name" of "vars".
Not for: .h5 files with the variables' own names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, partial

from tensor_bridge.checkpoint.read._keras_config import Node

# The layers of a model, in Keras 2.12 to 2.14 under the second name.
_LAYERS = ("layers", "_layer_checkpoint_dependencies")
# Layers whose attribute has another name than the key in their configuration.
_CONFIGURED_AS = {"forward_layer": "layer", "backward_layer": "layer"}
_CLASSES = {"GroupQueryAttention": "GroupedQueryAttention"}
_MODELS = re.compile(r"(functional|sequential)(_\d+)?")


@dataclass(frozen=True)
class Group:
    """The meaning of a group of a file.

    Attributes:
      name: The layer's path by its name; if the name is not known, the path in the file.
      named: Whether the layer's name is known.
    """

    name: str
    named: bool


def find_names(
    paths: Iterable[str],
    stored: Callable[[str], str | None],
    model: Callable[[], Node | None],
    keras: int,
) -> dict[str, Group]:
    """The meaning of each group, by its path in the file.

    Args:
      paths: The paths of the groups that have "vars"; "" for the model itself.
      stored: The attribute "name" for such a path.
      model: The configuration; called only if it is needed.
      keras: 2 or 3, the version that wrote the file; 0 if that is not known.
    """
    return _Finder(paths, stored, model, keras).found


@dataclass(frozen=True)
class _Place:
    """A group still to be examined; ``node`` returns its configuration."""

    path: str
    group: Group
    node: Callable[[], Node | None]


class _Finder:
    def __init__(
        self,
        paths: Iterable[str],
        stored: Callable[[str], str | None],
        model: Callable[[], Node | None],
        keras: int,
    ) -> None:
        self._objects = set(paths)
        self._stored, self._keras = stored, keras
        self._children: dict[str, set[str]] = {}
        for path in self._objects:
            while path:
                outer, _, last = path.rpartition("/")
                of = self._children.setdefault(outer, set())
                if last in of:
                    break
                of.add(last)
                path = outer
        self.found: dict[str, Group] = {}
        # No recursion: the file decides how deep groups are nested.
        self._waiting = [_Place("", Group("", True), model)]
        while self._waiting:
            place = self._waiting.pop()
            self.found[place.path] = place.group
            self._look_into(place)

    def _look_into(self, place: _Place) -> None:
        for child in self._children.get(place.path, ()):
            path, name = _join(place.path, child), _join(place.group.name, child)
            if path in self._objects:
                node = _held(place.node, child)
                self._waiting.append(_Place(path, Group(name, place.group.named), node))
            elif child in _LAYERS:
                self._look_into_layers(place, child)
            else:
                self._look_into_container(path, name)

    def _look_into_container(self, path: str, name: str) -> None:
        """Objects in a list or dict of the program; their positions in it are not known."""
        pending = [(path, name)]
        while pending:
            path, name = pending.pop()
            for child in self._children.get(path, ()):
                inner, called = _join(path, child), _join(name, child)
                if inner in self._objects:
                    self._waiting.append(_Place(inner, Group(called, False), _nothing))
                else:
                    pending.append((inner, called))

    def _look_into_layers(self, place: _Place, container: str) -> None:
        path = _join(place.path, container)
        groups = sorted(self._children[path])
        nodes = cache(lambda: _assigned(place.node(), groups, self._keras))
        names = self._names_of_layers(place, path, groups, nodes)
        for group in groups:
            inner, known = _join(path, group), group in names
            name = _join(place.group.name, names[group] if known else f"{container}/{group}")
            if inner in self._objects:
                here = Group(name, place.group.named and known)
                self._waiting.append(_Place(inner, here, partial(_of, nodes, group)))
            else:
                self._look_into_container(inner, name)

    def _names_of_layers(
        self, place: _Place, path: str, groups: list[str], nodes: Callable[[], dict[str, Node]]
    ) -> dict[str, str]:
        """The names of the layers that have one; each name belongs to only one layer."""
        stored = {group: self._stored(_join(path, group)) for group in groups}
        certain = self._is_model(place, groups)
        said: dict[str, Node] = {}
        if not certain or None in stored.values():
            said = nodes()
            node = place.node()
            certain = certain or (node is not None and node.is_model)
        attributes = self._children[place.path] - {*_LAYERS, "optimizer"}
        classes = {re.sub(r"_\d+$", "", group) for group in groups}
        found: dict[str, list[str]] = {}
        for group, name in stored.items():
            configured = said[group].name if group in said else ""
            doubtful = not certain and (attributes or _is_automatic(name or "", classes))
            if name is not None and (doubtful or configured not in ("", name)):
                continue
            name = name or configured
            if name and not {"layers", "vars"} & set(name.split("/")):
                found.setdefault(name, []).append(group)
        return {
            of[0]: name for name, of in found.items() if len(of) == 1 and name not in attributes
        }

    def _is_model(self, place: _Place, groups: list[str]) -> bool:
        """Whether the file shows that layers are listed by a model that Keras itself built.

        In a custom class, "layers" holds only the layers whose attribute comes later in the
        alphabet. Such a layer is known by its attribute; the name that Keras gave it may be the
        attribute of another layer.
        """
        kind = place.path.rpartition("/")
        if kind[0].rpartition("/")[2] in _LAYERS and _MODELS.fullmatch(kind[2]):
            return True
        if _MODELS.fullmatch(self._stored(place.path) or ""):
            return True
        return any(re.fullmatch(r"input_layer(_\d+)?", group) for group in groups)


def _nothing() -> None:
    return None


def _join(outer: str, last: str) -> str:
    return f"{outer}/{last}" if outer else last


def _of(nodes: Callable[[], dict[str, Node]], group: str) -> Node | None:
    return nodes().get(group)


def _held(outer: Callable[[], Node | None], attribute: str) -> Callable[[], Node | None]:
    """The part of a layer's configuration for an attribute."""

    def node() -> Node | None:
        found = outer()
        if found is None:
            return None
        other = _CONFIGURED_AS.get(attribute, attribute)
        nodes = found.inner.get(attribute) or found.inner.get(other) or ()
        return nodes[0] if len(nodes) == 1 else None

    return node


def _is_automatic(name: str, classes: set[str]) -> bool:
    """Whether Keras would give such a name to a layer of one of the classes."""
    return name in classes or re.sub(r"_\d+$", "", name) in classes


def _snake_case(class_name: str) -> str:
    """Does the same as Keras' naming.to_snake_case."""
    name = re.sub(r"\W+", "", _CLASSES.get(class_name, class_name))
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def _is_input(layers: list[Node]) -> bool:
    return [layer.class_name for layer in layers] == ["InputLayer"]


def _assigned(model: Node | None, groups: list[str], keras: int) -> dict[str, Node]:
    """The layer for each group that counts a class."""
    layers = [part for part in model.layers if part.is_layer] if model is not None else []
    if model is not None and model.registered == "Sequential" and _is_input(layers[:1]):
        layers = layers[1:]
    by_class: dict[str, list[Node]] = {}
    for layer in layers:
        by_class.setdefault(_snake_case(layer.class_name), []).append(layer)
    numbered: dict[str, dict[int, str]] = {}
    for group in groups:
        counted = re.fullmatch(r"(.+)_([1-9]\d{0,8})", group)
        base, number = (counted[1], int(counted[2])) if counted else (group, 0)
        if counted and group in by_class:
            # The first layer of a class whose name ends in a number, or a further one of another.
            base, number = (group, 0) if base not in by_class else ("", 0)
        if base in by_class:
            numbered.setdefault(base, {})[number] = group
    found: dict[str, Node] = {}
    for base, groups_of in numbered.items():
        of_class = dict(enumerate(by_class[base]))
        if keras != 3:
            # Keras 2.14 on does not count a layer that has a group elsewhere, 2.12 and 2.13 count
            # one with weights twice. Either way the order is that of the model.
            first = [layer for layer in by_class[base] if not layer.again]
            of_class = dict(zip(sorted(groups_of), first, strict=False))
            if len(groups_of) != len(first):
                continue
        found.update((group, of_class[n]) for n, group in groups_of.items() if n in of_class)
    return found
