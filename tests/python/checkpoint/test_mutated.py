"""Mutated files of the formats that Python reads: a typed error in time, for any contents."""

from __future__ import annotations

import re
import shutil
import warnings
from collections import Counter
from pathlib import Path

import every_format
import mutated_files
import needs
import pytest

pytestmark = needs.keras_3


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each kind, with a folder for each seed, whose name says what to load."""
    folder = tmp_path_factory.mktemp("seeds")
    whole = every_format.model()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras warns when it saves
        made = {
            "joins": every_format.joined(folder / "made" / "joins"),
            "hdf5": every_format.write_hdf5(folder / "made" / "hdf5", whole),
            "archives": every_format.write_archives(folder / "made" / "archives", whole),
            "json": every_format.write_pieces(folder / "made" / "json", whole),
        }
    for kind, paths in made.items():
        for number, path in enumerate(paths.values()):
            name = "." if path.is_dir() else path.name
            target = folder / kind / f"{number}-{name}"
            if kind in ("hdf5", "archives"):
                target.mkdir(parents=True)
                shutil.copy(path, target)
            else:
                shutil.copytree(path if path.is_dir() else path.parent, target)
    return folder


def test_the_seeds_are_read(seeds: Path) -> None:
    for seed in [p for kind in mutated_files.KINDS for p in sorted((seeds / kind).iterdir())]:
        counts: Counter[str] = Counter()
        wrong: list[str] = []
        mutated_files.read_all(seed / re.sub(r"^\d+-", "", seed.name), counts, wrong)
        assert not wrong
        assert counts["read"] > 0, seed
        assert not any("Error" in what for what in counts), (seed, counts)


@pytest.mark.alone
@pytest.mark.parametrize("kind", mutated_files.KINDS)
@pytest.mark.parametrize("count", [60, pytest.param(20_000, marks=pytest.mark.exhaustive)])
def test_a_mutated_file_is_read_or_refused(
    kind: str, count: int, seeds: Path, tmp_path: Path
) -> None:
    outcome = mutated_files.run(kind, seeds, tmp_path, count, seed=19)
    assert outcome.wrong == []
    # If all mutations were refused, or all harmless, the test would find nothing.
    assert outcome.counts["loaded"] > count // 20
    assert sum(n for what, n in outcome.counts.items() if "Error" in what) > count // 20
    print(kind, count, dict(outcome.counts.most_common()))
