"""Variables in several places are tuples of their local parts."""

from __future__ import annotations

from typing import Any

import needs
import pytest
import tensorflow as tf
import torch
from claims import claims_test
from fresh import run_python
from sharing import owners
from tensorflow.python.distribute import ps_values, sharded_variable

import tensor_bridge
from tensor_bridge.testing import shares_memory

PRELUDE = """
import tensorflow as tf, torch, tensor_bridge
from tensor_bridge.testing import live_owners, shares_memory

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])

def mirrored(**options):
    with strategy.scope():
        return tf.Variable([1.0, 2.0], **options)

def per_replica():
    return strategy.experimental_distribute_values_from_function(
        lambda context: tf.constant([float(context.replica_id_in_sync_group)])
    )

def refused(value, error, **options):
    try:
        tensor_bridge.to_torch(value, **options)
    except error as e:
        explanation = tensor_bridge.explain(value, **options)
        assert (explanation.action, explanation.error) == ("refused", error), explanation
        assert explanation.reason == str(e)
        return str(e)
    raise AssertionError("not refused")
"""

CLAIMS = {
    "a mirrored variable gives one snapshot a replica": """
v = mirrored()
before = live_owners()
parts = tensor_bridge.to_torch(v)
assert type(parts) is tuple and len(parts) == 2
for local, x in zip(v.values, parts):
    assert shares_memory(local, x) and x.tolist() == [1.0, 2.0]
assert live_owners() == before + 2
v.assign([5.0, 6.0])
assert [x.tolist() for x in parts] == [[1.0, 2.0]] * 2
parts[0].zero_()
assert [tensor_bridge.to_torch(x).tolist() for x in v.values] == [[5.0, 6.0]] * 2
explanation = tensor_bridge.explain(v)
assert explanation.action == "shared" and len(explanation.parts) == 2
del parts, x
assert live_owners() == before
""",
    "a variable that is summed when read gives each replica's own value": """
v = mirrored(
    synchronization=tf.VariableSynchronization.ON_READ,
    aggregation=tf.VariableAggregation.SUM,
)
v.values[1].assign([7.0, 8.0])
assert [x.tolist() for x in tensor_bridge.to_torch(v)] == [[1.0, 2.0], [7.0, 8.0]]
""",
    "a Keras variable under the strategy is mirrored too": """
import keras
with strategy.scope():
    v = keras.Variable([1.0, 2.0])
assert [x.tolist() for x in tensor_bridge.to_torch(v)] == [[1.0, 2.0]] * 2
tensor_bridge.assign(v, torch.zeros(2))
assert [x.tolist() for x in tensor_bridge.to_torch(v)] == [[0.0, 0.0]] * 2
""",
    "values of each replica": """
assert [x.tolist() for x in tensor_bridge.to_torch(per_replica())] == [[0.0], [1.0]]
assert len(tensor_bridge.explain(per_replica()).parts) == 2
v = mirrored()
result = strategy.run(lambda x: x * v, (per_replica(),))
assert [x.tolist() for x in tensor_bridge.to_torch(result)] == [[0.0, 0.0], [1.0, 2.0]]
""",
    "every replica can be live": """
v = mirrored()
views = tensor_bridge.to_torch(v, live=True)
assert all(type(view) is tensor_bridge.LiveView for view in views)
views[1].tensor.zero_()
assert [tensor_bridge.to_torch(x).tolist() for x in v.values] == [[1.0, 2.0], [0.0, 0.0]]
v.assign([3.0, 4.0])
assert not any(view.valid for view in views)
""",
    "every replica is assigned": """
v = mirrored()
x = torch.tensor([3.0, 4.0])
tensor_bridge.assign(v, x)
x.zero_()
assert [tensor_bridge.to_torch(local).tolist() for local in v.values] == [[3.0, 4.0]] * 2
v.assign_add([1.0, 1.0])
assert x.tolist() == [0.0, 0.0]
assert [tensor_bridge.to_torch(local).tolist() for local in v.values] == [[4.0, 5.0]] * 2
""",
    "an error names the part": """
v = mirrored()
v.values[1].scatter_nd_update([[0]], [1.0])
assert refused(v, tensor_bridge.CopyRequiredError, copy=False).startswith("[1]: ")
""",
    "in a structure": """
x = tensor_bridge.to_torch({"v": mirrored(), "p": [per_replica()]})
assert len(x["v"]) == len(x["p"][0]) == 2
""",
}


MARKS = {"a Keras variable under the strategy is mirrored too": needs.keras_3}
test_mirrored = claims_test(PRELUDE, CLAIMS, run_python, needs.parameters(CLAIMS, MARKS))


# ---- sharded, and wrapped by a parameter server strategy -----------------------------------------


def sharded() -> Any:
    return sharded_variable.ShardedVariable([tf.Variable([1.0, 2.0]), tf.Variable([3.0])])


def test_a_sharded_variable_gives_its_shards() -> None:
    v = sharded()
    with owners():
        parts = tensor_bridge.to_torch(v)
        assert type(parts) is tuple
        assert [x.tolist() for x in parts] == [[1.0, 2.0], [3.0]]
        for shard, x in zip(v.variables, parts, strict=True):
            assert shares_memory(shard, x)
            x.zero_()
        assert v.variables[0].numpy().tolist() == [1.0, 2.0]
        assert [name for name, _ in tensor_bridge.explain(v).parts] == ["[0]", "[1]"]
        views = tensor_bridge.to_torch(v, live=True)
        views[1].tensor.fill_(9)
        assert v.variables[1].numpy().tolist() == [9.0]
        del parts, x, views


def test_a_sharded_variable_is_assigned_shard_by_shard() -> None:
    v = sharded()
    with pytest.raises(tensor_bridge.UnsupportedTypeError, match=r"in zip\(variable\.variables"):
        tensor_bridge.assign(v, torch.zeros(3))
    for shard, x in zip(v.variables, (torch.zeros(2), torch.ones(1)), strict=True):
        tensor_bridge.assign(shard, x)
    assert [s.numpy().tolist() for s in v.variables] == [[0.0, 0.0], [1.0]]


@pytest.mark.parametrize(
    "wrap",
    [
        lambda v: ps_values.AggregatingVariable(
            tf.distribute.get_strategy(), v, tf.VariableAggregation.NONE
        ),
        ps_values.CachingVariable,
    ],
    ids=["aggregating", "caching"],
)
def test_a_wrapped_variable_is_the_variable_inside(wrap: Any) -> None:
    inner = tf.Variable([1.0, 2.0])
    v = wrap(inner)
    x = tensor_bridge.to_torch(v)
    assert shares_memory(inner, x)
    x.zero_()
    assert inner.numpy().tolist() == [1.0, 2.0]
    assert tensor_bridge.explain(v).action == "shared"
    tensor_bridge.to_torch(v, live=True).tensor.fill_(5)
    assert inner.numpy().tolist() == [5.0, 5.0]
    tensor_bridge.assign(v, torch.zeros(2))
    assert inner.numpy().tolist() == [0.0, 0.0]
