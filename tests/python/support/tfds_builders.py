"""Data sets that TFDS prepares for the tests, and the comparison of its values with ours."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest
import tensorflow as tf
import torch

tfds = pytest.importorskip("tensorflow_datasets")
F = tfds.features


def _find_dm_tree():
    """Makes TFDS import dm-tree, whose name `tree` a module in this folder also has."""
    ours, path = sys.modules.pop("tree", None), sys.path
    sys.path = [folder for folder in path if Path(folder).resolve() != Path(__file__).parent]
    from tensorflow_datasets.core.utils import lazy_imports_utils

    try:
        assert lazy_imports_utils.tree.map_structure
    finally:
        sys.path = path
        del sys.modules["tree"]
        if ours is not None:
            sys.modules["tree"] = ours


_find_dm_tree()

# The last three dimensions of these are an image's; ours have the channels first.
IMAGES = {"image", "labeled", "png16", "floats", "video", "images", "frame"} | {
    *("rgba", "any", "deep_images", "depths", "masks", "fixed")
}


def pixels(draw, height, width, channels, most=255):
    count = height * width * channels
    return tf.reshape([draw.randint(0, most) for _ in range(count)], (height, width, channels))


def _uint8(draw, *shape):
    return tf.cast(pixels(draw, *shape), tf.uint8).numpy()


def everything():
    return {
        "image": F.Image(shape=(None, None, 3)),
        "labeled": F.LabeledImage(labels=["sky", "sea"], shape=(None, None, 1)),
        "png16": F.Image(shape=(4, 5, 1), dtype=tf.uint16),
        "floats": F.Image(shape=(4, 5, 1), dtype=tf.float32),
        "label": F.ClassLabel(names=["a", "b", "c"]),
        "matrix": F.Tensor(shape=(2, 3), dtype=tf.float32),
        "double": F.Tensor(shape=(2,), dtype=tf.float64),
        "packed": F.Tensor(shape=(2, None), dtype=tf.int32, encoding="zlib"),
        "raw": F.Tensor(shape=(2, 3), dtype=tf.float64, encoding="bytes"),
        "dynamic": F.Tensor(shape=(None, None, 2), dtype=tf.int32, encoding="zlib"),
        "columns": F.Tensor(shape=(2, None), dtype=tf.uint8),
        "strings": F.Tensor(shape=(2,), dtype=tf.string),
        "flag": F.Scalar(dtype=tf.bool),
        "large": F.Scalar(dtype=tf.uint64),
        "text": F.Text(),
        "translation": F.Translation(["en", "de"]),
        "languages": F.TranslationVariableLanguages(["en", "de"]),
        "video": F.Video(shape=(None, 4, 4, 3)),
        "audio": F.Audio(),
        "box": F.BBoxFeature(),
        "numbers": F.Sequence(tf.int32),
        "three": F.Sequence(tf.int16, length=3),
        "parts": F.Sequence({"a": tf.int64, "b": F.Sequence(tf.float32), "c": F.Text()}),
        "deep": F.Sequence(F.Sequence(F.Sequence(F.Text()))),
        "images": F.Sequence(F.Image(shape=(2, 2, 3))),
        "zipped": F.Sequence(F.Tensor(shape=(2,), dtype=tf.int32, encoding="zlib")),
        "nested": F.Dataset(
            {"x": tf.float32, "frame": F.Image(shape=(2, 2, 3)), "y": F.Sequence(tf.int32)}
        ),
        "dict": {"one": tf.int8, "two": {"three": tf.float16}},
    }


def example(i):
    draw = random.Random(i)
    large = tf.cast(pixels(draw, 4, 5, 1, 65535), tf.uint16).numpy()
    return {
        "image": _uint8(draw, 4 + i, 5, 3),
        "labeled": _uint8(draw, 3, 4 + i, 1) % 2,
        "png16": large,
        "floats": tf.reshape([draw.random() for _ in range(20)], (4, 5, 1)).numpy(),
        "label": "abc"[i % 3],
        "matrix": [[draw.random() for _ in range(3)] for _ in range(2)],
        "double": [0.5 * i, -1.25],
        "packed": [list(range(i)), list(range(i, 2 * i))],
        "raw": [[draw.random() for _ in range(3)] for _ in range(2)],
        "dynamic": tf.reshape(tf.range(i * 6), (i, 3, 2)).numpy(),
        "columns": [list(range(i)), list(range(i, 2 * i))],
        "strings": ["k", "ä" * i],
        "flag": i % 2 == 0,
        "large": 2**64 - 1 - i,
        "text": f"text {i}",
        "translation": {"en": "cat", "de": "Katze"},
        "languages": {"en": ["a cat", "cat"], "de": "Katze"},
        "video": [_uint8(draw, 4, 4, 3) for _ in range(1 + i)],
        "audio": tf.range(i, dtype=tf.int64).numpy(),
        "box": F.BBox(0.1, 0.2, 0.3, 0.4),
        "numbers": list(range(i)),
        "three": [i, i + 1, i + 2],
        "parts": [{"a": j, "b": [0.5] * j, "c": str(j)} for j in range(i)],
        "deep": [[["x"] * j for j in range(i)], [], [["y"]]],
        "images": [_uint8(draw, 2, 2, 3) for _ in range(i)],
        "zipped": [[j, -j] for j in range(i)],
        "nested": [
            {"x": j / 2, "frame": _uint8(draw, 2, 2, 3), "y": list(range(j))} for j in range(i)
        ],
        "dict": {"one": -i, "two": {"three": i / 4}},
    }


def combined():
    """Features within others, and dtypes and encodings that `everything` does not combine."""
    inner = {
        "pairs": F.Sequence({"a": tf.int64, "b": F.Text()}),
        "rows": F.Sequence(F.Sequence(tf.int64)),
        "zipped": F.Tensor(shape=(None, 2), dtype=tf.int32, encoding="zlib"),
        "sized": F.Tensor(shape=(None, None), dtype=tf.int32, encoding="bytes"),
        "words": F.Tensor(shape=(2,), dtype=tf.string),
        "label": F.ClassLabel(num_classes=3),
        "clip": {"video": F.Video(shape=(None, 2, 2, 3))},
        "languages": F.TranslationVariableLanguages(["en", "de"]),
        "inner": F.Dataset({"x": tf.int64}),
    }
    return {
        "labels": F.Sequence(F.ClassLabel(names=["a", "b"])),
        "boxes": F.Sequence(F.BBoxFeature()),
        "translations": F.Sequence(F.Translation(["en", "de"])),
        "stereo": F.Audio(shape=(None, 2)),
        "sound": F.Audio(dtype=tf.float32),
        "rgba": F.Image(shape=(None, None, 4)),
        "any": F.Image(shape=(None, None, None)),
        "deep_images": F.Sequence(F.Image(shape=(2, 2, 1), dtype=tf.uint16)),
        "depths": F.Sequence(F.Image(shape=(2, 2, 1), dtype=tf.float32)),
        "masks": F.Sequence(F.LabeledImage(labels=3, shape=(None, None, 1))),
        "fixed": F.Video(shape=(3, 2, 2, 3)),
        "flags": F.Tensor(shape=(5,), dtype=tf.bool, encoding="zlib"),
        "short": F.Tensor(shape=(), dtype=tf.int16, encoding="bytes"),
        "half": F.Tensor(shape=(2,), dtype=tf.float16),
        "huge": F.Tensor(shape=(2,), dtype=tf.uint64, encoding="zlib"),
        "unsigned": F.Tensor(shape=(2,), dtype=tf.uint32),
        "words": F.Tensor(shape=(2, None), dtype=tf.string),
        "two": F.Sequence(F.Tensor(shape=(2, 2), dtype=tf.float64, encoding="bytes"), length=2),
        "plain": F.Dataset(tf.int64),
        "nested": F.Dataset(inner),
    }


def combined_example(i):
    draw = random.Random(i)
    box = F.BBox(0.1, 0.2, 0.3, 0.4)
    return {
        "labels": ["a", "b"][:i],
        "boxes": [box] * i,
        "translations": [{"en": "cat", "de": "Katze"}] * i,
        "stereo": tf.ones((i, 2), tf.int64).numpy(),
        "sound": tf.ones(i).numpy(),
        "rgba": _uint8(draw, 3, 4, 4),
        "any": _uint8(draw, 3, 4, 3),
        "deep_images": [tf.fill((2, 2, 1), tf.cast(999 * j, tf.uint16)).numpy() for j in range(i)],
        "depths": [tf.fill((2, 2, 1), j / 7).numpy() for j in range(i)],
        "masks": [_uint8(draw, 2, 2, 1) % 3] * i,
        "fixed": [_uint8(draw, 2, 2, 3)] * 3,
        "flags": [j % 2 == i % 2 for j in range(5)],
        "short": -i,
        "half": [i, 0.5],
        "huge": [2**63 + i, 1],
        "unsigned": [2**32 - 1 - i, 1],
        "words": [["x"] * i] * 2,
        "two": tf.ones((2, 2, 2), tf.float64).numpy(),
        "plain": list(range(i)),
        "nested": [
            {
                "pairs": [{"a": k, "b": "q"} for k in range(j)],
                "rows": [[1] * k for k in range(j)],
                "zipped": tf.ones((j, 2), tf.int32).numpy(),
                "sized": tf.ones((j, j + 1), tf.int32).numpy(),
                "words": ["a", "ä" * j],
                "label": j % 3,
                "clip": {"video": [_uint8(draw, 2, 2, 3)] * j},
                "languages": {"en": ["a cat", "cat"], "de": "Katze"},
                "inner": [{"x": k} for k in range(j)],
            }
            for j in range(i)
        ],
    }


class _Builder(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")
    counts = (("train", 5), ("test", 2))
    supervised = None

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            description="Made for a test.",
            features=F.FeaturesDict(self.made_features()),
            supervised_keys=self.supervised,
            disable_shuffling=True,
        )

    def _split_generators(self, _):
        return {split: self._examples(count) for split, count in self.counts}

    def _examples(self, count):
        for i in range(count):
            yield i, self.made_example(i)

    def _generate_examples(self):
        raise NotImplementedError


class Everything(_Builder):
    """Each kind of feature."""

    supervised = ({"image": "image", "box": "box"}, "label")
    made_features = staticmethod(everything)
    made_example = staticmethod(example)


class Combined(_Builder):
    """Features within others."""

    counts = (("train", 4),)
    made_features = staticmethod(combined)
    made_example = staticmethod(combined_example)


class Numbers(_Builder):
    """A number in each example."""

    counts = (("train", 107), ("test", 12), ("more-data", 3))
    made_features = staticmethod(lambda: {"x": tf.int64})
    made_example = staticmethod(lambda i: {"x": i})


class Photos(_Builder):
    """JPEG images."""

    @staticmethod
    def made_features():
        return {"image": F.Image(shape=(None, None, 3), encoding_format="jpeg")}

    @staticmethod
    def made_example(i):
        rows, columns = tf.meshgrid(tf.range(24 + i), tf.range(32), indexing="ij")
        planes = tf.stack([rows * 8, columns * 6, rows + columns], -1)
        return {"image": tf.cast(planes, tf.uint8).numpy()}


def episode(i):
    draw = random.Random(i)
    length = 3 + 2 * i
    return {
        "steps": [
            {
                "observation": {"frame": _uint8(draw, 2, 3, 3), "state": [i / 2, j / 4]},
                "action": [float(j)] * 3,
                "reward": j / 2,
                "is_first": j == 0,
                "is_last": j == length - 1,
                "is_terminal": j == length - 1,
                "text": f"step {j}",
            }
            for j in range(length)
        ],
        "episode_id": i,
    }


class Episodes(_Builder):
    """Episodes of RLDS."""

    counts = (("train", 4),)
    made_example = staticmethod(episode)

    @staticmethod
    def made_features():
        step = {
            "observation": {
                "frame": F.Image(shape=(2, 3, 3)),
                "state": F.Tensor(shape=(2,), dtype=tf.float32),
            },
            "action": F.Tensor(shape=(3,), dtype=tf.float32),
            "reward": tf.float32,
            "is_first": tf.bool,
            "is_last": tf.bool,
            "is_terminal": tf.bool,
            "text": F.Text(),
        }
        return {"steps": F.Dataset(step), "episode_id": tf.int64}


def prepared(builder, folder, shards=1, file_format=None):
    """A builder with its prepared data in a folder."""
    made = builder(data_dir=str(folder), file_format=file_format)
    made.download_and_prepare(download_config=tfds.download.DownloadConfig(num_shards=shards))
    return made


def in_order(builder, split, **options):
    """TFDS' examples in the order of the shards."""
    config = tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False)
    return builder.as_dataset(split=split, read_config=config, shuffle_files=False, **options)


def differences(ours, theirs, path=""):
    """The places where our value differs from TFDS' value."""
    name = path.rpartition("/")[2]
    if isinstance(theirs, dict):
        if set(ours) != set(theirs):
            return [f"{path}: {sorted(ours)} and {sorted(theirs)}"]
        return [d for key in theirs for d in differences(ours[key], theirs[key], f"{path}/{key}")]
    if isinstance(theirs, tuple):
        pairs = list(zip(ours, theirs, strict=True))
        return [d for i, (a, b) in enumerate(pairs) for d in differences(a, b, f"{path}/{i}")]
    if isinstance(theirs, tf.data.Dataset):
        expected = list(theirs)
        if len(ours) != len(expected):
            return [f"{path}: {len(ours)} and {len(expected)} elements"]
        pairs = list(zip(ours, expected, strict=True))
        return [d for i, (a, b) in enumerate(pairs) for d in differences(a, b, f"{path}[{i}]")]
    if isinstance(theirs, tf.RaggedTensor):
        same = _ragged(ours) == theirs.to_list()
        return [] if same else [f"{path}: {_ragged(ours)} and {theirs.to_list()}"]
    if theirs.dtype == tf.string:
        expected = theirs.numpy() if theirs.shape == () else theirs.numpy().tolist()
        same = (ours if isinstance(ours, bytes) else ours.tolist()) == expected
        return [] if same else [f"{path}: {ours} and {theirs}"]
    if name in IMAGES:
        ours = ours.movedim(-3, -1)
    if (tuple(ours.shape), str(ours.dtype)) != (tuple(theirs.shape), f"torch.{theirs.dtype.name}"):
        return [f"{path}: {ours.dtype} {ours.shape} and {theirs.dtype} {theirs.shape}"]
    return [] if ours.tolist() == theirs.numpy().tolist() else [f"{path}: {ours} and {theirs}"]


def _ragged(value):
    if isinstance(value, torch.Tensor):
        return [row.tolist() for row in value.unbind()]
    return value.to_list()
