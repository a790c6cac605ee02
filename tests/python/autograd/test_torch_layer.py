"""torch modules as Keras layers: weights, training, statistics, saving."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import needs
import pytest
import tensorflow as tf
import torch

import tensor_bridge
from tensor_bridge.autograd import torch_to_tf
from tensor_bridge.testing import shares_memory

TorchLayer = tensor_bridge.autograd.TorchLayer
if not needs.KERAS_3:
    with pytest.raises(tensor_bridge.errors.UnsupportedTypeError, match=r"expected Keras 3, got"):
        TorchLayer(torch.nn.Linear(2, 2))
    pytest.skip("TorchLayer is a layer of Keras 3", allow_module_level=True)


@keras.saving.register_keras_serializable("tensor_bridge_tests")
def network(width: int = 8) -> torch.nn.Module:
    return torch.nn.Sequential(
        torch.nn.Linear(3, width),
        torch.nn.BatchNorm1d(width),
        torch.nn.ReLU(),
        torch.nn.Linear(width, 1),
    )


@pytest.fixture(autouse=True)
def seeds() -> None:
    keras.utils.set_random_seed(0)
    torch.manual_seed(0)


def data(count: int = 256) -> tuple[Any, Any]:
    x = tf.random.stateless_normal([count, 3], (1, 2))
    return x, tf.reduce_sum(x, 1, keepdims=True)


def test_weights_are_the_modules_parameters_and_buffers() -> None:
    module = network()
    module[0].bias.requires_grad_(False)
    layer = TorchLayer(module)
    named = {v.name: v for v in layer.variables}
    expected = dict(module.named_parameters()) | dict(module.named_buffers())
    assert named.keys() == expected.keys()
    shared = shares_memory(named["0.weight"].value.read_value(), module[0].weight)
    assert shared == needs.SHARES_TO_TF
    assert len(layer.trainable_variables) == 5
    x, _ = data(4)
    module.eval()
    expected_y = module(tensor_bridge.to_torch(x))
    torch.testing.assert_close(tensor_bridge.to_torch(layer(x)), expected_y.detach())


def forget(layer: Any) -> None:
    """Gives the module and the weights separate memory.

    TensorFlow keeps the graphs that `fit` traces, and the variables they refer to, for good:
    https://github.com/tensorflow/tensorflow/issues/124972. Delete with the release that does not.
    """
    for x in (*layer.module.parameters(), *layer.module.buffers()):
        x.data = x.data.clone()
    for variable in layer.variables:
        variable.assign(variable.value * 1)


@pytest.mark.parametrize("eagerly", [False, True])
def test_fit_with_a_torch_loss_trains_it_and_moves_its_statistics(eagerly: bool) -> None:
    layer = TorchLayer(network())
    model = keras.Sequential([keras.Input((3,)), layer])
    assert model.output_shape == (None, 1)
    loss = torch_to_tf(torch.nn.functional.mse_loss)
    model.compile("adam", loss=lambda t, p: loss(p, t), run_eagerly=eagerly, jit_compile=False)
    model.optimizer.learning_rate = 0.02
    statistics = {v.name: v for v in layer.non_trainable_variables}
    before = statistics["1.running_mean"].numpy().copy()
    x, y = data()
    history = model.fit(x, y, epochs=4, batch_size=64, verbose=0).history["loss"]
    assert history[-1] < 0.5 * history[0]
    assert (statistics["1.running_mean"].numpy() != before).all()
    assert statistics["1.num_batches_tracked"].numpy() == 16
    kept = statistics["1.running_mean"].numpy().copy()
    model.predict(x, verbose=0)
    assert (statistics["1.running_mean"].numpy() == kept).all()
    layer.pull()
    layer.module.eval()
    torch.testing.assert_close(
        layer.module(tensor_bridge.to_torch(x)).detach(), tensor_bridge.to_torch(model(x))
    )
    forget(layer)


def test_fit_equals_training_in_torch() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    twin = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    twin.load_state_dict(module.state_dict())
    model = keras.Sequential([keras.Input((3,)), TorchLayer(module)])
    loss = torch_to_tf(torch.nn.functional.mse_loss)
    model.compile(keras.optimizers.SGD(0.05), loss=lambda t, p: loss(p, t), jit_compile=False)
    x, y = data()
    model.fit(x, y, epochs=5, batch_size=256, shuffle=False, verbose=0)
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.05)
    for _ in range(5):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(
            twin(tensor_bridge.to_torch(x)), tensor_bridge.to_torch(y)
        ).backward()
        optimizer.step()
    for variable, parameter in zip(model.trainable_variables, twin.parameters(), strict=True):
        torch.testing.assert_close(tensor_bridge.to_torch(variable), parameter.detach())


# Keras warns when it reads variables into NumPy arrays.
@pytest.mark.filterwarnings("ignore:__array__ implementation")
def test_saved_and_restored_with_the_model(tmp_path: Path) -> None:
    x, y = data(8)
    model = keras.Sequential(
        [keras.Input((3,)), TorchLayer(factory=network, arguments={"width": 4})]
    )
    model.compile("adam", "mse", jit_compile=False)
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert (loaded.predict(x, verbose=0) == model.predict(x, verbose=0)).all()
    model.save_weights(tmp_path / "model.weights.h5")
    other = keras.Sequential([keras.Input((3,)), TorchLayer(network(4))])
    assert (other(x).numpy() != model(x).numpy()).any()
    other.load_weights(tmp_path / "model.weights.h5")
    assert (other(x).numpy() == model(x).numpy()).all()
    for network_ in (model, loaded, other):
        forget(network_.layers[-1])


def test_what_cannot_be_saved_says_what_to_do() -> None:
    with pytest.raises(tensor_bridge.UnsupportedTypeError, match="factory="):
        TorchLayer(network()).get_config()
    with pytest.raises(tensor_bridge.UnsupportedTypeError, match="not registered"):
        TorchLayer(factory=lambda: torch.nn.Linear(1, 1)).get_config()
    config = TorchLayer(factory=network).get_config()
    with pytest.raises(tensor_bridge.UnsupportedTypeError, match=r"'os>system' is not registered"):
        TorchLayer.from_config({**config, "factory": "os>system"})
    with pytest.raises(tensor_bridge.InvalidOptionError, match="not both"):
        TorchLayer(network(), factory=network)
    with pytest.raises(tensor_bridge.UnsupportedTypeError, match="torch_to_tf"):
        TorchLayer(torch.sin)


def test_push_and_pull() -> None:
    layer = TorchLayer(torch.nn.Linear(2, 1))
    with torch.no_grad():
        layer.module.weight.fill_(3.0)
    layer.push()
    assert layer.trainable_variables[0].numpy().tolist() == [[3.0, 3.0]]
    layer.trainable_variables[0].assign([[1.0, 2.0]])
    layer.pull()
    assert layer.module.weight.tolist() == [[1.0, 2.0]]


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_runs_under_autocast(policy: str) -> None:
    layer = TorchLayer(network(), dtype=policy)
    x, _ = data(16)
    with tf.GradientTape() as tape:
        y = layer(x, training=True)
        loss = tf.reduce_mean(tf.cast(y, tf.float32) ** 2)
    assert y.dtype.name == policy.removeprefix("mixed_")
    found = tape.gradient(loss, layer.trainable_variables)
    assert all(g.dtype == tf.float32 for g in found)
    reference = TorchLayer(layer.module)
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(reference(x, training=True) ** 2)
    for a, b in zip(found, tape.gradient(loss, reference.trainable_variables), strict=True):
        torch.testing.assert_close(
            tensor_bridge.to_torch(a), tensor_bridge.to_torch(b), rtol=0.1, atol=0.02
        )


@pytest.mark.parametrize("batch", [None, 7])
def test_an_input_of_the_wrong_width_is_told_by_its_shape(
    batch: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    layer = TorchLayer(torch.nn.Linear(3, 1))
    with pytest.raises(tensor_bridge.GradientError) as caught:
        layer(keras.Input((4,), batch_size=batch))
    text = str(caught.value)
    assert "the torch function 'Linear' fails for the shapes of its arguments: Runtime" in text
    assert f"got [{batch or 96}, 4] X [3, 1]" in text
    assert "Give arguments of shapes that it takes; if it needs values, " in text
    assert ("(96 stands for an unknown size)" in text) == (batch is None)
    # torch logs the failure of an operation on fake tensors, with its traceback.
    assert [record for record in caplog.records if record.name.startswith("torch.")] == []
