"""Where each name of a checkpoint goes, by the rules and the paths of a module."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tensor_bridge.checkpoint.into_module._layouts import is_state, layout_of
from tensor_bridge.checkpoint.into_module._places import Places, joined
from tensor_bridge.checkpoint.into_module._rules import Renamed
from tensor_bridge.checkpoint.read._checkpoint import near_misses

if TYPE_CHECKING:
    from tensor_bridge.checkpoint.into_module._given import Given
    from tensor_bridge.checkpoint.into_module._report import Report


@dataclass
class Destinations:
    """Where names go.

    Attributes:
      groups: For the path of each module, the roles of its weights with the name for each.
      placed: Tensors that rules with a layout name, each with the name that goes there and the
        layout.
    """

    groups: dict[str, dict[str, str]] = field(default_factory=dict)
    placed: dict[str, tuple[str, str]] = field(default_factory=dict)

    def sources(self, places: Places) -> dict[str, list[str]]:
        """The names that each module takes, by its path."""
        found = {path: list(roles.values()) for path, roles in self.groups.items()}
        for target, (name, _) in self.placed.items():
            found.setdefault(places.path_of(target), []).append(name)
        return found


def destinations(
    places: Places, given: Given, changes: Mapping[str, Renamed], report: Report
) -> Destinations:
    """Sorts names by the results of the rules; names without a destination go to the report."""
    found = Destinations()
    for name, change in changes.items():
        if change.name is None:
            report.ignored.append(name)
        elif name in given.several and _is_wanted(change, places):
            paths = " and ".join(given.several[name])
            report.problems.append(
                f"{name}: several variables were called so: {paths}; use names='path'"
            )
        elif change.layout is not None:
            _put(name, change.name, change.layout, places, found, report)
        elif not (given.named(name) or change.by_rule):
            report.unused.append(name)
            report.unnamed.append(name)
        elif (place := places.place(change.name)) is None:
            report.unused.append(name)
        else:
            path, role = place[0], spelled(place[1], name, given)
            if is_state(role) and layout_of(places.modules[path]) is not None:
                report.ignored.append(name)
            else:
                _group(name, path, role, found, report)
    for path in {places.path_of(target) for target in found.placed}:
        if list(found.groups.get(path, ())) == ["bias"]:
            # Beside a weight that a rule places. With one dimension it is the same in both.
            _put(
                found.groups.pop(path)["bias"], joined(path, "bias"), "as_is", places, found, report
            )
    return found


def _is_wanted(change: Renamed, places: Places) -> bool:
    """Whether a name leads anywhere."""
    if change.name is None:
        return False
    find = places.place if change.layout is None else places.tensor
    return find(change.name) is not None


def spelled(rest: str, name: str, given: Given) -> str:
    """The end of a name with the role of the variable instead of its number."""
    outer, _, last = rest.rpartition("/")
    role = given.role(name) if last == name.rpartition("/")[2] else None
    return rest if role is None else f"{outer}/{role}".lstrip("/")


def _group(name: str, path: str, role: str, found: Destinations, report: Report) -> None:
    taken = found.groups.setdefault(path, {})
    if role in taken:
        report.problems.append(f"{path or 'the module'}, {role}: both {taken[role]} and {name}")
    else:
        taken[role] = name


def _put(
    name: str, wanted: str, layout: str, places: Places, found: Destinations, report: Report
) -> None:
    """Notes the destination of a name that a rule with a layout leads to a tensor."""
    target = places.tensor(wanted)
    if target is None:
        advice = near_misses(wanted.replace("/", "."), places.tensors)
        report.problems.append(
            f"{name}: the layout {layout!r} of its rule needs a name of the module's state_dict, "
            f"got {wanted!r}{advice}"
        )
    elif target in found.placed:
        report.problems.append(f"{target}: both {found.placed[target][0]} and {name}")
    else:
        found.placed[target] = name, layout
