"""torchcodec and torchvision, which load only with the builds of torch for which they were made."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import tensorflow as tf
import torch
from made import made
from package_copy import copy_of_the_package
from tree import ROOT

# Runs in another interpreter without a test module, because test modules import TensorFlow.
DECODES = """
import json, sys
import torch
from tensor_bridge import records
decoder = sys.argv[1]
for name, path, channels, dtype in json.load(sys.stdin):
    data = open(path, "rb").read()
    image = records.decode_image(data, channels=channels, dtype=dtype, decoder=decoder)
    print(json.dumps([name, str(image.dtype), list(image.shape), image.flatten().tolist()]))
try:
    records.decode_image(data[: len(data) // 2], decoder=decoder)
except records.RecordError as e:
    print(json.dumps(["half", str(e)]))
"""
INSTALLER = ROOT / "tools" / "install_group.py"


def _install(folder):
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    install = [folder / "venv/bin/python", INSTALLER, "image-libraries", "--", "--quiet"]
    subprocess.run(install, check=True)


@pytest.fixture(scope="module")
def python():
    """An interpreter with the libraries, and torch's build for CUDA: several GB."""
    return made("image-libraries", [ROOT / "pyproject.toml"], _install) / "venv/bin/python"


def _pixels(channels, dtype):
    count = 5 * 7 * channels
    most = 65535 if dtype == tf.uint16 else 255
    return tf.cast(tf.reshape(tf.range(count) * 7919 % (most + 1), (5, 7, channels)), dtype)


@pytest.mark.exhaustive
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("decoder", ["torchcodec", "torchvision", "pillow"])
def test_each_library_decodes_exactly(python, decoder, tmp_path):
    asked, expected = [], {}
    for channels, dtype in [(1, "uint8"), (2, "uint8"), (3, "uint8"), (4, "uint8"), (1, "uint16")]:
        pixels = _pixels(channels, getattr(tf, dtype))
        path = tmp_path / f"{channels}{dtype}.png"
        path.write_bytes(tf.io.encode_png(pixels).numpy())
        asked.append([path.name, str(path), channels, dtype])
        expected[path.name] = tf.transpose(pixels, (2, 0, 1))
    planes = tf.stack([tf.range(48) * 5, tf.range(48) * 2, tf.range(48)], -1)
    encoded = tf.io.encode_jpeg(tf.cast(tf.tile(planes[None], (32, 1, 1)), tf.uint8))
    path = tmp_path / "photo.jpeg"
    path.write_bytes(encoded.numpy())
    asked.append([path.name, str(path), 3, "uint8"])
    judge = tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE")
    expected[path.name] = tf.transpose(judge, (2, 0, 1))
    copy_of_the_package(tmp_path)
    done = subprocess.run(
        [python, "-W", "ignore", "-c", DECODES, decoder],
        input=json.dumps(asked),
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *images, half = map(json.loads, done.stdout.splitlines())
    for name, dtype, shape, values in images:
        judge = expected[name]
        assert (dtype, shape) == (f"torch.{judge.dtype.name}", judge.shape.as_list()), name
        assert torch.equal(torch.tensor(values), torch.tensor(judge.numpy().ravel().tolist())), name
    assert len(images) == len(expected)
    assert half[0] == "half"
    assert decoder in half[1]
