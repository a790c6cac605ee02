"""TensorFlow models as torch modules: parameters, statistics, state, training."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import keras
import needs
import pytest
import tensorflow as tf
import torch
from fresh import run_forked
from memory import growth_over
from sharing import owners

import tensor_bridge
from tensor_bridge.autograd import GradientError, TfModule
from tensor_bridge.testing import shares_memory


def small_model() -> Any:
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(4, 3, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.25),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(8),
        ]
    )


def images(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images of horizontal or vertical bars on noise, and their labels."""
    generator = torch.Generator().manual_seed(0)
    x = 0.3 * torch.randn(count, 8, 8, 1, generator=generator)
    labels = torch.arange(count) % 2
    places = torch.randint(1, 7, (count,), generator=generator)
    for image, label, place in zip(x, labels, places, strict=True):
        image.select(int(label), int(place)).add_(2)
    return x, labels


@needs.keras_3
def test_parameters_are_the_variables_memory() -> None:
    model = small_model()
    module = TfModule(model)
    named = dict(module.named_parameters())
    assert list(named) == [v.path for v in model.trainable_variables]
    for variable in model.trainable_variables:
        assert shares_memory(variable.value.read_value(), named[variable.path])
        assert isinstance(named[variable.path], torch.nn.Parameter)
    assert set(dict(module.named_buffers())) == {v.path for v in model.non_trainable_variables}
    assert "variables" in repr(module)


def test_an_optimizers_step_reaches_tensorflow_with_one_assign_and_no_copy() -> None:
    variable = tf.Variable([1.0] * 16)
    module = TfModule(lambda x: x * variable, variables=[variable])
    (parameter,) = module.parameters()
    optimizer = torch.optim.SGD([parameter], lr=0.5)
    module(torch.ones(16)).sum().backward()
    optimizer.step()
    assert variable.numpy()[0] == 1.0  # not yet
    assert module(torch.ones(16)).tolist() == [0.5] * 16
    assert variable.numpy()[0] == 0.5
    assert shares_memory(variable.read_value(), parameter) == needs.SHARES_TO_TF
    variable.assign([3.0] * 16)  # and back
    assert module(torch.ones(16)).tolist() == [3.0] * 16
    assert parameter.tolist() == [3.0] * 16
    with torch.no_grad():
        parameter.zero_()
    module.push()
    assert variable.numpy().sum() == 0


def test_changes_on_both_sides_are_an_error_until_one_is_chosen() -> None:
    variable = tf.Variable([1.0])
    module = TfModule(lambda x: x * variable, variables=[variable])
    (parameter,) = module.parameters()
    for choose, expected in ((module.pull, 2.0), (module.push, 5.0)):
        variable.assign([expected + 1 if expected > 2 else 2.0])
        with torch.no_grad():
            parameter.fill_(5.0)
        with pytest.raises(GradientError, match=r"pull\(\).*push\(\)"):
            module(torch.ones(1))
        choose()
        assert module(torch.ones(1)).item() == expected
        assert variable.numpy() == parameter.item() == expected


def test_where_one_variable_conflicts_none_is_assigned() -> None:
    variables = [tf.Variable([float(i)]) for i in range(3)]
    module = TfModule(lambda x: x * tf.add_n(variables), variables=variables)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(10.0)
    variables[2].assign([7.0])
    with pytest.raises(GradientError, match=r"pull\(\).*push\(\)"):
        module(torch.ones(1))
    assert [v.numpy().item() for v in variables] == [0.0, 1.0, 7.0]
    module.push()
    assert module(torch.ones(1)).item() == 33.0


def test_a_variable_given_twice_cannot_take_two_values() -> None:
    variable = tf.Variable([1.0])
    module = TfModule(lambda x: x * variable, variables=[variable, variable])
    first, second = module.parameters()
    assert module(torch.ones(1)).item() == 1.0
    with torch.no_grad():
        first.fill_(2.0)
        second.fill_(3.0)
    with pytest.raises(GradientError, match="changed in TensorFlow and in torch"):
        module(torch.ones(1))
    assert variable.numpy().item() == 1.0


def test_what_tensorflow_changes_in_some_of_many_variables() -> None:
    variables = [tf.Variable(tf.fill([16], float(i))) for i in range(50)]
    module = TfModule(lambda x: x + tf.add_n(variables), variables=variables)
    parameters = list(module.parameters())
    with owners():
        for number in (3, 17, 49):
            variables[number].assign(tf.fill([16], 100.0))
        scattered = variables[20]  # from now on every read of it is a copy
        scattered.scatter_update(tf.IndexedSlices([100.0], [0]))
        expected = sum(range(50)) - 3 - 17 - 49 + 300
        assert module(torch.zeros(16)).tolist() == [expected + 80.0] + [float(expected)] * 15
        for number in (3, 17, 49):
            assert parameters[number].tolist() == [100.0] * 16
            assert shares_memory(variables[number].read_value(), parameters[number])
        assert parameters[20].tolist() == [100.0] + [20.0] * 15
        for variable, parameter in zip(variables, parameters, strict=True):
            assert shares_memory(variable.read_value(), parameter)


_TWO_DEVICES = """
(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
variables = []
for number in (0, 1):
    with tf.device(f"CPU:{number}"):
        variables += [tf.Variable(tf.fill([64], 1.0 + number)), tf.Variable(tf.fill([64], 3.0))]
module = tensor_bridge.autograd.TfModule(
    lambda x: x * tf.add_n(variables), variables=variables
)
parameters = list(module.parameters())
x = torch.ones(64)
assert module(x).tolist() == [9.0] * 64
with torch.no_grad():
    parameters[0].fill_(11.0)
    parameters[2].fill_(12.0)
assert module(x).tolist() == [29.0] * 64
assert [v.numpy()[0] for v in variables] == [11.0, 3.0, 12.0, 3.0]
for variable in variables:
    variable.assign_add(tf.ones([64]))
assert module(x).tolist() == [33.0] * 64
assert [p.tolist() for p in parameters] == [[n] * 64 for n in (12.0, 4.0, 13.0, 4.0)]
with torch.no_grad():
    parameters[3].fill_(0.0)
assert module(x).tolist() == [29.0] * 64
print("equal on both devices")
"""


def test_variables_on_two_devices() -> None:
    done = run_forked("import tensor_bridge.autograd\n" + _TWO_DEVICES)
    assert done.check() == "equal on both devices"


@needs.keras_3
@pytest.mark.parametrize("graph", [False, True])
def test_train_and_eval_reach_keras_and_statistics_move(graph: bool) -> None:
    model = small_model()
    module = TfModule(model, graph=graph)
    x, _ = images(16)
    name = next(n for n, _ in module.named_buffers() if "moving_mean" in n)
    before = module.get_buffer(name).clone()
    module.eval()
    assert torch.equal(module(x), module(x))
    assert torch.equal(module.get_buffer(name), before)
    module.train()
    assert not torch.equal(module(x), module(x))  # dropout
    moved = module.get_buffer(name)
    assert not torch.equal(moved, before)
    by_path = {v.path: v for v in model.variables}
    assert moved.tolist() == by_path[name].numpy().tolist()
    assert torch.equal(module(x, training=False), module(x, training=False))


@needs.keras_3
def test_state_dict_round_trip() -> None:
    module = TfModule(small_model()).eval()
    x, _ = images(4)
    expected = module(x).detach().clone()
    state = {name: value.clone() for name, value in module.state_dict().items()}
    module.train()
    optimizer = torch.optim.Adam(module.parameters(), lr=0.1)
    module(x).sum().backward()
    optimizer.step()
    module.eval()
    assert not torch.allclose(module(x), expected)
    for assign in (False, True):
        module.load_state_dict(state, assign=assign)
        by_path = {v.path: v for v in module.fn.variables}
        assert all(by_path[n].numpy().tolist() == value.tolist() for n, value in state.items())
        torch.testing.assert_close(module(x), expected)
    by_path[next(iter(state))].assign_add(tf.ones_like(next(iter(by_path.values()))))
    assert torch.equal(module.state_dict()[next(iter(state))], next(iter(state.values())) + 1)


def test_functional_call_and_frozen_parameters() -> None:
    variable = tf.Variable([2.0])
    module = TfModule(lambda x: x * variable, variables=[variable])
    (name,) = dict(module.named_parameters())
    other = {name: torch.tensor([5.0], requires_grad=True)}
    x = torch.ones(1)
    torch.func.functional_call(module, other, (x,)).sum().backward()
    assert other[name].grad.tolist() == [1.0]
    assert module(x).item() == 2.0
    module.requires_grad_(False)
    assert not module(x).requires_grad


def test_what_cannot_be_wrapped_or_copied() -> None:
    with pytest.raises(tensor_bridge.UnsupportedTypeError, match="variables="):
        TfModule(lambda x: x)
    with pytest.raises(tensor_bridge.UnsupportedTypeError, match="not built"):
        TfModule(keras.layers.Dense(2))
    layer = keras.layers.Dense(2)
    layer.build((None, 2))
    module = TfModule(layer)
    with pytest.raises(tensor_bridge.UnsupportedTypeError, match="clone_model"):
        copy.deepcopy(module)
    with pytest.raises(tensor_bridge.UnsupportedTypeError, match="state_dict"):
        pickle.dumps(module)
    module.double()
    with pytest.raises(tensor_bridge.MismatchError, match="float64"):
        module(torch.ones(1, 2))


@pytest.mark.parametrize("frozen", [True, False])
def test_a_keras_backbone_with_a_torch_head_learns_images(frozen: bool) -> None:
    torch.manual_seed(0)
    backbone = TfModule(small_model())
    backbone.requires_grad_(not frozen)
    head = torch.nn.Linear(8, 2)
    x, labels = images(64)
    trained = [p for p in (*backbone.parameters(), *head.parameters()) if p.requires_grad]
    before = {n: p.detach().clone() for n, p in backbone.named_parameters()}
    optimizer = torch.optim.Adam(trained, lr=0.03)
    losses = []
    for _ in range(40):
        loss = torch.nn.functional.cross_entropy(head(backbone(x)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < (0.9 if frozen else 0.5) * losses[0]
    same = [torch.equal(p, before[n]) for n, p in backbone.named_parameters()]
    assert all(same) if frozen else not any(same)


@needs.keras_3
def test_training_equals_that_of_one_framework() -> None:
    """A network with its first half in TensorFlow equals one in torch after every step."""
    torch.manual_seed(0)
    dense = keras.layers.Dense(6, activation="tanh")
    dense.build((None, 3))
    twin = torch.nn.Linear(3, 6)
    with torch.no_grad():
        twin.weight.copy_(tensor_bridge.to_torch(dense.kernel).t())
        twin.bias.copy_(tensor_bridge.to_torch(dense.bias))
    heads = [torch.nn.Linear(6, 1) for _ in range(2)]
    heads[1].load_state_dict(heads[0].state_dict())
    mixed = torch.nn.Sequential(TfModule(dense), heads[0])
    alone = torch.nn.Sequential(twin, torch.nn.Tanh(), heads[1])
    x, y = torch.randn(32, 3), torch.randn(32, 1)
    losses: list[list[float]] = []
    for net in (mixed, alone):
        optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
        losses.append([])
        for _ in range(20):
            loss = (net(x) - y).pow(2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses[-1].append(loss.item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    torch.testing.assert_close(mixed[0].get_parameter(dense.kernel.path).t(), twin.weight)


def test_steps_of_a_torch_optimizer_leave_nothing() -> None:
    layer = keras.layers.Dense(256)
    layer.build((None, 256))
    module = TfModule(layer)
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-3, momentum=0.9)
    x = torch.ones(1, 256)

    def step() -> None:
        optimizer.zero_grad()
        module(x).sum().backward()
        optimizer.step()

    def plain_step() -> None:
        with tf.GradientTape() as tape:
            y = tf.reduce_sum(layer(tf.ones([1, 256])))
        tape.gradient(y, layer.trainable_variables)

    for _ in range(100):
        step()
    with owners():
        growth_over(step, plain_step, 200).assert_flat()


@needs.keras_3
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_of_keras(policy: str) -> None:
    layer = keras.layers.Dense(4, dtype=policy)
    layer.build((None, 3))
    module = TfModule(layer)
    x = torch.randn(2, 3, requires_grad=True)
    y = module(x)
    assert y.dtype == (torch.float16 if policy == "mixed_float16" else torch.bfloat16)
    y.float().sum().backward()
    kernel = module.get_parameter(layer.kernel.path)
    assert kernel.grad.dtype == torch.float32
    torch.testing.assert_close(
        kernel.grad, x.detach().sum(0)[:, None].expand(3, 4), rtol=0.02, atol=0.02
    )
    assert x.grad.dtype == torch.float32


def aligned() -> torch.Tensor:
    return torch.zeros(4)


def misaligned() -> torch.Tensor:
    return torch.zeros(5)[1:]


def strided() -> torch.Tensor:
    return torch.zeros(8)[::2]


def with_an_array() -> torch.Tensor:
    x = torch.zeros(4)
    x.numpy()
    return x


def step_fused(p: torch.nn.Parameter) -> None:
    p.grad = torch.full_like(p, -1.0)
    torch.optim.SGD([p], lr=1.0, fused=True).step()


def write_data(p: torch.nn.Parameter) -> None:
    p.data.add_(1.0)


def write_array(p: torch.nn.Parameter) -> None:
    p.detach().numpy()[...] += 1.0


def write_negative_zero(p: torch.nn.Parameter) -> None:
    p.data.mul_(-1.0)


@pytest.mark.parametrize("write", [step_fused, write_data, write_array, write_negative_zero])
@pytest.mark.parametrize("memory", [aligned, misaligned, strided, with_an_array])
def test_writes_that_no_version_counts_reach_tensorflow(memory: Any, write: Any) -> None:
    v = tf.Variable(tf.zeros(4))
    module = TfModule(lambda x: x * v, variables=[v])
    (p,) = module.parameters()
    assert isinstance(p, torch.nn.Parameter)
    p.data = memory()
    ones = torch.ones(4)
    assert module(ones).tolist() == [0.0] * 4
    for _ in range(3):
        version = p._version
        write(p)
        assert p._version == version
        expected = p.detach().clone()
        found = module(ones).detach()
        assert torch.equal(found, expected)
        assert torch.equal(torch.signbit(found), torch.signbit(expected))
    v.assign(tf.fill(4, 7.0))
    assert module(ones).tolist() == [7.0] * 4
