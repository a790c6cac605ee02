"""The recipes of the guide, on generated data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorflow as tf
import torch
from torch import nn

from tensor_bridge.data import TorchDataset, loader

SIZE = 16


def write_images(folder: Path, files: int, per_file: int) -> list[str]:
    """JPEG images of two classes, bright above or below, as tf.train.Example in TFRecords."""
    torch.manual_seed(0)
    paths = []
    for number in range(files):
        paths.append(str(folder / f"images-{number}.tfrecord"))
        with tf.io.TFRecordWriter(paths[-1]) as writer:
            for i in range(per_file):
                label = i % 2
                image = torch.randint(0, 100, (SIZE, SIZE, 3), dtype=torch.uint8)
                image[label * SIZE // 2 : (label + 1) * SIZE // 2] += 120
                jpeg = tf.io.encode_jpeg(image.numpy(), quality=95).numpy()
                feature = {
                    "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[jpeg])),
                    "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
                }
                example = tf.train.Example(features=tf.train.Features(feature=feature))
                writer.write(example.SerializeToString())
    return paths


def images(paths: list[str]) -> tf.data.Dataset:
    features = {
        "image": tf.io.FixedLenFeature([], tf.string),
        "label": tf.io.FixedLenFeature([], tf.int64),
    }

    def parse(record: Any) -> Any:
        example = tf.io.parse_single_example(record, features)
        image = tf.io.decode_jpeg(example["image"], channels=3)
        image = tf.image.random_flip_left_right(tf.cast(image, tf.float32) / 255)
        return {"image": tf.transpose(image, [2, 0, 1]), "label": example["label"]}

    names = tf.data.Dataset.from_tensor_slices(paths).shuffle(len(paths), seed=1)
    records = names.interleave(tf.data.TFRecordDataset, cycle_length=2)
    ds = records.shuffle(64, seed=2).map(parse, num_parallel_calls=tf.data.AUTOTUNE)
    return ds.batch(16, drop_remainder=True)


def test_jpeg_images_in_tfrecords_train_a_network(tmp_path: Path) -> None:
    made = loader(images(write_images(tmp_path, files=2, per_file=64)))
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Linear(64, 2),
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    losses = []
    for _ in range(4):
        total = 0.0
        for batch in made:
            assert batch["image"].shape == (16, 3, SIZE, SIZE)
            loss = nn.functional.cross_entropy(network(batch["image"]), batch["label"])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
        losses.append(total / 8)
    assert losses[-1] < 0.1
    assert losses[-1] < losses[0] / 3


def test_a_dataset_in_the_manner_of_tfds() -> None:
    # Like tfds.load(..., as_supervised=True): pairs with decoded images.
    pictures = tf.random.stateless_uniform((10, 8, 8, 1), (1, 2), maxval=255, dtype=tf.int32)
    ds = tf.data.Dataset.from_tensor_slices((tf.cast(pictures, tf.uint8), tf.range(10)))
    ds = ds.cache().shuffle(10, seed=0).batch(4).prefetch(tf.data.AUTOTUNE)
    seen = []
    for image, label in loader(ds):
        assert image.dtype == torch.uint8
        for one, number in zip(image, label.tolist(), strict=True):
            assert torch.equal(one, torch.tensor(pictures[number].numpy(), dtype=torch.uint8))
            seen.append(number)
    assert sorted(seen) == list(range(10))


def episodes() -> tf.data.Dataset:
    """Three RLDS episodes of 2, 3 and 4 steps."""

    def episode(number: Any) -> Any:
        def step(i: Any) -> Any:
            return {
                "observation": {"image": tf.fill([4, 4, 3], tf.cast(i, tf.uint8)), "state": [i, i]},
                "action": tf.cast([i], tf.float32),
                "is_last": tf.equal(i, number + 1),
                "language_instruction": tf.strings.join(["go ", tf.strings.as_string(i)]),
            }

        return {"episode_id": number, "steps": tf.data.Dataset.range(number + 2).map(step)}

    return tf.data.Dataset.range(3).map(episode)


def test_rlds_episodes_as_datasets_of_steps() -> None:
    lengths = []
    for episode in TorchDataset(episodes(), strings="list"):
        steps = list(episode["steps"])
        lengths.append(len(steps))
        assert [bool(step["is_last"]) for step in steps] == [False] * (len(steps) - 1) + [True]
        assert steps[1]["observation"]["image"].unique().tolist() == [1]
        assert steps[1]["language_instruction"] == b"go 1"
    assert lengths == [2, 3, 4]


def test_rlds_episodes_in_ragged_batches() -> None:
    def whole(episode: Any) -> Any:
        steps = episode["steps"].batch(100)
        return episode["episode_id"], steps.get_single_element()

    ds = episodes().map(whole).ragged_batch(3)
    ((number, steps),) = TorchDataset(ds)
    assert number.tolist() == [0, 1, 2]
    action = steps["action"]
    assert [row.tolist() for row in action.unbind()] == [
        [[0.0], [1.0]],
        [[0.0], [1.0], [2.0]],
        [[0.0], [1.0], [2.0], [3.0]],
    ]
    assert steps["observation"]["image"].shape[0] == 3
    assert steps["language_instruction"].to_list()[0] == [b"go 0", b"go 1"]


def test_text_with_strings() -> None:
    lines = tf.data.Dataset.from_tensor_slices(["the cat", "a dog ran", "café"])
    ds = lines.map(lambda line: {"line": line, "words": tf.strings.split(line)}).ragged_batch(2)
    batches = list(TorchDataset(ds))
    assert batches[0]["line"].to_str() == ["the cat", "a dog ran"]
    assert batches[0]["words"].to_list() == [[b"the", b"cat"], [b"a", b"dog", b"ran"]]
    assert batches[1]["line"].to_str() == ["café"]
