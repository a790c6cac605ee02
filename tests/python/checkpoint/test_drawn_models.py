"""Random models, saved by Keras in every format and loaded into their torch twins.

A twin computes the same as Keras, or it is refused for something that torch's module cannot
compute. A twin with another option is refused, or computes the same.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import keras
import needs
import pytest
import torch
from drawn_faults import change_one
from drawn_files import formats, knows_names, roles, rules
from drawn_models import KerasSide, Twin, draw

import tensor_bridge
from tensor_bridge import MismatchError, checkpoint

pytestmark = [
    needs.keras_3,
    needs.module("tf_keras"),
    pytest.mark.filterwarnings("ignore"),  # of Keras, about its own files and NumPy
]


def library(generation: int) -> Any:
    if generation == 3:
        return keras
    import tf_keras

    return tf_keras


def compute_with(generation: int, dtype: str) -> None:
    """Sets the dtype of new layers and of constants."""
    chosen = library(generation)
    chosen.backend.set_floatx(dtype)
    policies = chosen.config if generation == 3 else chosen.mixed_precision
    getattr(policies, "set_dtype_policy" if generation == 3 else "set_global_policy")(dtype)


@pytest.fixture(params=[2, 3])
def generation(request: pytest.FixtureRequest) -> Iterator[int]:
    """Keras 2 and 3, with 64 bits so that rounding does not matter."""
    compute_with(request.param, "float64")
    yield request.param
    compute_with(request.param, "float32")
    library(request.param).backend.clear_session()


def made(seed: int, generation: int) -> KerasSide:
    # Resets automatic names; clear_session would too, but takes seconds.
    if generation == 3:
        from keras.src.utils import naming

        naming.reset_uids()
    else:
        library(generation).backend.reset_uids()
    return KerasSide(library(generation), draw(seed, generation))


def loaded(twin: Twin, file: checkpoint.Checkpoint, given: list[Any], **options: Any) -> Any:
    # Layers that draw random numbers keep a state beside the weights.
    given = [(r"seed_generator(_\d+)?/", None), *given]
    options.setdefault("flattened", twin.flattened)
    return checkpoint.load_into(twin, file, rules=given, **options)


def known_to_a_user(side: KerasSide, kind: str, file: checkpoint.Checkpoint) -> list[Any]:
    """The rules of a user who knows both models, for facts that the file does not have."""
    given: list[Any] = [] if knows_names(side, kind) else rules(side, file)
    return given if file.layers else [*given, *roles(side)]


def same(side: KerasSide, twin: Twin) -> bool:
    """Whether Keras' model and torch's model have the same output."""
    expected = tensor_bridge.to_torch(side.output)
    with torch.no_grad():
        found = twin.eval()(tensor_bridge.to_torch(side.example))
    return found.shape == expected.shape and torch.allclose(
        found, expected, rtol=1e-5, atol=1e-5, equal_nan=True
    )


class Outcome(Counter[str]):
    """Counts of models that agreed, and of the reasons of refusals."""

    def try_model(self, seed: int, generation: int) -> None:
        side = made(seed, generation)
        causes = set[str]()
        with tempfile.TemporaryDirectory() as folder:
            for kind, write in formats(side, saved_model=seed % 10 == 0).items():
                file = checkpoint.load(write(side, Path(folder)))
                causes |= self._try_file(side, kind, file)
        self["agreed" if not causes else f"refused: {', '.join(sorted(causes))}"] += 1

    def _try_file(self, side: KerasSide, kind: str, file: checkpoint.Checkpoint) -> set[str]:
        """The reasons why the file was refused."""
        drawn = side.drawn
        twin = Twin(drawn, side.paths).double()
        where = f"draw({drawn.seed}, {drawn.generation}), {drawn.style}, {kind}"
        causes = drawn.causes()
        said = bool(file.layers)
        given = known_to_a_user(side, kind, file)
        if given:
            try:
                loaded(twin, file, [])
            except MismatchError:
                pass
            else:
                assert said or causes or same(side, twin), f"{where}: swapped silently"
        twin = Twin(drawn, side.paths).double()
        try:
            made_with = {} if said else {"reset_after": True}
            report = loaded(twin, file, given, made_with=made_with)
        except MismatchError as e:
            if not causes:
                raise AssertionError(f"{where}: refused without a cause") from e
            return causes
        assert report.complete, where
        if not same(side, twin):
            # A file without a configuration cannot tell what only a configuration has.
            assert causes, f"{where}: loaded, but the outputs differ"
            assert not said, f"{where}: {causes} was not seen"
            self[f"the file does not say: {', '.join(sorted(causes))}"] += 1
        return set()


def try_faults(seed: int, generation: int) -> str:
    """Tries a twin with one changed option, and a user who does not mention a flattened image."""
    side = made(seed, generation)
    drawn = side.drawn
    if drawn.style == "subclassed" or drawn.causes():
        return "not described"
    with tempfile.TemporaryDirectory() as folder:
        write = formats(side, saved_model=False)["keras"]
        file = checkpoint.load(write(side, Path(folder)))
        twin = Twin(drawn, side.paths).double()
        fault = "flattened" if twin.flattened else None
        options: dict[str, Any] = {"flattened": {}} if fault else {}
        if fault is None or seed % 3:
            fault, options = change_one(Random(seed), twin), {}
        if fault is None:
            return "nothing to change"
        try:
            loaded(twin, file, [], **options)
        except MismatchError as e:
            report = e.report  # type: ignore[attr-defined]
            where = f"draw({seed}, {generation}), {fault}"
            assert report.differences or report.problems, where
            return f"refused: {fault.rpartition('.')[2]}"
        try:
            equal = same(side, twin)
        except RuntimeError:
            return "an error of torch"  # the sizes of images do not fit, so the user notices
        assert equal, f"draw({seed}, {generation}): {fault} was not seen"
        return "makes no difference"


def agreed(outcome: Outcome) -> float:
    models = {k: n for k, n in outcome.items() if not k.startswith("the file")}
    return outcome["agreed"] / sum(models.values())


def test_drawn_models_compute_the_same_or_are_refused_for_a_cause(generation: int) -> None:
    outcome = Outcome()
    for seed in range(8):
        outcome.try_model(seed, generation)
    assert outcome["agreed"] >= 6, outcome


def test_drawn_twins_with_another_option_are_refused(generation: int) -> None:
    outcome = Counter(try_faults(seed, generation) for seed in range(16))
    assert sum(n for text, n in outcome.items() if text.startswith("refused")) >= 5, outcome


@pytest.mark.exhaustive
@pytest.mark.timeout(7200)
def test_many_drawn_twins_with_another_option(generation: int) -> None:
    outcome = Counter(try_faults(seed, generation) for seed in range(100, 1200))
    print(generation, outcome)
    assert sum(n for text, n in outcome.items() if text.startswith("refused")) >= 300, outcome


@pytest.mark.exhaustive
@pytest.mark.timeout(7200)
def test_many_drawn_models(generation: int) -> None:
    outcome = Outcome()
    for seed in range(100, 1200):
        outcome.try_model(seed, generation)
    print(generation, outcome)
    assert agreed(outcome) >= 0.95, outcome
