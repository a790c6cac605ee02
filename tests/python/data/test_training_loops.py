"""Training loops of other libraries over our data on two ranks: each element as often as promised.

If the loop divides the elements among ranks, the same loop over a torch dataset gives the expected
result; otherwise each element must come once.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import needs
import pytest
from pages import ROOT, Page
from rank_pair import RankPair

pytestmark = [
    pytest.mark.alone,
    *map(needs.module, ("accelerate", "lightning", "torchdata", "transformers")),
]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RankPair]:
    pair = RankPair(tmp_path_factory.mktemp("ranks") / "errors")
    yield pair
    pair.close()


# ---- the judges ----------------------------------------------------------------------------------


def each_once(ranks: RankPair, name: str, draw: dict[str, Any]) -> None:
    """Every element on one rank, in each epoch."""
    seen = ranks.run(name, **draw)
    for epoch in zip(*seen, strict=True):
        assert sorted(i for rank in epoch for i in rank) == list(range(draw["length"])), seen


def as_the_peer(ranks: RankPair, name: str, draw: dict[str, Any]) -> None:
    """The elements of each rank, in the order of a torch dataset."""
    ours, theirs = (ranks.run(name, **draw, ours=ours) for ours in (True, False))
    if name == "trainer_loop":  # another test checks the addresses that it returns
        ours, theirs = ([rank[:2] for rank in both] for both in (ours, theirs))
    assert ours == theirs
    assert any(rank for rank in ours)


def in_step(ranks: RankPair, name: str, draw: dict[str, Any]) -> None:
    """The same number of batches on each rank, and no element twice in an epoch."""
    seen = ranks.run(name, **draw)
    batches = -(-draw["length"] // draw["batch"]) // 2
    for part in range(2):  # training, evaluation
        steps = [rank[part] for rank in seen]
        assert [len(rank) for rank in steps] == 2 * [2 * batches]
        for start in (0, batches):
            epoch = Counter(i for rank in steps for b in rank[start : start + batches] for i in b)
            assert max(epoch.values()) == 1
            assert set(epoch) <= set(range(draw["length"]))
            assert len(epoch) > draw["length"] - 2 * draw["batch"]


def in_step_by_record(ranks: RankPair, name: str, draw: dict[str, Any]) -> None:
    """Like `in_step`, for loaders that divide records, not batches."""
    seen = ranks.run(name, **draw)
    share = draw["length"] // 2
    batches = -(-share // draw["batch"])
    for part in range(2):  # training, evaluation
        for start in (0, batches):
            epoch = [
                i for rank in seen for batch in rank[part][start : start + batches] for i in batch
            ]
            assert len(set(epoch)) == len(epoch) == 2 * share, seen


def each_once_in_steps(ranks: RankPair, name: str, draw: dict[str, Any]) -> None:
    """Every element on one rank in each epoch, as often in training as in evaluation."""
    seen = ranks.run(name, **draw)
    for part in range(2):
        counts = Counter(i for rank in seen for batch in rank[part] for i in batch)
        assert counts == dict.fromkeys(range(draw["length"]), 2), seen


Case = tuple[Callable[[RankPair, str, dict[str, Any]], None], str, dict[str, Any]]
LOOPS: dict[str, Case] = {
    **{
        f"plain {kind}": (each_once, "plain", {"kind": kind})
        for kind in ("loader", "dataloader", "stateful")
    },
    "accelerate loader": (each_once, "accelerate_loop", {"kind": "loader"}),
    **{
        f"accelerate {kind} {dispatch}": (
            as_the_peer,
            "accelerate_loop",
            {"kind": kind, "dispatch": dispatch},
        )
        for kind in ("dataloader", "stateful")
        for dispatch in (None, True, False)
    },
    **{
        f"trainer {dispatch}": (
            as_the_peer,
            "trainer_loop",
            {"kind": "dataset", "dispatch": dispatch},
        )
        for dispatch in (None, False)
    },
    "plain records": (each_once, "plain", {"kind": "loader", "source": "records"}),
    "accelerate records": (each_once, "accelerate_loop", {"kind": "loader", "source": "records"}),
    "trainer records": (
        in_step_by_record,
        "trainer_loop",
        {"kind": "loader", "source": "records"},
    ),
    "lightning records": (
        in_step_by_record,
        "lightning_loop",
        {"kind": "loader", "source": "records"},
    ),
    # Datasets by number: samplers share them out.
    **{
        f"{loop} {source} {kind}": (as_the_peer, name, {"kind": kind, "source": source})
        for source in ("by_number", "tfds")
        for loop, name, kind in (
            ("accelerate", "accelerate_loop", "dataloader"),
            ("accelerate", "accelerate_loop", "stateful"),
            ("trainer", "trainer_loop", "dataset"),
            ("lightning", "lightning_loop", "dataloader"),
        )
    },
    **{
        f"plain iterable {kind}": (each_once, "plain", {"kind": kind, "source": "iterable"})
        for kind in ("dataloader", "stateful")
    },
    **{
        f"accelerate iterable {dispatch}": (
            as_the_peer,
            "accelerate_loop",
            {"kind": "dataloader", "source": "iterable", "dispatch": dispatch},
        )
        for dispatch in (None, True, False)
    },
    **{
        f"trainer iterable {dispatch}": (
            as_the_peer,
            "trainer_loop",
            {"kind": "dataset", "source": "iterable", "dispatch": dispatch},
        )
        for dispatch in (None, False)
    },
    "lightning iterable": (
        each_once_in_steps,
        "lightning_loop",
        {"kind": "dataloader", "source": "iterable", "shard": "data"},
    ),
    "trainer loader": (in_step, "trainer_loop", {"kind": "loader"}),
    "lightning loader": (in_step, "lightning_loop", {"kind": "loader"}),
    "lightning dataloader": (in_step, "lightning_loop", {"kind": "dataloader"}),
}


def drawn(loop: str, number: int) -> dict[str, Any]:
    draw = random.Random(f"{loop} {number}")
    judge, _, options = LOOPS[loop]
    batch = draw.randint(1, 5)
    files = 0
    if judge not in (
        in_step,
        in_step_by_record,
    ):  # by file, only the elements tell how many there are
        files = draw.choice([0, 0, 1, 3, 5])
    shortest = 1 if judge is each_once or judge is as_the_peer else 2 * batch
    length = draw.randint(shortest, max(shortest, 30))
    if judge is each_once_in_steps:  # each rank has to have as many steps
        length -= length % (2 * batch)
    values = {
        **options,
        "batch": batch,
        "length": length,
        "seed": draw.choice([None, 1, 7]),
        "world_first": draw.random() < 0.5,
        "files": files,
    }
    if options.get("source") == "iterable":
        values["seed"] = None
        # The Trainer cannot compute it without a length: two epochs, or training ends within one.
        two_epochs = 2 * -(-length // (2 * batch))
        values["max_steps"] = draw.choice([two_epochs, draw.randint(1, two_epochs)])
    if options.get("kind") in ("dataloader", "stateful") and "dispatch" in options:
        values["stateful"] = draw.random() < 0.5
        values["breaks"] = draw.random() < 0.3
    if loop.startswith("plain"):
        policies = ["auto", "data"] + ["file"] * (files >= 2)
        values["shard"] = draw.choice(policies)
    if loop.startswith("lightning"):
        values["module"] = draw.random() < 0.5
    if loop in ("accelerate loader", "accelerate records"):
        values["stateful"], values["breaks"] = draw.random() < 0.5, draw.random() < 0.3
        values["dispatch"] = draw.choice([None, True, False])
    return values


QUICK = (
    "plain loader",
    "plain stateful",
    "accelerate loader",
    "accelerate dataloader None",
    "accelerate dataloader False",
    "trainer None",
    "lightning loader",
    "plain records",
    "accelerate records",
    "trainer records",
    "lightning records",
    "accelerate by_number dataloader",
    "trainer by_number dataset",
    "lightning by_number dataloader",
    "accelerate tfds stateful",
    "plain iterable stateful",
    "accelerate iterable False",
    "trainer iterable None",
    "trainer iterable False",
    "lightning iterable",
)


@pytest.mark.parametrize("loop", QUICK)
def test_no_element_is_lost_or_seen_twice(ranks: RankPair, loop: str) -> None:
    judge, name, _ = LOOPS[loop]
    judge(ranks, name, drawn(loop, 0))


@pytest.mark.exhaustive
@pytest.mark.parametrize("loop", LOOPS)
def test_no_element_is_lost_or_seen_twice_in_any_draw(ranks: RankPair, loop: str) -> None:
    judge, name, _ = LOOPS[loop]
    for number in range(1, 21):
        draw = drawn(loop, number)
        try:
            judge(ranks, name, draw)
        except AssertionError as e:
            raise AssertionError(f"draw {number}: {draw}") from e


def test_the_judges_find_what_is_lost(ranks: RankPair) -> None:
    lost = {"kind": "dataloader", "length": 8, "shard": "all"}
    with pytest.raises(AssertionError):
        each_once(ranks, "plain", lost)


@pytest.mark.exhaustive
def test_a_rank_that_fails_is_told_at_once_and_the_next_run_has_new_ranks(ranks: RankPair) -> None:
    started = time.monotonic()
    with pytest.raises(AssertionError, match="rank 1 fails"):
        ranks.run("fail_on_one_rank", length=1)
    assert time.monotonic() - started < 60
    each_once(ranks, "plain", {"kind": "loader", "length": 8, "shard": "data"})


# ---- accelerate ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dispatch", "more"),
    [
        (None, {}),
        (False, {}),
        (None, {"source": "iterable"}),
        (False, {"source": "iterable"}),
        (False, {"source": "iterable", "context": "fork"}),
        # Dispatched from workers by fork, only the first rank raises: the others read nothing.
        (None, {"source": "iterable", "context": "spawn"}),
    ],
)
def test_what_would_be_shared_out_twice_is_refused(
    ranks: RankPair, dispatch: bool | None, more: dict[str, Any]
) -> None:
    for text in ranks.run("accelerate_shared_twice", dispatch=dispatch, **more):
        assert "some elements would reach no rank" in text


@pytest.mark.parametrize("inner", [None, "other"])
def test_accelerate_steps_at_the_end_of_a_prepared_loader(
    ranks: RankPair, inner: str | None
) -> None:
    # The batches are those of our passes, not copies; dispatched batches are always copies.
    draw = {"length": 16, "inner": inner}
    (taken, ours), *_ = ranks.run("accelerate_accumulates", kind="loader", **draw)
    (peers, _), *_ = ranks.run("accelerate_accumulates", kind="dataloader", **draw)
    assert taken == peers == [[False, False, True, True]] * 2
    assert all(ours)


def test_accelerate_alone_adds_no_copy(ranks: RankPair) -> None:
    for kind in ("loader", "dataloader"):
        draw = {"kind": kind, "length": 10, "dispatch": False}  # which concatenates, by default
        for taken, own in ranks.run("accelerate_accumulates", alone=True, **draw):
            assert taken == [[False, False, True, False, True]] * 2
            assert all(own)


@pytest.mark.parametrize("by_rank", [False, True])
def test_accelerate_checkpoints(ranks: RankPair, tmp_path: Path, by_rank: bool) -> None:
    """Each rank has its own file; accelerate's single file for all is left out with a warning."""
    draw = {"kind": "loader", "length": 16, "seed": 1, "stop": 1, "folder": str(tmp_path)}
    straight = ranks.run("plain", kind="loader", length=16, seed=1, shard="auto", epochs=2)
    seen = ranks.run("accelerate_checkpoint", by_rank=by_rank, **draw)
    for (parts, told), whole in zip(seen, straight, strict=True):
        assert told >= 1
        before, rest, following = parts
        assert (before + rest if by_rank else rest) == whole[0]
        assert following == whole[1]


def test_accelerate_alone_saves_and_loads_the_position(ranks: RankPair, tmp_path: Path) -> None:
    draw = {"kind": "loader", "length": 16, "seed": 1, "stop": 1, "folder": f"{tmp_path}/@RANK"}
    straight = ranks.run("plain", kind="loader", length=16, seed=1, shard="all", epochs=2)
    seen = ranks.run("accelerate_checkpoint", alone=True, **draw)
    for ((before, rest, following), told), whole in zip(seen, straight, strict=True):
        assert told == 0
        assert [before + rest, following] == whole


# ---- transformers' Trainer -----------------------------------------------------------------------


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", ["dataset", "loader"])
def test_the_trainer_trains_twice(ranks: RankPair, kind: str) -> None:
    draw = {"kind": kind, "length": 8, "seed": 2}
    once, twice = (ranks.run("trainer_loop", twice=twice, **draw) for twice in (False, True))
    for first, both in zip(once, twice, strict=True):
        assert both[0] == 2 * first[0]


@pytest.mark.parametrize("checkpoint", [pytest.param(3, marks=pytest.mark.exhaustive), 6])
def test_the_trainer_resumes(ranks: RankPair, tmp_path: Path, checkpoint: int) -> None:
    draw = {"kind": "dataset", "length": 16, "seed": 2, "save": 3, "folder": str(tmp_path)}
    straight = ranks.run("trainer_loop", **draw)
    path = str(tmp_path / f"checkpoint-{checkpoint}")
    for whole, rest in zip(straight, ranks.run("trainer_loop", resume=path, **draw), strict=True):
        assert rest[0] == whole[0][checkpoint:]


def test_the_trainer_says_where_it_does_not_know_the_epoch(ranks: RankPair, tmp_path: Path) -> None:
    draw = {"kind": "loader", "length": 16, "seed": 2, "save": 3, "folder": str(tmp_path)}
    ranks.run("trainer_loop", **draw)
    with pytest.raises(AssertionError, match=r"skip_first_batches\(\) does not say"):
        ranks.run("trainer_loop", resume=str(tmp_path / "checkpoint-6"), **draw)


def test_the_trainer_adds_no_copy(ranks: RankPair) -> None:
    # On several ranks the Trainer moves batches from "cpu" to "cpu:0", which copies.
    for seen, _, own in ranks.run("trainer_loop", kind="loader", length=8, alone=True):
        assert sorted(i for batch in seen for i in batch) == sorted(2 * list(range(8)))
        assert len(own) == 16
        assert all(own)


# ---- Lightning -----------------------------------------------------------------------------------


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("step", [1, 4, pytest.param(7, marks=pytest.mark.exhaustive)])
def test_lightning_resumes(ranks: RankPair, tmp_path: Path, step: int, alone: bool) -> None:
    """In the middle of an epoch, and right after its last batch."""
    draw = {"kind": "loader", "length": 8 if alone else 16, "seed": 1, "alone": alone}
    folder = f"{tmp_path}/@RANK" if alone else str(tmp_path)
    straight = ranks.run("lightning_loop", folder=folder, **draw)
    rest = ranks.run("lightning_loop", resume=f"{folder}/step={step}.ckpt", **draw)
    for rank, (whole, part) in enumerate(zip(straight, rest, strict=True)):
        assert len(whole[0]) == 8
        assert part[0] == whole[0][step:]
        assert all(whole[3])  # batches share the memory of our passes
        assert whole[4] == []
        assert len(part[4]) == (not alone and rank == 1)  # this rank has the other's state


def test_lightning_saves_the_position_of_an_augmented_pipeline(
    ranks: RankPair, tmp_path: Path
) -> None:
    draw = {"kind": "loader", "length": 8, "seed": 1, "random": True, "alone": True}
    folder = f"{tmp_path}/@RANK"
    straight = ranks.run("lightning_loop", folder=folder, **draw)
    rest = ranks.run("lightning_loop", resume=f"{folder}/step=2.ckpt", **draw)
    for whole, part in zip(straight, rest, strict=True):
        assert part[0] == whole[0][2:]
        assert len(whole[4]) == 1  # of eight checkpoints
        assert "RandomUniform, which starts anew" in whole[4][0]


def test_lightning_is_told_of_a_length_that_nobody_knows(ranks: RankPair, tmp_path: Path) -> None:
    draw = {"kind": "loader", "unknown_length": True, "folder": str(tmp_path)}
    for *_, told in ranks.run("lightning_loop", **draw):
        assert len(told) <= 1  # only the first rank saves
        assert all("assert_cardinality" in text for text in told)


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", ["loader", "dataloader"])
def test_lightning_predicts(ranks: RankPair, kind: str) -> None:
    for _, validated, predicted, own, _told in ranks.run(
        "lightning_loop", kind=kind, length=16, predict=True
    ):
        assert predicted == validated[:4]
        assert all(own)


# ---- the guides ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["accelerate", "trainer", "lightning"])
def test_the_code_of_the_guides_on_two_ranks(ranks: RankPair, name: str) -> None:
    blocks = [block.text for block in Page(ROOT / f"docs/guides/{name}.md").blocks("python")]
    seen = Counter(i for rank in ranks.run("guide", blocks=blocks) for i in rank)
    assert sorted(seen) == list(range(16))
    assert len(set(seen.values())) == 1


# ---- plain loops ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["loader", "stateful"])
def test_a_pass_is_left_and_resumed(ranks: RankPair, kind: str) -> None:
    straight = ranks.run("plain", kind="loader", length=16, seed=1, shard="auto", epochs=1)
    for stop in range(4):
        seen = ranks.run("left_and_resumed", kind=kind, length=16, seed=1, stop=stop)
        assert seen == straight
