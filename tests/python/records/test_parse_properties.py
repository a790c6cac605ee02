"""Drawn specs and drawn messages, whole and damaged, compared with TensorFlow's parsers."""

from __future__ import annotations

from random import Random
from typing import Any

import example_bytes
import pytest
import tensorflow as tf
import torch
from drawn_examples import (
    Drawing,
    assert_agree,
    assert_same,
    mutated,
    parsed,
    parsed_by_tf,
)

from tensor_bridge import records
from tensor_bridge.errors import RecordError

SEEDS = range(4)
EACH = 60


def _examples(seed: int, *, faults: float, damage: bool) -> int:
    """Compares batches and single records, and returns the number that were parsed."""
    good = 0
    for number in range(EACH):
        rng = Random(1000 * seed + number)
        drawing = Drawing(rng, sequence=False, faults=faults)
        ours, theirs, kinds = drawing.spec(rng.randrange(1, 5), lists=False)
        batch = [drawing.record(kinds, []) for _ in range(rng.randrange(5))]
        if damage:
            batch = [mutated(rng, record) for record in batch]
        what = f"seed {1000 * seed + number}"
        got = parsed(lambda batch=batch, ours=ours: records.parse_example(batch, ours))
        if overflows_in_tensorflow(got):
            continue
        want = parsed_by_tf(
            lambda batch=batch, theirs=theirs: tf.io.parse_example(
                tf.constant(batch, tf.string), theirs
            )
        )
        good += assert_agree(got, want, what)
        for record in batch[:1]:
            got = parsed(
                lambda record=record, ours=ours: records.parse_single_example(record, ours)
            )
            if overflows_in_tensorflow(got):
                continue
            want = parsed_by_tf(
                lambda record=record, theirs=theirs: tf.io.parse_single_example(record, theirs)
            )
            try:
                good += assert_agree(got, want, f"{what}, single")
            except AssertionError:
                # If an empty entry follows another, TensorFlow's two parsers differ, and the one of
                # batches is followed. Only damage makes such records here.
                if not damage or isinstance(got, Exception):
                    raise
                one = tf.constant([record], tf.string)
                want = parsed_by_tf(lambda one=one, theirs=theirs: tf.io.parse_example(one, theirs))
                assert_agree(records.parse_example([record], ours), want, f"{what}, a batch of one")
    return good


def overflows_in_tensorflow(got: Any) -> bool:
    """Whether a record has too many floats, which TensorFlow writes past the end of its memory."""
    return isinstance(got, Exception) and "values, got" in str(got)


@pytest.mark.parametrize("seed", SEEDS)
def test_drawn_examples_are_parsed_as_tensorflow_does(seed: int) -> None:
    assert _examples(seed, faults=0, damage=False) > EACH // 2


@pytest.mark.parametrize("seed", SEEDS)
def test_examples_with_faults_are_refused_as_tensorflow_does(seed: int) -> None:
    assert _examples(seed, faults=0.03, damage=False) > EACH // 4


@pytest.mark.parametrize("seed", SEEDS)
def test_damaged_examples_are_read_or_refused_as_tensorflow_does(seed: int) -> None:
    assert _examples(seed, faults=0, damage=True) > 0


def _sequences(seed: int, *, faults: float, damage: bool) -> int:
    good = 0
    for number in range(EACH):
        rng = Random(1000 * seed + number)
        drawing = Drawing(rng, sequence=True, faults=faults)
        context = drawing.spec(rng.randrange(3), lists=False)
        lists = drawing.spec(rng.randrange(1, 4), lists=True)
        batch = [drawing.record(context[2], lists[2]) for _ in range(rng.randrange(1, 4))]
        if damage:
            batch = [mutated(rng, record) for record in batch]
        what = f"seed {1000 * seed + number}"
        got = parsed(
            lambda batch=batch, context=context, lists=lists: records.parse_sequence_example(
                batch, context[0], lists[0]
            )
        )
        # TensorFlow's parser writes past the end of its memory for a truncated sparse string.
        if isinstance(got, Exception) and damage:
            continue
        want = parsed_by_tf(
            lambda batch=batch, context=context, lists=lists: tf.io.parse_sequence_example(
                tf.constant(batch, tf.string), context[1], lists[1]
            )
        )
        assert isinstance(got, Exception) == isinstance(want, Exception), (what, got, want)
        if isinstance(got, Exception):
            continue
        good += 1
        for mine, its, part in zip(got, want, ("context", "sequence", "lengths"), strict=True):
            assert set(mine) == set(its), (what, part)
            for key in mine:
                assert_same(mine[key], its[key], f"{what}, {part}, {key}")
    return good


@pytest.mark.parametrize("seed", SEEDS)
def test_drawn_sequences_are_parsed_as_tensorflow_does(seed: int) -> None:
    assert _sequences(seed, faults=0, damage=False) > EACH // 2


@pytest.mark.parametrize("seed", SEEDS)
def test_sequences_with_faults_are_refused_as_tensorflow_does(seed: int) -> None:
    assert _sequences(seed, faults=0.02, damage=False) > EACH // 4


@pytest.mark.parametrize("seed", SEEDS)
def test_damaged_sequences_that_are_read_are_what_tensorflow_reads(seed: int) -> None:
    assert _sequences(seed, faults=0, damage=True) > 0


def test_a_value_that_differs_is_found() -> None:
    spec = {"x": tf.io.FixedLenFeature((), tf.int64, 1), "v": tf.io.VarLenFeature(tf.string)}
    theirs = tf.io.parse_example(tf.constant([b"", b""]), spec)
    ours = records.parse_example([b"", b""], spec)
    assert_agree(ours, theirs, "equal")
    for other in (
        {**ours, "x": ours["x"] + 1},
        {**ours, "x": ours["x"].to(torch.int32)},
        {**ours, "v": records.parse_example([example_of("a"), b""], spec)["v"]},
        {"x": ours["x"]},
        RecordError("refused"),
    ):
        with pytest.raises(AssertionError):
            assert_agree(other, theirs, "different")


def example_of(string: str) -> bytes:
    """An Example with one string."""
    feature = example_bytes.feature("bytes", [string.encode()])
    return example_bytes.example([("v", feature)])


@pytest.mark.exhaustive
@pytest.mark.parametrize("seed", range(100, 400))
def test_many_drawn_messages(seed: int) -> None:
    for damage in (False, True):
        _examples(seed, faults=0.02, damage=damage)
        _sequences(seed, faults=0.02, damage=damage)
