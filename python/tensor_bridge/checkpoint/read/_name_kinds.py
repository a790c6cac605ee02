"""Decides kinds by names, without an object graph: in checkpoints of TensorFlow 1 and Keras' files.

A name is that of an optimizer's variable only next to the variable that it belongs to.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

Shapes = Mapping[str, tuple[int, ...]]

# The names that optimizers give to the variables for each weight, and to their own variables:
# tensorflow/python/training, tf_keras/src/optimizers, tf.contrib.opt, google-research's BERT.
_OPTIMIZER = (
    r"(?:Ada[Mm]ax|Adam|AdamW|Adam[Ww]eight[Dd]ecay(?:Optimizer)?|LazyAdam|Nadam|NadamW|SGD|Momentum"
    r"|RMS[Pp]rop|Adagrad|AdagradDA|ProximalAdagrad|Adadelta|Adafactor|Ftrl|LARS|LAMB|Lamb|Lion"
    r"|AddSign|PowerSign|TFOptimizer|LARSOptimizer|LossScaleOptimizer)(?:_\d+)?"
)
_SLOT = (
    r"(?:m|v|vhat|momentum|momentums|velocity|rms|mg|mean_square|mean_gradient|accumulator|linear"
    r"|accum_grad|accum_var|average|slow)"
)
_AFTER = re.compile(
    rf"(?P<of>.+?)(?:/part_\d+)?/(?:{_OPTIMIZER}|ExponentialMovingAverage(?:_\d+)?|adam_[mv]"
    r"|biased|local_step)"
)
_FACTORED = re.compile(r"(?P<of>.+)_slot_(?:vr|vc|v|m)")
_CUSTOM = re.compile(r"(?P<of>.+)/(?P<called>[^/]+?)(?:_1)?")
_BEFORE = re.compile(rf"(?P<own>(?:[^/]+/)*?{_OPTIMIZER})/(?P<rest>.+)")
_PART = re.compile(r"/part_\d+$")
_STEPS = ("iter", "iterations", "iteration", "t")
_SETTINGS = re.compile(
    r"(?:beta(?:_1|_2)?|decay|lr|learning_rate|current_learning_rate|learning_rate_power|momentum"
    r"|momentum_cache|rho|epsilon|schedule_decay|m_schedule|l[12]_regularization_strength)"
)
_COUNTERS = re.compile(r"(?:.+/)?(?:global_step|save_counter|beta[12]_power(?:_\d+)?)|eval_step")
_STOPS = re.compile(r"signal_early_stopping/STOP|(?:.+/)?(?:current_loss_scale|good_steps)")
_METRIC = re.compile(r"(?P<of>metrics/.+/|)(?:total|count)(?P<number>(?:_\d+)?)")


def kind_of_key(key: str, shapes: Shapes) -> str:
    """The kind of one of a checkpoint's keys, ``shapes`` has them all."""
    if _is_slot(key, shapes):
        return "slot"
    if _COUNTERS.fullmatch(key):
        return "counter"
    if _STOPS.fullmatch(key):
        return "state"
    if shapes[key] != ():
        return "variable"
    return _kind_of_scalar(key, shapes)


def _is_slot(key: str, shapes: Shapes) -> bool:
    for pattern in (_AFTER, _FACTORED):
        after = pattern.fullmatch(key)
        if after is not None and _of_weight(after["of"], shapes):
            return True
    # Two with the weight's shape, the second named after the first: Adam with a custom name.
    custom = _CUSTOM.fullmatch(key)
    if custom is not None and custom["of"] in shapes:
        pair = (f"{custom['of']}/{custom['called']}", f"{custom['of']}/{custom['called']}_1")
        if all(shapes.get(name) == shapes[custom["of"]] for name in pair):
            return True
    before = _BEFORE.fullmatch(key)
    if before is None:
        return False
    rest = before["rest"]
    first, _, behind = rest.partition("/")
    ahead, _, last = rest.rpartition("/")
    if re.fullmatch(_SLOT, last) and _of_weight(ahead, shapes):
        return True
    if re.fullmatch(_SLOT, first) and _of_weight(behind, shapes):
        return True
    # Keras before 2.3 does not name them.
    return key.startswith("training") and bool(re.fullmatch(r"Variable(_\d+)?", rest))


def _of_weight(name: str, shapes: Shapes) -> bool:
    return name in shapes or _PART.sub("", name) in shapes


def _kind_of_scalar(key: str, shapes: Shapes) -> str:
    before = _BEFORE.fullmatch(key)
    own, rest = (f"{before['own']}/", before["rest"]) if before is not None else ("", key)
    # Without its own name, only an optimizer that has a step counter beside its settings.
    if any(f"{own}{step}" in shapes for step in (_STEPS if own else _STEPS[2:3])):
        if rest in _STEPS:
            return "counter"
        if _SETTINGS.fullmatch(rest):
            return "state"
    metric = _METRIC.fullmatch(key)
    if metric is not None:
        pair = (f"{metric['of']}{name}{metric['number']}" for name in ("total", "count"))
        if all(shapes.get(name) == () for name in pair):
            return "state"
    return "variable"


def kind_of_data_set(path: str, shapes: Shapes, integers: set[str], legacy: bool) -> str:
    """The kind of a data set in one of Keras' files.

    Args:
      path: Where it is in the file.
      shapes: The shape of each data set.
      integers: The data sets of integers.
      legacy: Whether the file is of the older kind, which names its layers in attributes.
    """
    parts = path.split("/")
    first, last = parts[0], parts[-1]
    if legacy:
        if first != "optimizer_weights" or not any(n.startswith("model_weights/") for n in shapes):
            return "variable"
        return _kind_in_optimizer(re.sub(r":\d+$", "", last), shapes[path])
    if "/vars/" not in path:
        return "variable"
    if first == "optimizer" and any(
        shapes.get(counter) == () and counter in integers
        for counter in ("optimizer/vars/0", "optimizer/inner_optimizer/vars/0")
    ):
        if shapes[path] == ():
            return "counter" if path in integers else "state"
        return "slot"
    if first == "metrics" or (
        "/seed_generator/vars/" in f"/{path}" and path in integers and shapes[path] == (2,)
    ):
        return "state"
    return "variable"


def _kind_in_optimizer(name: str, shape: tuple[int, ...]) -> str:
    if shape != ():
        return "slot"
    if name in _STEPS:
        return "counter"
    return "state" if _SETTINGS.fullmatch(name) else "slot"
