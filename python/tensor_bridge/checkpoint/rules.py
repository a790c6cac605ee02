r"""Rules for well-known models, for the argument ``rules`` of `load_into`.

>>> import torch
>>> from tensor_bridge import checkpoint
>>> model = torch.nn.ModuleDict({"bert": torch.nn.ModuleDict({"pooler": torch.nn.Linear(2, 2)})})
>>> weights = {"bert/pooler/kernel": torch.ones(2, 2), "bert/pooler/bias": torch.zeros(2)}
>>> checkpoint.load_into(model, weights, rules=checkpoint.rules.BERT).complete
True

Each set is a tuple of plain rules, applied in order. Put your own rule before a set to match the
names of the file, or after it to match names of the module:
``rules=[("^bert/pooler/", None), *checkpoint.rules.BERT]``.

The state of optimizers and the step are not variables of a checkpoint, so no rule drops them. If
the file has something that your torch class does not have, such as a pooler, drop it with your own
rule; these sets drop nothing without your knowledge.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tensor_bridge.checkpoint.into_module._rules import AnyRule

__all__ = [
    "BERT",
    "BERT_MODEL",
    "T5",
    "T5_ENCODER",
    "GPT2",
    "GPT2_MODEL",
    "EFFICIENTNET",
    "EFFICIENTNET_MODEL",
    "SONNET",
    "SONNET_SEQUENTIAL",
]

# --- google-research/bert: modeling.py, run_pretraining.py, run_classifier.py, run_squad.py -------

BERT: tuple[AnyRule, ...] = (
    (r"^(bert/embeddings/\w+_embeddings)$", r"\1/embeddings"),
    (r"^bert/encoder/layer_(\d+)/", r"bert/encoder/layer/\1/"),
    # These are multiplied from the right, transposed: they have torch's layout.
    (r"^cls/seq_relationship/output_weights$", "cls/seq_relationship/weight", "as_is"),
    (r"^cls/seq_relationship/output_bias$", "cls/seq_relationship/bias", "as_is"),
    (r"^cls/squad/output_weights$", "qa_outputs/weight", "as_is"),
    (r"^cls/squad/output_bias$", "qa_outputs/bias", "as_is"),
    (r"^output_weights$", "classifier/weight", "as_is"),
    (r"^output_bias$", "classifier/bias", "as_is"),
    (r"^cls/predictions/output_bias$", "cls/predictions/bias", "as_is"),
)
"""google-research/bert into transformers' BERT classes with a head.

Complete for ``BertForPreTraining`` with the published checkpoints, and for
``BertForSequenceClassification`` with those of run_classifier.py. Other classes lack some of the
file's weights; drop these first: ``^bert/pooler/`` for ``BertForQuestionAnswering`` (run_squad.py)
and ``BertForTokenClassification``, ``^bert/pooler/|^cls/seq_relationship/`` for
``BertForMaskedLM``, ``^cls/predictions/`` for ``BertForNextSentencePrediction``. The weights of
``cls.predictions.decoder`` are those of the word embeddings. The repository computes gelu by
approximation, ``hidden_act="gelu_new"``; its first versions had the exact one, ``"gelu"``.
"""
BERT_MODEL: tuple[AnyRule, ...] = (
    (r"^cls/", None),
    (r"^output_(?:weights|bias)$", None),
    *BERT,
    (r"^bert/", ""),
)
"""google-research/bert into ``BertModel``. All heads are dropped."""

# --- google-research/text-to-text-transfer-transformer, on mesh-tensorflow ------------------------

T5: tuple[AnyRule, ...] = (
    (r"/block_0*(\d+)/layer_0*(\d+)/", r"/block/\1/layer/\2/"),
    # Norms are called rms_norm in multilingual T5, also the one after the last block.
    (r"^(encoder|decoder)/(?:final_layer|rms)_norm/scale$", r"\1/final_layer_norm/weight", "as_is"),
    (r"/(?:layer|rms)_norm/scale$", "/layer_norm/weight", "as_is"),
    (r"/(SelfAttention|EncDecAttention)/([qkvo])$", r"/\1/\2/kernel"),
    # (heads, buckets), a table of buckets in torch.
    (r"/relative_attention_bias$", "/relative_attention_bias/weight", "transposed"),
    (r"^decoder/logits/", "lm_head/"),
)
"""google-research/text-to-text-transfer-transformer into ``T5ForConditionalGeneration``.

Of mesh-tensorflow: the first release, 1.1, and multilingual T5 (``MT5ForConditionalGeneration``).
Where the file has ``decoder/logits``, as since 1.1, the configuration needs
``tie_word_embeddings=False``, and transformers 5, which ties ``lm_head`` all the same, this before
the load: ``model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone())``.
``T5Model`` has no logits: drop ``^decoder/logits/`` first.
"""
T5_ENCODER: tuple[AnyRule, ...] = ((r"^decoder/", None), *T5)
"""The same into ``T5EncoderModel``. The decoder is dropped."""

# --- openai/gpt-2: src/model.py -------------------------------------------------------------------

GPT2: tuple[AnyRule, ...] = (
    (r"^model/h(\d+)/", r"transformer/h/\1/"),
    (r"^model/", "transformer/"),
    (r"/(wte|wpe)$", r"/\1/embeddings"),
    (r"/(ln_\w+)/g$", r"/\1/gamma"),
    (r"/(ln_\w+)/b$", r"/\1/beta"),
)
"""openai/gpt-2 into ``GPT2LMHeadModel``, whose ``lm_head`` has the weights of ``wte``."""
GPT2_MODEL: tuple[AnyRule, ...] = (*GPT2, (r"^transformer/", ""))
"""The same into ``GPT2Model``."""

# --- tensorflow/tpu: models/official/efficientnet -------------------------------------------------

# Layers are numbered by position, so the names of a block depend on whether it expands. The blocks
# of the first stage do not, and their number depends on the model.
_UNEXPANDED = (
    r"^efficientnet-(?=b0/blocks_0/|b[1-4]/blocks_[01]/|b[56]/blocks_[0-2]/|b[78]/blocks_[0-3]/"
    r"|l2/blocks_[0-5]/)\w+/blocks_(\d+)"
)
_ANY = r"^efficientnet-(?:b[0-8]|l2)"
_BLOCKS = "efficientnet/encoder/blocks"
_BLOCK = rf"^({_BLOCKS}/\d+)"

EFFICIENTNET: tuple[AnyRule, ...] = (
    (rf"{_ANY}/stem/conv2d/", "efficientnet/embeddings/convolution/"),
    (rf"{_ANY}/stem/tpu_batch_normalization/", "efficientnet/embeddings/batchnorm/"),
    (rf"{_ANY}/head/conv2d/", "efficientnet/encoder/top_conv/"),
    (rf"{_ANY}/head/tpu_batch_normalization/", "efficientnet/encoder/top_bn/"),
    (rf"{_ANY}/head/dense/", "classifier/"),
    (rf"{_UNEXPANDED}/conv2d/", rf"{_BLOCKS}/\1/projection/project_conv/"),
    (rf"{_UNEXPANDED}/tpu_batch_normalization/", rf"{_BLOCKS}/\1/depthwise_conv/depthwise_norm/"),
    (rf"{_UNEXPANDED}/tpu_batch_normalization_1/", rf"{_BLOCKS}/\1/projection/project_bn/"),
    (rf"{_ANY}/blocks_(\d+)/", rf"{_BLOCKS}/\1/"),
    (rf"{_BLOCK}/conv2d/", r"\1/expansion/expand_conv/"),
    (rf"{_BLOCK}/tpu_batch_normalization/", r"\1/expansion/expand_bn/"),
    (rf"{_BLOCK}/depthwise_conv2d/", r"\1/depthwise_conv/depthwise_conv/"),
    (rf"{_BLOCK}/tpu_batch_normalization_1/", r"\1/depthwise_conv/depthwise_norm/"),
    (rf"{_BLOCK}/se/conv2d/", r"\1/squeeze_excite/reduce/"),
    (rf"{_BLOCK}/se/conv2d_1/", r"\1/squeeze_excite/expand/"),
    (rf"{_BLOCK}/conv2d_1/", r"\1/projection/project_conv/"),
    (rf"{_BLOCK}/tpu_batch_normalization_2/", r"\1/projection/project_bn/"),
)
"""tensorflow/tpu's EfficientNet into ``EfficientNetForImageClassification``.

For B0 to B8 and L2; the variables' scope, "efficientnet-b0", says which. `Checkpoint.averages` has
the weights that were published for evaluation. For a stride of 2 and an even size transformers'
class pads as TensorFlow does; for odd sizes it has ``depthwise_padding``. There are no rules for
the Lite, EdgeTPU and CondConv variants, which have layers that the class lacks.
"""
EFFICIENTNET_MODEL: tuple[AnyRule, ...] = (
    (rf"{_ANY}/head/dense/", None),
    *EFFICIENTNET,
    (r"^efficientnet/", ""),
)
"""The same into ``EfficientNetModel``. The classifier is dropped."""

# --- google-deepmind/sonnet, version 2 ------------------------------------------------------------

SONNET: tuple[AnyRule, ...] = (
    # As Sonnet's documentation saves: tf.train.Checkpoint(module=...).
    (r"^module/", ""),
    # Attributes of Sonnet's modules, without the underscore.
    (r"(^|/)_(?=[a-z])", r"\1"),
)
"""google-deepmind/sonnet 2 into your own module with attributes of the same names.

Without the underscore that Sonnet puts before them: ``snt.nets.MLP`` goes into a module with
``layers``, a ``ModuleList`` of ``Linear``; ``snt.nets.ResNet`` into one with ``initial_conv``,
``initial_batchnorm``, ``block_groups`` and ``logits``. ``LSTM`` and ``VanillaRNN`` go into torch's
``LSTM`` and ``RNN``. The eps of Sonnet's norms is 1e-5, as torch's.
"""
SONNET_SEQUENTIAL: tuple[AnyRule, ...] = (
    *SONNET,
    # snt.Sequential keeps its layers in a list; torch's Sequential is a list.
    (r"(^|/)layers/(?=\d+/)", r"\1"),
)
"""The same for ``snt.Sequential`` into ``Sequential``, which is a list of layers itself."""
