"""Rules for known models: with the original's names, torch has the original's outputs.

The original is built with TensorFlow, its own names and random weights, and saved. The outputs of
the torch class with the loaded weights are compared with the original's outputs.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import original_efficientnet as efficientnet
import original_models as original
import pytest
import tensorflow as tf
import torch
from torch import nn
from tree import ROOT

from tensor_bridge import MismatchError, checkpoint
from tensor_bridge.checkpoint import rules

transformers = pytest.importorskip("transformers", reason="transformers is not installed")

DATA = ROOT / "tests/data/checkpoints"

Outputs = dict[str, torch.Tensor]
DRAWN = np.random.default_rng(3)
IDS = DRAWN.integers(1, 30, (2, 9))
SEGMENTS = DRAWN.integers(0, 2, (2, 9))
MASK = np.arange(9) < np.array([[9], [6]])
TARGETS = DRAWN.integers(1, 30, (2, 7))
PICTURES = DRAWN.normal(size=(2, 32, 32, 3)).astype(np.float32)


def assert_equal(given: torch.Tensor, right: torch.Tensor, rtol: float = 1e-5) -> None:
    """Asserts equality up to `rtol` of the largest value; the order of float32 sums may differ."""
    assert given.shape == right.shape
    assert torch.isfinite(right).all()
    # The two samples must differ; otherwise the input, and so some weights, would have no effect.
    assert (right[0] - right[-1]).abs().max() > 0.01 * right.abs().max()
    assert (given - right).abs().max() <= rtol * max(1.0, float(right.abs().max()))


def loaded(model: Any, source: Any, used: Any) -> Any:
    """The model in evaluation mode, after a load without missing and unused weights."""
    before = {name: x.clone() for name, x in model.state_dict().items()}
    report = checkpoint.load_into(model, source, rules=used)
    assert report.complete
    # No weight has kept its initial value.
    for name, x in model.state_dict().items():
        assert name.endswith("num_batches_tracked") or not torch.equal(x, before[name]), name
    return model.eval()


def assert_every_weight_matters(model: nn.Module, output: torch.Tensor) -> None:
    """The output depends on every weight; otherwise equal outputs would not prove them right."""
    output.square().mean().backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None, name
        # This bias is the same for each key, so the softmax cancels it.
        if not name.endswith("attention.self.key.bias"):
            effect = (weight.grad * weight.detach()).abs().sum()
            assert effect > 1e-4 * output.square().mean(), name


# --- BERT -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Outputs]]:
    folder = tmp_path_factory.mktemp("bert")
    made: dict[str, tuple[Path, Outputs]] = {}

    def get(head: str) -> tuple[Path, Outputs]:
        if head not in made:
            prefix = folder / f"{head}.ckpt"
            build = getattr(original, f"bert_{head}")
            inputs = {"ids": IDS, "segments": SEGMENTS, "mask": MASK}
            made[head] = prefix, original.save(build, prefix, **inputs)
        return made[head]

    return get


def bert_model(kind: str, **options: Any) -> Any:
    config = transformers.BertConfig(
        vocab_size=30,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=12,
        hidden_act="gelu_new",
        **options,
    )
    return getattr(transformers, kind)(config)


def run_bert(model: Any) -> Any:
    return model(
        input_ids=torch.tensor(IDS),
        token_type_ids=torch.tensor(SEGMENTS),
        attention_mask=torch.tensor(MASK).long(),
    )


def test_bert_with_the_heads_of_pretraining(bert: Any) -> None:
    prefix, right = bert("pretraining")
    model = loaded(bert_model("BertForPreTraining"), prefix, rules.BERT)
    found = run_bert(model)
    assert_equal(found.prediction_logits, right["predictions"])
    assert_equal(found.seq_relationship_logits, right["relationship"])
    outputs = (found.prediction_logits.flatten(1), found.seq_relationship_logits)
    assert_every_weight_matters(model, torch.cat(outputs, 1))
    # One table with two names.
    assert model.cls.predictions.decoder.weight is model.bert.embeddings.word_embeddings.weight


@pytest.mark.parametrize("head", ["pretraining", "classifier", "squad"])
def test_bert_without_a_head(head: str, bert: Any) -> None:
    prefix, right = bert(head)
    found = run_bert(loaded(bert_model("BertModel"), prefix, rules.BERT_MODEL))
    if head == "pretraining":
        assert_equal(found.last_hidden_state, right["sequence"])
        assert_equal(found.pooler_output, right["pooled"])


def test_bert_classifier(bert: Any) -> None:
    prefix, right = bert("classifier")
    model = bert_model("BertForSequenceClassification", num_labels=3)
    assert_equal(run_bert(loaded(model, prefix, rules.BERT)).logits, right["logits"])


def test_bert_with_a_classifier_of_tokens(bert: Any) -> None:
    """Saved like by programs derived from run_classifier.py, with an unused pooler."""
    prefix, _ = bert("classifier")
    model = bert_model("BertForTokenClassification", num_labels=3)
    loaded(model, prefix, [("^bert/pooler/", None), *rules.BERT])
    weights = tf.train.load_variable(str(prefix), "output_weights")
    assert torch.equal(model.classifier.weight, torch.from_numpy(weights))


def test_bert_that_answers_questions(bert: Any) -> None:
    prefix, right = bert("squad")
    model = bert_model("BertForQuestionAnswering")
    # torch's class has no pooler.
    with pytest.raises(MismatchError, match="unused: bert/pooler/dense/kernel"):
        checkpoint.load_into(model, prefix, rules=rules.BERT)
    found = run_bert(loaded(model, prefix, [("^bert/pooler/", None), *rules.BERT]))
    assert_equal(found.start_logits, right["start"])
    assert_equal(found.end_logits, right["end"])


@pytest.mark.parametrize(
    ("kind", "dropped", "output"),
    [
        ("BertForMaskedLM", "^bert/pooler/|^cls/seq_relationship/", "predictions"),
        ("BertForNextSentencePrediction", "^cls/predictions/", "relationship"),
    ],
)
def test_bert_with_one_head_of_two(kind: str, dropped: str, output: str, bert: Any) -> None:
    prefix, right = bert("pretraining")
    model = loaded(bert_model(kind), prefix, [(dropped, None), *rules.BERT])
    assert_equal(run_bert(model).logits, right[output])


def test_a_bert_that_others_made() -> None:
    """Made by google-research/bert, with the same number of variables as the original here."""
    prefix = DATA / "keras_bert_test/bert_model.ckpt"
    sizes = original.Sizes(words=15, places=16, hidden=4, inner=16, heads=4)
    inputs = {"ids": IDS % 15, "segments": SEGMENTS, "mask": MASK}
    right = original.restore(
        functools.partial(original.bert_pretraining, sizes=sizes), prefix, **inputs
    )
    config = transformers.BertConfig(
        vocab_size=sizes.words,
        hidden_size=sizes.hidden,
        num_hidden_layers=2,
        num_attention_heads=sizes.heads,
        intermediate_size=sizes.inner,
        max_position_embeddings=sizes.places,
        hidden_act="gelu_new",
    )
    model: Any = transformers.BertForPreTraining(config).eval()
    assert checkpoint.load_into(model, prefix, rules=rules.BERT).complete
    found = model(
        input_ids=torch.tensor(inputs["ids"]),
        token_type_ids=torch.tensor(SEGMENTS),
        attention_mask=torch.tensor(MASK).long(),
    )
    assert_equal(found.prediction_logits, right["predictions"])
    assert_equal(found.seq_relationship_logits, right["relationship"])


# --- T5 -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["1.0", "1.1", "multilingual"])
def t5(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Outputs, Any]:
    release = request.param
    prefix = tmp_path_factory.mktemp("t5") / "model.ckpt-1000"
    inputs = {"ids": IDS, "mask": MASK, "targets": TARGETS}
    right = original.save(original.T5(release), prefix, **inputs)
    family = "MT5" if release == "multilingual" else "T5"
    config = getattr(transformers, f"{family}Config")(
        vocab_size=30,
        d_model=16,
        d_kv=6,
        d_ff=24,
        num_layers=2,
        num_heads=2,
        relative_attention_num_buckets=original.T5.BUCKETS,
        relative_attention_max_distance=original.T5.DISTANCE,
        feed_forward_proj="relu" if release == "1.0" else "gated-gelu",
        tie_word_embeddings=release == "1.0",
    )
    return prefix, right, lambda kind: getattr(transformers, f"{family}{kind}")(config)


def untie(model: Any) -> None:
    """Gives the logits separate weights; transformers 5 ties them in spite of the configuration."""
    model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone())


def test_t5(t5: tuple[Path, Outputs, Any]) -> None:
    prefix, right, make = t5
    model = make("ForConditionalGeneration")
    has_logits = "decoder/logits/kernel" in checkpoint.load(prefix)
    if has_logits:
        with pytest.raises(MismatchError, match=r"lm_head\.weight and shared\.weight share memory"):
            checkpoint.load_into(model, prefix, rules=rules.T5)
        untie(model)
    loaded(model, prefix, rules.T5)
    found = model(
        input_ids=torch.tensor(IDS),
        attention_mask=torch.tensor(MASK).long(),
        decoder_input_ids=torch.tensor(TARGETS),
    )
    # Positions after the end of an input are not used.
    assert_equal(found.encoder_last_hidden_state[MASK], right["encoded"][MASK])
    assert_equal(found.logits, right["logits"])
    assert_every_weight_matters(model, found.logits)
    assert (model.lm_head.weight is model.shared.weight) != has_logits


def test_the_encoder_of_t5(t5: tuple[Path, Outputs, Any]) -> None:
    prefix, right, make = t5
    model = loaded(make("EncoderModel"), prefix, rules.T5_ENCODER)
    found = model(input_ids=torch.tensor(IDS), attention_mask=torch.tensor(MASK).long())
    assert_equal(found.last_hidden_state[MASK], right["encoded"][MASK])


# --- GPT-2 ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outputs]:
    prefix = tmp_path_factory.mktemp("gpt2") / "model.ckpt"
    return prefix, original.save(original.gpt2, prefix, ids=IDS)


def gpt2_model(kind: str) -> Any:
    config = transformers.GPT2Config(
        vocab_size=30,
        n_embd=16,
        n_layer=2,
        n_head=2,
        n_positions=12,
        bos_token_id=0,
        eos_token_id=0,
    )
    return getattr(transformers, kind)(config)


def test_gpt2(gpt2: tuple[Path, Outputs]) -> None:
    prefix, right = gpt2
    model: Any = loaded(gpt2_model("GPT2LMHeadModel"), prefix, rules.GPT2)
    found = model(torch.tensor(IDS)).logits
    assert_equal(found, right["logits"])
    assert_every_weight_matters(model, found)
    assert model.lm_head.weight is model.transformer.wte.weight


def test_gpt2_without_a_head(gpt2: tuple[Path, Outputs]) -> None:
    prefix, right = gpt2
    model = loaded(gpt2_model("GPT2Model"), prefix, rules.GPT2_MODEL)
    assert_equal(model(torch.tensor(IDS)).last_hidden_state, right["hidden"])


def test_a_gpt2_that_others_made() -> None:
    """Made by openai/gpt-2, whose own graph is beside the weights."""
    prefix = str(DATA / "keras_gpt_2_toy/model.ckpt")
    ids = np.random.default_rng(5).integers(0, 356, (16, 20))
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        saver = tf.compat.v1.train.import_meta_graph(f"{prefix}.meta", clear_devices=True)
        saver.restore(session, prefix)
        right = session.run("model/Reshape_1:0", {"Placeholder:0": ids})
    config = transformers.GPT2Config(
        vocab_size=356,
        n_positions=20,
        n_embd=15,
        n_head=5,
        n_layer=3,
        bos_token_id=0,
        eos_token_id=0,
    )
    model: Any = transformers.GPT2LMHeadModel(config).eval()
    assert checkpoint.load_into(model, prefix, rules=rules.GPT2).complete
    assert_equal(model(torch.from_numpy(ids)).logits, torch.from_numpy(right))


# --- EfficientNet ---------------------------------------------------------------------------------

# The smallest model with a repeated block in its first stage, which does not expand.
NAME, DEPTH = "efficientnet-b1", 1.1


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outputs]:
    prefix = tmp_path_factory.mktemp("efficientnet") / "model.ckpt"
    return prefix, efficientnet.save(PICTURES, prefix, NAME, DEPTH)


def efficientnet_model(kind: str) -> Any:
    stages = efficientnet.STAGES
    config = transformers.EfficientNetConfig(
        image_size=32,
        width_coefficient=efficientnet.WIDTH,
        depth_coefficient=DEPTH,
        kernel_sizes=[stage.kernel for stage in stages],
        in_channels=[stage.inputs for stage in stages],
        out_channels=[stage.outputs for stage in stages],
        strides=[stage.stride for stage in stages],
        num_block_repeats=[stage.repeats for stage in stages],
        expand_ratios=[stage.expansion for stage in stages],
        hidden_dim=int(1280 * efficientnet.WIDTH),
        num_labels=5,
    )
    return getattr(transformers, kind)(config)


def run_pictures(model: Any) -> Any:
    return model(pixel_values=torch.from_numpy(PICTURES).movedim(-1, 1))


@pytest.mark.parametrize("which", ["weights", "averages"])
def test_efficientnet(which: str, net: tuple[Path, Outputs]) -> None:
    prefix, right = net
    opened = checkpoint.load(prefix)
    source = opened.averages if which == "averages" else opened
    model = efficientnet_model("EfficientNetForImageClassification")
    found = run_pictures(loaded(model, source, rules.EFFICIENTNET)).logits
    assert_equal(found, right[which])
    assert_every_weight_matters(model, found)
    assert not torch.allclose(right["weights"], right["averages"], rtol=0.1)


def test_efficientnet_without_a_head(net: tuple[Path, Outputs]) -> None:
    prefix, right = net
    opened = checkpoint.load(prefix)
    model = loaded(efficientnet_model("EfficientNetModel"), opened, rules.EFFICIENTNET_MODEL)
    pooled = run_pictures(model).pooler_output.flatten(1)
    kernel, bias = (opened[f"{NAME}/head/dense/{role}"] for role in ("kernel", "bias"))
    assert_equal(pooled @ kernel + bias, right["weights"])


# From efficientnet_builder.py: the factor of repeated blocks per stage in each model.
DEPTH_OF_MODELS = {
    "b0": 1.0, "b1": 1.1, "b2": 1.2, "b3": 1.4, "b4": 1.8,
    "b5": 2.2, "b6": 2.6, "b7": 3.1, "b8": 3.6, "l2": 5.3,
}  # fmt: skip


@pytest.mark.parametrize("name", DEPTH_OF_MODELS)
def test_blocks_that_do_not_expand(name: str) -> None:
    """Their first convolution projects. In each model they are the blocks of the first stage."""

    def block(part: str, conv: str) -> nn.Module:
        return nn.ModuleDict({part: nn.ModuleDict({conv: nn.Conv2d(2, 2, 1, bias=False)})})

    first_stage = math.ceil(DEPTH_OF_MODELS[name])
    blocks = nn.ModuleList(
        block("projection", "project_conv")
        if i < first_stage
        else block("expansion", "expand_conv")
        for i in range(12)
    )
    model = nn.ModuleDict(
        {"efficientnet": nn.ModuleDict({"encoder": nn.ModuleDict({"blocks": blocks})})}
    )
    weights = {
        f"efficientnet-{name}/blocks_{i}/conv2d/kernel": torch.ones(1, 1, 2, 2) for i in range(12)
    }
    report = checkpoint.load_into(model, weights, rules=rules.EFFICIENTNET)
    assert report.complete
    assert len(report.loaded) == 12


def test_blocks_of_the_wrong_model_are_told(net: tuple[Path, Outputs]) -> None:
    """The model's name gives the number of blocks that do not expand; a wrong name is noticed."""
    renamed = {
        name.replace(NAME, "efficientnet-b0"): x for name, x in checkpoint.load(net[0]).items()
    }
    model = efficientnet_model("EfficientNetForImageClassification")
    with pytest.raises(MismatchError, match="unused: efficientnet-b0/blocks_1/conv2d/kernel"):
        checkpoint.load_into(model, renamed, rules=rules.EFFICIENTNET)
