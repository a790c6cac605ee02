"""features.json in both of its forms, and damaged."""

from __future__ import annotations

import json
import random

import pytest
import tfds_builders
from tfds_builders import tfds

from tensor_bridge import records
from tensor_bridge.errors import RecordError, TensorBridgeError
from tensor_bridge.records._spec_parser import SpecParser
from tensor_bridge.records._tfds_features import Features, Leaf, Repeated, leaves, parse_features
from tensor_bridge.records._tfds_values import Plan

PLACE = "tensorflow_datasets.core.features"
OLD = {
    "type": f"{PLACE}.features_dict.FeaturesDict",
    "content": {
        "image": {
            "type": f"{PLACE}.image_feature.Image",
            "content": {"shape": [28, None, 1], "dtype": "uint8", "encoding_format": "png"},
        },
        "features": {"type": f"{PLACE}.text_feature.Text", "content": {}},
        "label": {
            "type": f"{PLACE}.class_label_feature.ClassLabel",
            "content": {"num_classes": 10},
        },
        "x": {
            "type": f"{PLACE}.feature.Tensor",
            "content": {"shape": [None, 3], "dtype": "float32", "encoding": "zlib"},
        },
        "box": {"type": f"{PLACE}.bounding_boxes.BBoxFeature", "content": {}},
        "video": {
            "type": f"{PLACE}.video_feature.Video",
            "content": {
                "shape": [None, 8, 9, 3],
                "encoding_format": "png",
                "ffmpeg_extra_args": [],
            },
        },
        "many": {
            "type": f"{PLACE}.sequence_feature.Sequence",
            "content": {
                "feature": {
                    "type": f"{PLACE}.features_dict.FeaturesDict",
                    "content": {
                        "y": {
                            "type": f"{PLACE}.tensor_feature.Tensor",
                            "content": {"shape": [], "dtype": "int32", "encoding": "none"},
                        }
                    },
                },
                "length": 4,
            },
        },
        "both": {
            "type": f"{PLACE}.translation_feature.Translation",
            "content": {"languages": ["de", "en"]},
        },
    },
}


def parsed(value):
    return parse_features(json.dumps(value).encode(), "features.json")


def shapes(feature, lengths=()):
    """The shape and dtype of each leaf in TFDS' form."""
    if isinstance(feature, Leaf):
        return ((*lengths, *feature.shape), feature.dtype)
    if isinstance(feature, Repeated):
        # For a Dataset, TFDS gives the shapes of one element.
        length = () if feature.kind == "Dataset" else (feature.length,)
        return shapes(feature.feature, (*lengths, *length))
    return {name: shapes(inner, lengths) for name, inner in feature.features.items()}


def judged(info):
    if isinstance(info, dict):
        return {name: judged(inner) for name, inner in info.items()}
    return (tuple(info.shape), info.tf_dtype.name)


@pytest.fixture(scope="module")
def new():
    features = tfds.features.FeaturesDict(tfds_builders.everything())
    return features.to_json()


def test_the_form_of_protobuf(new):
    judge = tfds.features.FeatureConnector.from_json(new)
    assert shapes(parsed(new)) == judged(judge.get_tensor_info())


def test_the_form_of_older_releases():
    tree = parsed(OLD)
    judge = tfds.features.FeatureConnector.from_json(json.loads(json.dumps(OLD)))
    assert shapes(tree) == judged(judge.get_tensor_info())
    assert shapes(parsed(judge.to_json())) == shapes(tree)
    assert tree["x"].encoding == "zlib"
    assert tree["label"].num_classes == 10


def test_content_of_older_releases_in_a_message():
    inner = OLD["content"]["label"]
    message = {
        "pythonClassName": inner["type"],
        "jsonFeature": {"json": json.dumps(inner["content"])},
    }
    assert parsed(message) == parsed(inner)
    message = {"type": inner["type"], "content": '{"numClasses": "10"}', "proto_cls": "x"}
    assert parsed(message) == parsed(inner)


def test_fields_of_a_message_may_have_either_spelling(new):
    text = json.dumps(new)
    for camel in ("pythonClassName", "featuresDict", "classLabel", "numClasses", "boundingBox"):
        assert camel in text
        snake = "".join(f"_{c.lower()}" if c.isupper() else c for c in camel)
        text = text.replace(f'"{camel}"', f'"{snake}"')
    assert parsed(json.loads(text)) == parsed(new)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "expected a feature"),
        ({}, "one kind of content"),
        ({"pythonClassName": "x", "tensor": {}, "image": {}}, "one kind of content"),
        ({"type": 3, "content": {}}, "name of a feature's class"),
        ({"type": f"{PLACE}.Tensor", "content": []}, "expected the fields"),
        ({"type": f"{PLACE}.Tensor", "content": {"dtype": "complex64"}}, "a dtype that torch has"),
        ({"type": f"{PLACE}.Tensor", "content": {"shape": "x"}}, "a list of sizes"),
        ({"type": f"{PLACE}.Tensor", "content": {"shape": [-2]}}, "a size"),
        ({"type": f"{PLACE}.Tensor", "content": {"shape": [2**39, 4]}}, "fit into memory"),
        ({"type": f"{PLACE}.Tensor", "content": {"encoding": "lzma"}}, "as encoding"),
        ({"type": f"{PLACE}.Image", "content": {"shape": [3, 3]}}, "height, width and channels"),
        ({"type": f"{PLACE}.Image", "content": {"dtype": "int32"}}, "uint8, uint16 or float32"),
        ({"type": f"{PLACE}.Sequence", "content": {}}, "expected a feature"),
        ({"type": f"{PLACE}.Translation", "content": {"languages": [1]}}, "a list of strings"),
    ],
)
def test_what_is_no_feature_is_refused(value, message):
    with pytest.raises(RecordError, match=message) as caught:
        parsed(value)
    assert str(caught.value).startswith("features.json: ")
    assert caught.value.path == "features.json"


@pytest.mark.parametrize("text", [b"", b"{", b"\xff\xfe{}", b"[" * 100_000, b"NaN", b"1e999"])
def test_what_is_no_json_is_refused(text):
    with pytest.raises(RecordError):
        parse_features(text, "features.json")


def test_features_nested_too_deeply_are_refused():
    value = {"type": f"{PLACE}.Text", "content": {}}
    for _ in range(80):
        value = {"type": f"{PLACE}.Sequence", "content": {"feature": value, "length": None}}
    with pytest.raises(RecordError, match="nested less"):
        parsed(value)


def test_classes_that_are_not_read_stay_in_the_tree():
    kinds = {
        path: leaf.encoding
        for path, leaf in leaves(
            parsed(
                {
                    "type": f"{PLACE}.FeaturesDict",
                    "content": {
                        "mine": {"type": "my.module.Feature", "content": {}},
                        "gif": {"type": f"{PLACE}.Image", "content": {"shape": [None, 4, 4, 3]}},
                        "lazy": {"type": f"{PLACE}.Audio", "content": {"lazy_decode": True}},
                        "encoded": {"type": f"{PLACE}.Text", "content": {"use_encoder": True}},
                    },
                }
            )
        )
    }
    assert set(kinds.values()) == {"unsupported"}
    assert len(kinds) == 4


# ---- mutation ------------------------------------------------------------------------------------

ODD = [None, True, -1, 0, 2**63, 1.5, "", "x", "-1", "9" * 30, [], [[]], {}, {"x": 1}, "int64"]


def mutated(value, draw):
    """A copy with one value changed, removed, doubled or exchanged."""
    text = json.dumps(value)
    if draw.random() < 0.3:
        data = bytearray(text.encode())
        for _ in range(draw.randint(1, 4)):
            at = draw.randrange(len(data))
            if draw.random() < 0.5:
                data[at] = draw.randrange(256)
            else:
                del data[at : at + draw.randint(1, 20)]
        return bytes(data)
    copy = json.loads(text)
    places = []

    def visit(node):
        for key in list(node) if isinstance(node, dict) else range(len(node)):
            places.append((node, key))
            if isinstance(node[key], (dict, list)):
                visit(node[key])

    visit(copy)
    for _ in range(draw.randint(1, 3)):
        node, key = draw.choice(places)
        try:
            other, other_key = draw.choice(places)
            if draw.random() < 0.6:
                node[key] = draw.choice(ODD)
            elif draw.random() < 0.5:
                del node[key]
            else:
                node[key] = json.loads(json.dumps(other[other_key]))
        except (KeyError, IndexError, ValueError, RecursionError):
            continue
    return json.dumps(copy).encode()


def _mutations(count, sources, seed):
    draw = random.Random(seed)
    refused = 0
    for i in range(count):
        text = mutated(sources[i % len(sources)], draw)
        try:
            SpecParser(Plan(parse_features(text, "features.json")).spec)
        except TensorBridgeError:
            refused += 1
        except Exception as e:
            raise AssertionError(f"seed {seed}, mutation {i}: {text!r}") from e
    return refused


def test_damaged_infos_are_read_or_refused(new, tmp_path):
    nest = {"tuple": {"items": [{"featureKey": "image"}, {"dict": {"dict": {"x": "label"}}}]}}
    split = {
        "name": "train",
        "shardLengths": ["3", "4"],
        "numBytes": "100",
        "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
    }
    info = {
        "name": "x",
        "version": "1.0.0",
        "fileFormat": "tfrecord",
        "splits": [split, {**split, "name": "test"}],
        "supervisedKeys": nest,
    }
    (tmp_path / "features.json").write_text(json.dumps(new))
    draw = random.Random(3)
    refused = 0
    for i in range(400):
        text = mutated(info, draw)
        (tmp_path / "dataset_info.json").write_bytes(text)
        try:
            assert len(records.tfds(tmp_path, "all")) >= 0
            assert len(records.tfds(tmp_path, as_supervised=True)) >= 0
        except TensorBridgeError:
            refused += 1
        except Exception as e:
            raise AssertionError(f"mutation {i}: {text!r}") from e
    assert 50 < refused < 390


def test_damaged_features_are_read_or_refused(new):
    refused = _mutations(600, [new, OLD], seed=7)
    assert 100 < refused < 590


@pytest.mark.exhaustive
def test_20000_damaged_features_are_read_or_refused(new):
    assert _mutations(20_000, [new, OLD], seed=8) > 3000


def test_kinds_of_nodes(new):
    tree = parsed(new)
    assert isinstance(tree, Features)
    assert isinstance(tree["parts"], Repeated)
    with pytest.raises(KeyError):
        tree["images"]["x"]
