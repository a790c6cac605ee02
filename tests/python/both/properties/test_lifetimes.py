"""Any sequence of conversions, views, writes, updates and releases, compared with a model."""

from __future__ import annotations

from typing import Any

import needs
import pytest
import tensorflow as tf
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule
from tf_bytes import row_named, tf_memory, tf_tensor, torch_memory

import tensor_bridge
from tensor_bridge.testing import live_owners

INTERFACES = (tensor_bridge, tensor_bridge.TensorBridge())
SIZE = 16
contents = st.binary(min_size=SIZE, max_size=SIZE)


class Storage:
    """The model of a torch storage: its bytes, and whether they are writable."""

    def __init__(self, content: bytes, on_write: str) -> None:
        self.content = bytearray(content)
        self.on_write = on_write
        self.views = 0


class View:
    """A torch tensor, and the part of the model that it must show."""

    def __init__(self, x: torch.Tensor, storage: Storage, start: int, stop: int) -> None:
        self.x = x
        self.storage = storage
        self.start, self.stop = start, stop
        storage.views += 1

    def expected(self) -> bytes:
        return bytes(self.storage.content[self.start : self.stop])


class Lifetimes(RuleBasedStateMachine):
    """TensorFlow values and torch views of them, and which writes each of them sees."""

    sources = Bundle("sources")
    views = Bundle("views")

    def __init__(self) -> None:
        super().__init__()
        self.owners_before = live_owners()
        self.sources_alive: dict[int, tuple[Any, bytes]] = {}
        self.views_alive: list[View] = []
        self.next_key = 0

    def _add_source(self, value: Any, content: bytes) -> int:
        self.next_key += 1
        self.sources_alive[self.next_key] = value, content
        return self.next_key

    @rule(target=sources, content=contents)
    def make_tensor(self, content: bytes) -> int:
        return self._add_source(tf_tensor(row_named("uint8"), (SIZE,), content), content)

    @rule(target=sources, content=contents)
    def make_variable(self, content: bytes) -> int:
        value = tf.Variable(tf_tensor(row_named("uint8"), (SIZE,), content))
        return self._add_source(value, content)

    @rule(target=sources, source=sources)
    def make_alias(self, source: int) -> int:
        value, content = self.sources_alive.get(source, (None, b""))
        if value is None:
            return source
        return self._add_source(tf.identity(value), content)

    @rule(
        target=views,
        source=sources,
        interface=st.sampled_from(INTERFACES),
        on_write=st.sampled_from(["copy", "copy", "raise"]),
    )
    def convert(self, source: int, interface: Any, on_write: str) -> View | None:
        value, content = self.sources_alive.get(source, (None, b""))
        if value is None:
            return None
        x = interface.to_torch(value, on_write=on_write)
        view = View(x, Storage(content, on_write), 0, SIZE)
        self.views_alive.append(view)
        return view

    @rule(target=views, view=views, start=st.integers(0, SIZE), length=st.integers(0, SIZE))
    def take_view(self, view: View | None, start: int, length: int) -> View | None:
        if view is None or view.x is None:
            return None
        size = view.stop - view.start
        start = min(start, size)
        stop = min(start + length, size)
        made = View(view.x[start:stop], view.storage, view.start + start, view.start + stop)
        self.views_alive.append(made)
        return made

    @rule(view=views, byte=st.integers(0, 255))
    def write(self, view: View | None, byte: int) -> None:
        if view is None or view.x is None or view.x.numel() == 0:
            return
        if view.storage.on_write == "raise":
            with needs.forbidden_write():
                view.x.fill_(byte)
            return
        view.x.fill_(byte)
        view.storage.content[view.start : view.stop] = bytes([byte]) * (view.stop - view.start)

    @rule(source=sources, content=contents)
    def assign(self, source: int, content: bytes) -> None:
        value, _ = self.sources_alive.get(source, (None, b""))
        if isinstance(value, tf.Variable):
            value.assign(tf_tensor(row_named("uint8"), (SIZE,), content))
            self.sources_alive[source] = value, content

    @rule(source=sources, byte=st.integers(0, 255))
    def assign_add(self, source: int, byte: int) -> None:
        value, content = self.sources_alive.get(source, (None, b""))
        if isinstance(value, tf.Variable):
            value.assign_add(tf.fill([SIZE], tf.constant(byte, tf.uint8)))
            added = bytes((old + byte) % 256 for old in content)
            self.sources_alive[source] = value, added

    @rule(source=consumes(sources))
    def drop_source(self, source: int) -> None:
        self.sources_alive.pop(source, None)

    @rule(view=consumes(views))
    def drop_view(self, view: View | None) -> None:
        if view is not None and view.x is not None:
            view.x = None  # type: ignore[assignment]
            view.storage.views -= 1
            self.views_alive.remove(view)

    @invariant()
    def everybody_sees_what_is_theirs(self) -> None:
        for value, content in self.sources_alive.values():
            assert tf_memory(value) == content
        for view in self.views_alive:
            assert torch_memory(view.x) == view.expected()

    @invariant()
    def owners_are_counted(self) -> None:
        storages = {id(view.storage) for view in self.views_alive}
        assert live_owners() == self.owners_before + len(storages)

    def teardown(self) -> None:
        for view in self.views_alive:
            view.x = None  # type: ignore[assignment]
        assert live_owners() == self.owners_before


TestLifetimes = Lifetimes.TestCase
TestLifetimes.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, derandomize=True, database=None
)


@pytest.mark.exhaustive
class TestLifetimesThoroughly(Lifetimes.TestCase):
    settings = settings(max_examples=3000, stateful_step_count=60, deadline=None)
