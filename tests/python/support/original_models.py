"""Models under the names, and with the equations, of the repositories that first published them.

Tiny and with random weights; built as graphs of TensorFlow 1 and saved by its Saver. Each function
that builds a model takes its inputs and gives its outputs by name. Convolutional ones are in
original_efficientnet.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow as tf
import torch

tf1 = tf.compat.v1
scope = tf1.variable_scope


def session_of_graph() -> Any:
    """A session of the current graph, without optimizing it, which takes longer than running it."""
    options = tf1.ConfigProto()
    options.graph_options.rewrite_options.disable_meta_optimizer = True
    options.graph_options.optimizer_options.opt_level = -1
    return tf1.Session(config=options)


def save(build: Callable[..., dict[str, Any]], prefix: Path, **inputs: Any) -> dict[str, Any]:
    """Builds a graph, saves all its variables, and gives the outputs as torch tensors."""
    with tf.Graph().as_default(), session_of_graph() as session:
        tf1.set_random_seed(17)
        outputs = build(**{name: tf.constant(x) for name, x in inputs.items()})
        session.run(tf1.global_variables_initializer())
        tf1.train.Saver().save(session, str(prefix))
        return _run(session, outputs)


def restore(build: Callable[..., dict[str, Any]], prefix: Path, **inputs: Any) -> dict[str, Any]:
    """Builds a graph, restores its variables from another writer's file, and returns the outputs.

    The checkpoint must have all variables of the graph, and no others.
    """
    with tf.Graph().as_default(), session_of_graph() as session:
        outputs = build(**{name: tf.constant(x) for name, x in inputs.items()})
        names = {variable.op.name for variable in tf1.global_variables()}
        assert names == {name for name, _ in tf.train.list_variables(str(prefix))}
        tf1.train.Saver().restore(session, str(prefix))
        return _run(session, outputs)


def _run(session: Any, outputs: dict[str, Any]) -> dict[str, Any]:
    return {name: torch.from_numpy(x) for name, x in session.run(outputs).items()}


def variable(name: str, *shape: int, around: float = 0.0, inputs: int = 0) -> Any:
    """A variable of the current scope; a product with it keeps the magnitude of its input.

    ``inputs`` is the number of summed values; by default that of all axes but the last.
    """
    spread = 0.3 if len(shape) == 1 else (inputs or math.prod(shape[:-1])) ** -0.5
    return tf1.get_variable(name, initializer=tf.random.normal(shape, around, spread))


def slots(*endings: str) -> None:
    """Makes an optimizer's slots for each variable, and the step."""
    for made in tf1.trainable_variables():
        for ending in endings:
            tf1.get_variable(made.op.name + ending, initializer=tf.zeros(made.shape))
    tf1.train.create_global_step()


def _gelu(x: Any) -> Any:
    """The approximation that all of these use."""
    return 0.5 * x * (1 + tf.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def _heads(x: Any, count: int) -> Any:
    batch, length, size = x.shape
    return tf.transpose(tf.reshape(x, (batch, length, count, size // count)), (0, 2, 1, 3))


def _joined(x: Any) -> Any:
    batch, count, length, size = x.shape
    return tf.reshape(tf.transpose(x, (0, 2, 1, 3)), (batch, length, count * size))


# --- google-research/bert -------------------------------------------------------------------------


def _dense(x: Any, name: str, size: int) -> Any:
    with scope(name):
        return x @ variable("kernel", x.shape[-1], size) + variable("bias", size)


def _layer_norm(x: Any) -> Any:
    with scope("LayerNorm"):
        beta, gamma = variable("beta", x.shape[-1]), variable("gamma", x.shape[-1], around=1.0)
    mean, variance = tf.nn.moments(x, -1, keepdims=True)
    return tf.nn.batch_normalization(x, mean, variance, beta, gamma, 1e-12)


def _bert_attention(x: Any, mask: Any, heads: int) -> Any:
    query, key, value = (
        _heads(_dense(x, n, x.shape[-1]), heads) for n in ("query", "key", "value")
    )
    scores = tf.matmul(query, key, transpose_b=True) / math.sqrt(x.shape[-1] // heads)
    scores += (1.0 - tf.cast(mask, tf.float32))[:, None, None, :] * -10000.0
    return _joined(tf.nn.softmax(scores) @ value)


class Sizes(NamedTuple):
    """The sizes of a BERT."""

    words: int = 30
    places: int = 12
    hidden: int = 16
    inner: int = 32
    heads: int = 2


SIZES = Sizes()


def _bert_layer(x: Any, mask: Any, sizes: Sizes) -> Any:
    size = sizes.hidden
    with scope("attention"):
        with scope("self"):
            attended = _bert_attention(x, mask, sizes.heads)
        with scope("output"):
            x = _layer_norm(_dense(attended, "dense", size) + x)
    with scope("intermediate"):
        inner = _gelu(_dense(x, "dense", sizes.inner))
    with scope("output"):
        return _layer_norm(_dense(inner, "dense", size) + x)


def _bert(ids: Any, segments: Any, mask: Any, sizes: Sizes = SIZES) -> tuple[Any, Any, Any]:
    """The sequence, its first place pooled, and the table of the words."""
    size = sizes.hidden
    with scope("bert"):
        with scope("embeddings"):
            words = variable("word_embeddings", sizes.words, size)
            x = tf.gather(words, ids) + tf.gather(
                variable("token_type_embeddings", 2, size), segments
            )
            x = _layer_norm(x + variable("position_embeddings", sizes.places, size)[: ids.shape[1]])
        with scope("encoder"):
            for layer in range(2):
                with scope(f"layer_{layer}"):
                    x = _bert_layer(x, mask, sizes)
        with scope("pooler"):
            pooled = tf.tanh(_dense(x[:, 0], "dense", size))
    return x, pooled, words


def bert_pretraining(ids: Any, segments: Any, mask: Any, sizes: Sizes = SIZES) -> dict[str, Any]:
    """run_pretraining.py"""
    x, pooled, words = _bert(ids, segments, mask, sizes)
    with scope("cls/predictions"):
        with scope("transform"):
            inner = _layer_norm(_gelu(_dense(x, "dense", x.shape[-1])))
        bias = variable("output_bias", words.shape[0])
        predictions = tf.matmul(inner, words, transpose_b=True) + bias
    with scope("cls/seq_relationship"):
        weights, bias = variable("output_weights", 2, x.shape[-1]), variable("output_bias", 2)
    slots("/adam_m", "/adam_v")
    return {
        "sequence": x,
        "pooled": pooled,
        "predictions": predictions,
        "relationship": tf.matmul(pooled, weights, transpose_b=True) + bias,
    }


def bert_classifier(ids: Any, segments: Any, mask: Any) -> dict[str, Any]:
    """run_classifier.py"""
    _, pooled, _ = _bert(ids, segments, mask)
    weights, bias = variable("output_weights", 3, pooled.shape[-1]), variable("output_bias", 3)
    slots("/adam_m", "/adam_v")
    return {"logits": tf.matmul(pooled, weights, transpose_b=True) + bias}


def bert_squad(ids: Any, segments: Any, mask: Any) -> dict[str, Any]:
    """run_squad.py"""
    x, _, _ = _bert(ids, segments, mask)
    with scope("cls/squad"):
        weights, bias = variable("output_weights", 2, x.shape[-1]), variable("output_bias", 2)
    logits = tf.matmul(x, weights[None], transpose_b=True) + bias
    slots("/adam_m", "/adam_v")
    return {"start": logits[..., 0], "end": logits[..., 1]}


# --- google-research/text-to-text-transfer-transformer, on mesh-tensorflow ------------------------


class T5:
    """The parts of a T5: release "1.0", "1.1", or the "multilingual" one.

    Since 1.1 there are gates instead of ReLU, and logits with weights of their own. The norms of
    the multilingual one have other names.
    """

    BUCKETS = 8
    DISTANCE = 20

    def __init__(self, release: str, size: int = 16, heads: int = 2, depth: int = 6) -> None:
        self.first = release == "1.0"
        self.norms = (
            ("rms_norm", "rms_norm")
            if release == "multilingual"
            else ("layer_norm", "final_layer_norm")
        )
        self.size, self.heads, self.depth = size, heads, depth

    def _norm(self, x: Any, name: str) -> Any:
        with scope(name):
            scale = variable("scale", self.size, around=1.0)
        return x * tf.math.rsqrt(tf.reduce_mean(tf.square(x), -1, keepdims=True) + 1e-6) * scale

    def _bucket(self, distance: int, both_ways: bool) -> int:
        """The bucket of a key at this distance behind the query."""
        count, start = self.BUCKETS, 0
        if both_ways:
            count //= 2
            start = count if distance > 0 else 0
            distance = abs(distance)
        else:
            distance = max(-distance, 0)
        exact = count // 2
        if distance < exact:
            return start + distance
        ratio = math.log(distance / exact) / math.log(self.DISTANCE / exact)
        return start + min(exact + int(ratio * (count - exact)), count - 1)

    def _position_bias(self, length: int, both_ways: bool) -> Any:
        table = variable("relative_attention_bias", self.heads, self.BUCKETS)
        places = range(length)
        buckets = [[self._bucket(key - query, both_ways) for key in places] for query in places]
        return tf.gather(table, buckets, axis=1)[None]

    def _attention(self, x: Any, memory: Any, bias: Any, of_positions: bool | None = None) -> Any:
        """The output and the bias; in a stack's first layer the position bias is added to it."""
        inner = self.heads * self.depth
        # The scale of the scores is part of the query's weights.
        query = _heads(x @ variable("q", self.size, inner), self.heads)
        key = _heads(memory @ variable("k", self.size, inner), self.heads)
        value = _heads(memory @ variable("v", self.size, inner), self.heads)
        if of_positions is not None:
            bias = bias + self._position_bias(x.shape[1], of_positions)
        weights = tf.nn.softmax(tf.matmul(query, key, transpose_b=True) + bias)
        return _joined(weights @ value) @ variable("o", inner, self.size), bias

    def _feed_forward(self, x: Any) -> Any:
        def dense(x: Any, name: str, size: int) -> Any:
            with scope(name):
                return x @ variable("kernel", x.shape[-1], size)

        if self.first:
            return dense(tf.nn.relu(dense(x, "wi", 24)), "wo", self.size)
        return dense(_gelu(dense(x, "wi_0", 24)) * dense(x, "wi_1", 24), "wo", self.size)

    def _stack(self, name: str, x: Any, bias: Any, memory: Any = None, mask: Any = None) -> Any:
        norm, last_norm = self.norms
        with scope(name):
            for block in range(2):
                kinds = ["SelfAttention", "DenseReluDense"]
                if memory is not None:
                    kinds.insert(1, "EncDecAttention")
                for layer, kind in enumerate(kinds):
                    with scope(f"block_{block:03d}/layer_{layer:03d}"):
                        inner = self._norm(x, norm)
                        with scope(kind):
                            if kind == "SelfAttention":
                                both_ways = None if block else memory is None
                                inner, bias = self._attention(inner, inner, bias, both_ways)
                            elif kind == "EncDecAttention":
                                inner, _ = self._attention(inner, memory, mask)
                            else:
                                inner = self._feed_forward(inner)
                        x = x + inner
            return self._norm(x, last_norm)

    def __call__(self, ids: Any, mask: Any, targets: Any) -> dict[str, Any]:
        with scope("shared"):
            words = variable("embedding", 30, self.size)
        hidden = (1.0 - tf.cast(mask, tf.float32))[:, None, None, :] * -1e9
        encoded = self._stack("encoder", tf.gather(words, ids), hidden)
        length = targets.shape[1]
        later = (1.0 - tf.linalg.band_part(tf.ones((length, length)), -1, 0)) * -1e9
        x = self._stack("decoder", tf.gather(words, targets), later, encoded, hidden)
        if self.first:
            logits = tf.matmul(x * self.size**-0.5, words, transpose_b=True)
        else:
            with scope("decoder/logits"):
                logits = x @ variable("kernel", self.size, words.shape[0])
        slots("_slot_vr", "_slot_vc")
        return {"encoded": encoded, "decoded": x, "logits": logits}


# --- openai/gpt-2 ---------------------------------------------------------------------------------


def _gpt2_norm(x: Any, name: str) -> Any:
    with scope(name):
        g, b = variable("g", x.shape[-1], around=1.0), variable("b", x.shape[-1])
    x -= tf.reduce_mean(x, -1, keepdims=True)
    return x * tf.math.rsqrt(tf.reduce_mean(tf.square(x), -1, keepdims=True) + 1e-5) * g + b


def _gpt2_conv(x: Any, name: str, size: int) -> Any:
    """A convolution of size 1, hence the kernel's first axis."""
    with scope(name):
        return x @ variable("w", 1, x.shape[-1], size)[0] + variable("b", size)


def _gpt2_attention(x: Any, heads: int) -> Any:
    size = x.shape[-1]
    query, key, value = (
        _heads(part, heads) for part in tf.split(_gpt2_conv(x, "c_attn", 3 * size), 3, -1)
    )
    scores = tf.matmul(query, key, transpose_b=True) / math.sqrt(size // heads)
    seen = tf.linalg.band_part(tf.ones(scores.shape[-2:]), -1, 0)
    weights = tf.nn.softmax(scores * seen - 1e10 * (1 - seen))
    return _gpt2_conv(_joined(weights @ value), "c_proj", size)


def gpt2(ids: Any, size: int = 16) -> dict[str, Any]:
    with scope("model"):
        places, words = variable("wpe", 12, size), variable("wte", 30, size)
        x = tf.gather(words, ids) + places[: ids.shape[1]]
        for layer in range(2):
            with scope(f"h{layer}"):
                inner = _gpt2_norm(x, "ln_1")
                with scope("attn"):
                    x += _gpt2_attention(inner, heads=2)
                inner = _gpt2_norm(x, "ln_2")
                with scope("mlp"):
                    x += _gpt2_conv(_gelu(_gpt2_conv(inner, "c_fc", 4 * size)), "c_proj", size)
        x = _gpt2_norm(x, "ln_f")
    return {"hidden": x, "logits": tf.matmul(x, words, transpose_b=True)}
