"""Names in the package's reports: the doctor, load_into's report, explanations."""

from __future__ import annotations

import ast
import json
from random import Random

import doctor_facts
import pytest
import tensorflow as tf
import torch
from hostile_names import draw, draw_many, unshowable

import tensor_bridge
from tensor_bridge import MismatchError, checkpoint, doctor
from tensor_bridge.checkpoint.into_module._proposal import Proposal
from tensor_bridge.checkpoint.into_module._rules import Rule
from tensor_bridge.doctor._facts import Trial

SEEDS = range(20)


def text(dice: Random) -> str:
    return draw(dice).decode("utf-8", "surrogateescape")


def shown(value: object) -> list[str]:
    lines = str(value)
    assert not unshowable(lines.encode("utf-8", "surrogatepass")), lines
    return lines.split("\n")


@pytest.mark.parametrize("seed", SEEDS)
def test_the_doctor_shows_what_it_found(seed: int) -> None:
    dice = Random(seed)
    path = f"/site/{text(dice)}/libgomp.so.1"
    facts = doctor_facts.facts(
        python=text(dice),
        platform=text(dice),
        adapters=(text(dice),),
        environment={"LD_PRELOAD": text(dice)},
        on_library_path=(f"/{text(dice)}/libtensorflow.so.2", path),
        distributions={"tensorflow": "2.21.0", "torch": "2.13.0", "tensor-bridge": text(dice)},
        trials=(
            *doctor_facts.trials(libraries=[*doctor_facts.LIBRARIES, path], reason=text(dice)),
            Trial(("torch", "tensorflow"), text(dice), "raised", {"error": text(dice)}, text(dice)),
        ),
    )
    report = doctor.examine(facts)
    lines = shown(report)
    assert sum(line.startswith(("error: ", "warning: ", "note: ")) for line in lines) == len(
        report.findings
    )
    assert json.loads(report.to_json())["facts"]["platform"] == facts.platform


@pytest.mark.parametrize("seed", SEEDS)
def test_load_into_shows_names_of_both_sides(seed: int) -> None:
    dice = Random(seed)
    names = [name.decode("utf-8", "surrogateescape") for name in draw_many(dice, 6)]
    module = torch.nn.ModuleDict({name.replace(".", "_"): torch.nn.Linear(2, 3) for name in names})
    source = {f"{name}/kernel": torch.ones(2, 3) for name in names[:3]}
    source |= {f"{name}/odd": torch.ones(7) for name in names[3:]}
    with pytest.raises(MismatchError) as e:
        checkpoint.load_into(module, source)
    assert len(shown(e.value)) > 6


@pytest.mark.parametrize("seed", SEEDS)
def test_a_proposal_can_be_pasted(seed: int) -> None:
    dice = Random(seed)
    rules = tuple(
        Rule(text(dice), dice.choice((None, text(dice))), dice.choice((None, "as_is")))
        for _ in range(6)
    )
    proposal = Proposal(rules, tuple(dice.choice(("", text(dice))) for _ in rules))
    lines = shown(proposal)
    assert len(lines) == len(rules) + 2
    found = ast.literal_eval("\n".join(lines).removeprefix("rules="))
    assert [Rule(*rule) for rule in found] == list(rules)


@pytest.mark.parametrize("seed", SEEDS)
def test_explanations_show_names_of_a_structure(seed: int) -> None:
    dice = Random(seed)
    value = {text(dice): tf.constant([1.0]), text(dice): {text(dice): tf.constant(["a"])}}
    explanation = tensor_bridge.explain(value)
    assert len(shown(explanation)) >= 3
    with pytest.raises(tensor_bridge.TensorBridgeError) as e:
        tensor_bridge.to_torch({text(dice): tf.constant([1.0]), text(dice): object()})
    assert len(shown(e.value)) == 1
