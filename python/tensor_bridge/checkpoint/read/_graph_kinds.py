"""Decides from the object graph which variables of a checkpoint are weights.

The graph has no class names. Classes of TensorFlow, Keras and Sonnet are recognised by the objects
to which they refer; a name alone never makes a variable one of an optimizer or a metric.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Sequence

from tensor_bridge.checkpoint.read._names import VALUE
from tensor_bridge.checkpoint.read._object_graph import Node

_STEPS = {"_iterations", "iter", "iterations", "step", "step_counter"}
_POWERS = {"beta1_power", "beta2_power"}
_SETTINGS = {"iter", "decay", "learning_rate", "momentum", "rho", "beta_1", "beta_2", "loss_scale"}
# Lists that Keras keeps beside a model's attributes, with the same objects.
_LISTS = {
    "variables",
    "trainable_variables",
    "non_trainable_variables",
    "_all_variables",
    "keras_api",
}
# The attribute of a Keras 3 optimizer that refers to the weights it trains.
_TRAINED = "_trainable_variables"
# Variables of Keras' metrics (tf_keras/src/metrics). Unlike the weights of layers, they have no
# scope before their names.
_METRICS = {
    frozenset(names.split())
    for names in (
        "total",
        "total count",
        "accumulator",
        "true_positives false_positives",
        "true_positives false_negatives",
        "true_positives true_negatives false_positives false_negatives",
        "true_positives false_positives false_negatives weights_intermediate",
        "total_confusion_matrix",
        "squared_sum sum residual count",
        "squared_sum sum residual num_samples",
    )
}
# Deeper than any model; limits the cost of the path of an object.
_DEPTH = 100

_Ways = dict[int, tuple[int, str, int]]
"""How each object is reached: from which object, by which name, in how many steps."""


class GraphKinds:
    """The result for a graph.

    Attributes:
      kinds: "slot", "counter" or "state", for the key of each variable that is not a weight.
      called: The name of each key's variable in TensorFlow.
    """

    def __init__(self, nodes: Sequence[Node]) -> None:
        """Classifies the objects of a checkpoint."""
        self._nodes = [_within(node, len(nodes)) for node in nodes]
        self._lists = {
            number
            for number, node in enumerate(self._nodes)
            if not node.values and all(map(str.isdigit, node.children))
        }
        self.kinds: dict[str, str] = {}
        self.called: dict[str, str] = {}
        self._owners: dict[str, int] = {}
        optimizers, others = self._apart()
        hidden = optimizers | others
        self._ways = self._reached([0], lambda name, to: name not in _LISTS and to not in hidden)
        inside = self._reached(sorted(optimizers), lambda name, _: name != _TRAINED)
        kinds = {to: _kind_in_optimizer(name) for to, (_, name, _) in inside.items()}
        kinds.update((to, "state") for i in others for to in self._nodes[i].children.values())
        listed: list[tuple[str, str]] = []
        for number, node in enumerate(self._nodes):
            for attribute, full_name, key in node.values:
                self.called[key] = full_name
                self._owners[key] = number
                if _bare(full_name).endswith("seed_generator_state"):
                    self.kinds[key] = "state"
                elif attribute != VALUE or number in self._ways:
                    continue
                elif number in kinds:
                    self.kinds[key] = kinds[number]
                else:
                    listed.append((_bare(full_name), key))
        # An export of Keras 2 has only lists. One such name by itself may be that of a weight.
        there = {name for name, _ in listed}
        whole = {n for names in _METRICS if len(names) > 1 and names <= there for n in names}
        self.kinds.update((key, "state") for name, key in listed if name in whole)

    def path(self, key: str, parts: Sequence[str]) -> Sequence[str]:
        """Returns the attributes that lead to a weight.

        Its key has the shortest path, ``parts``. If that leads through an optimizer or one of
        Keras' lists, the shortest path that does not is used, if there is one.
        """
        if not _LISTS.union([_TRAINED]).intersection(parts):
            return parts
        number = self._owners.get(key, -1)
        if number not in self._ways:
            return parts
        path: list[str] = []
        while number:
            number, name, _ = self._ways[number]
            path.append(name)
        return path[::-1]

    def _apart(self) -> tuple[set[int], set[int]]:
        """Numbers of the optimizers, and of metrics, loss scales and generators of numbers."""
        optimizers: set[int] = set()
        others: set[int] = set()
        lists: set[int] = set()  # of metrics, which a SavedModel of Keras 2 has
        for number, node in enumerate(self._nodes):
            if "keras_api" in node.children:
                lists.add(self._nodes[node.children["keras_api"]].children.get("metrics", 0))
            if self._is_optimizer(node):
                optimizers.add(number)
            elif self._is_state(node):
                others.add(number)
        for number in lists - {0}:
            others.update(self._nodes[number].children.values())
        return optimizers - {0}, others - {0}

    def _is_list(self, node: Node, name: str) -> bool:
        return node.children.get(name, -1) in self._lists

    def _is_optimizer(self, node: Node) -> bool:
        names = node.children
        if node.slots:  # of TensorFlow 1, Keras 2 before 2.11
            return True
        if "_iterations" in names:  # Keras since
            return self._is_list(node, "_variables")
        if "iter" in names and names.keys() <= _SETTINGS:  # Keras 2, without slots
            return "decay" in names or "learning_rate" in names
        # Sonnet: sonnet/src/optimizers.
        if "step" in names:
            return self._is_list(node, "m") and self._is_list(node, "v")
        if "mom" in names:
            return self._is_list(node, "mom") and self._is_list(node, "ms")
        return self._is_list(node, "accumulated_momentum")

    def _is_state(self, node: Node) -> bool:
        names = node.children
        if "_state_var" in names or {"current_loss_scale", "good_steps"} <= names.keys():
            return True
        called = (
            full_name
            for child in names.values()
            for attribute, full_name, _ in self._nodes[child].values[:1]
            if attribute == VALUE
        )
        return frozenset(map(_bare, called)) in _METRICS

    def _reached(self, starts: Sequence[int], enter: Callable[[str, int], bool]) -> _Ways:
        """Breadth first, in the order of the attributes: as TensorFlow finds the paths of keys."""
        ways: _Ways = {start: (start, "", 0) for start in starts if start < len(self._nodes)}
        waiting = deque(ways)
        while waiting:
            number = waiting.popleft()
            depth = ways[number][2] + 1
            for name, to in self._nodes[number].children.items():
                if to not in ways and depth <= _DEPTH and enter(name, to):
                    ways[to] = (number, name, depth)
                    waiting.append(to)
        return ways


def _within(node: Node, count: int) -> Node:
    """The node without references to missing objects."""
    if all(child < count for child in node.children.values()):
        return node
    return node._replace(children={n: to for n, to in node.children.items() if to < count})


def _kind_in_optimizer(name: str) -> str:
    """The kind of a variable to which an optimizer refers by this name."""
    if name.isdigit():  # in a list, with one for each weight
        return "slot"
    return "counter" if name in _STEPS | _POWERS else "state"


def _bare(full_name: str) -> str:
    """The name of a variable without the suffix that makes it unique."""
    return re.sub(r"(_\d+)?(:\d+)?$", "", full_name)
