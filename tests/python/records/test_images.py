"""Decoding images to tensors, with each decoder that loads here."""

from __future__ import annotations

import sys
import types

import pytest
import tensorflow as tf
import torch

from tensor_bridge import StringTensor, records
from tensor_bridge.errors import (
    FrameworkError,
    InvalidOptionError,
    RecordError,
    UnsupportedTypeError,
)
from tensor_bridge.records._image_decoders import DECODERS, find_decoder


def _loads(name: str) -> bool:
    try:
        find_decoder(name)
    except FrameworkError:
        return False
    return True


LOADED = [name for name in DECODERS if _loads(name)]
each_decoder = pytest.mark.parametrize("decoder", LOADED)


def pixels(height, width, channels, dtype=torch.uint8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    most = torch.iinfo(dtype).max
    shape = (height, width, channels)
    return torch.randint(0, most + 1, shape, generator=generator, dtype=torch.int64).to(dtype)


def png(image):
    dtype = tf.uint16 if image.dtype == torch.uint16 else tf.uint8
    return tf.io.encode_png(tf.constant(image.tolist(), dtype, image.shape)).numpy()


def smooth_jpeg(channels=3):
    rows, columns = tf.meshgrid(tf.range(24), tf.range(32), indexing="ij")
    planes = tf.stack([rows * 8, columns * 6, rows + columns][:channels], -1)
    return tf.io.encode_jpeg(tf.cast(planes, tf.uint8), quality=95).numpy()


def chw(image):
    return image.permute(2, 0, 1)


def test_a_decoder_loads_here():
    assert "pillow" in LOADED


@each_decoder
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_png_is_exact(decoder, channels):
    image = pixels(5, 7, channels)
    decoded = records.decode_image(png(image), channels=channels, decoder=decoder)
    assert decoded.dtype == torch.uint8
    assert torch.equal(decoded, chw(image))
    assert torch.equal(records.decode_image(png(image), channels=None, decoder=decoder), decoded)


@each_decoder
def test_gray_png_of_16_bits_is_exact(decoder):
    image = pixels(5, 7, 1, torch.uint16)
    decoded = records.decode_image(png(image), channels=1, dtype="uint16", decoder=decoder)
    assert decoded.dtype == torch.uint16
    assert torch.equal(decoded.to(torch.int32), chw(image).to(torch.int32))


@each_decoder
def test_8_bits_become_16_with_the_largest_value_the_largest(decoder):
    image = pixels(5, 7, 3)
    decoded = records.decode_image(png(image), dtype=torch.uint16, decoder=decoder)
    assert torch.equal(decoded.to(torch.int32), chw(image).to(torch.int32) * 257)


@pytest.mark.skipif("pillow" not in LOADED, reason="Pillow is not installed")
def test_pillow_keeps_the_high_byte_of_16_bits():
    image = pixels(5, 7, 1, torch.uint16)
    decoded = records.decode_image(png(image), channels=1, decoder="pillow")
    assert torch.equal(decoded.to(torch.int32), chw(image).to(torch.int32) >> 8)


@pytest.mark.skipif("pillow" not in LOADED, reason="Pillow is not installed")
@pytest.mark.parametrize(("stored", "asked"), [(3, 3), (1, 3)])
def test_pillow_refuses_what_it_would_reduce_to_8_bits(stored, asked):
    encoded = png(pixels(5, 7, stored, torch.uint16))
    with pytest.raises(RecordError, match="16 bits"):
        records.decode_image(encoded, channels=asked, dtype="uint16", decoder="pillow")


@each_decoder
def test_gray_becomes_rgb_and_alpha_is_dropped(decoder):
    gray = pixels(3, 4, 1)
    assert torch.equal(
        records.decode_image(png(gray), decoder=decoder), chw(gray).expand(3, -1, -1)
    )
    clear = pixels(3, 4, 4)
    assert torch.equal(records.decode_image(png(clear), decoder=decoder), chw(clear)[:3])


@each_decoder
@pytest.mark.parametrize(("method", "tolerance"), [("INTEGER_ACCURATE", 0), ("INTEGER_FAST", 4)])
def test_jpeg_is_as_tensorflow_decodes_it(decoder, method, tolerance):
    """TensorFlow uses the fast method by default, and the decoders use the accurate one."""
    encoded = smooth_jpeg()
    decoded = records.decode_image(encoded, decoder=decoder)
    judge = tf.io.decode_jpeg(encoded, channels=3, dct_method=method)
    expected = chw(torch.tensor(judge.numpy().tolist()))
    assert (decoded.to(torch.int64) - expected).abs().max() <= tolerance


@each_decoder
@pytest.mark.parametrize(
    "damage",
    [lambda b: b"", lambda b: b[:20], lambda b: b"no image", lambda b: b[: len(b) // 2]],
    ids=["empty", "head", "foreign", "half"],
)
def test_damaged_images_are_record_errors(decoder, damage):
    with pytest.raises(RecordError, match=decoder):
        records.decode_image(damage(png(pixels(40, 40, 3))), decoder=decoder)


def test_a_tensor_of_bytes_is_taken():
    encoded = torch.frombuffer(bytearray(png(pixels(2, 2, 3))), dtype=torch.uint8)
    assert torch.equal(records.decode_image(encoded), chw(pixels(2, 2, 3)))


@pytest.mark.parametrize("data", ["text", 3, torch.zeros(4), torch.zeros(2, 2, dtype=torch.uint8)])
def test_other_values_are_refused(data):
    with pytest.raises(UnsupportedTypeError, match="expected"):
        records.decode_image(data)


@pytest.mark.parametrize(
    "options",
    [{"channels": 5}, {"dtype": "float32"}, {"decoder": "opencv"}],
)
def test_options_that_mean_nothing_are_refused(options):
    with pytest.raises(InvalidOptionError, match="expected"):
        records.decode_image(png(pixels(2, 2, 3)), **options)


@pytest.mark.parametrize(
    "options",
    [{"sizes": "crop"}, {"on_error": "ignore"}, {"sizes": "same", "on_error": "skip"}],
)
def test_attributes_that_mean_nothing_are_refused(options):
    with pytest.raises(InvalidOptionError, match=r"expected|needs"):
        records.Image(**options)


# ---- columns -------------------------------------------------------------------------------------


def column(*images):
    return StringTensor.from_list(list(images))


SMALL, LARGE = pixels(2, 3, 3, seed=1), pixels(4, 2, 3, seed=2)


def test_images_of_several_sizes_are_a_list():
    images = records.Image().decode(column(png(SMALL), png(LARGE)))
    assert [torch.equal(a, chw(b)) for a, b in zip(images, (SMALL, LARGE), strict=True)] == [
        True
    ] * 2


def test_two_dimensions_are_lists_of_lists():
    strings = column(*[png(SMALL)] * 6).reshape(3, 2)
    images = records.Image().decode(strings)
    assert [len(row) for row in images] == [2, 2, 2]
    assert records.Image().decode(StringTensor.from_list([[], [], []])) == [[], [], []]


def test_padded_images_have_their_sizes():
    images, sizes = records.Image(sizes="pad").decode(column(png(SMALL), png(LARGE)))
    assert images.shape == (2, 3, 4, 3)
    assert sizes.tolist() == [[2, 3], [4, 2]]
    assert torch.equal(images[0, :, :2], chw(SMALL))
    assert torch.equal(images[1, :, :, :2], chw(LARGE))
    assert images[0, :, 2:].sum() == 0
    assert images[1, :, :, 2:].sum() == 0


def test_images_of_one_size_are_one_tensor():
    images = records.Image(sizes="same").decode(column(png(SMALL), png(SMALL)))
    assert torch.equal(images, chw(SMALL).expand(2, -1, -1, -1))
    with pytest.raises(RecordError, match="one shape"):
        records.Image(sizes="same").decode(column(png(SMALL), png(LARGE)))


@pytest.mark.parametrize(("sizes", "shape"), [("pad", (0, 3, 0, 0)), ("same", (0, 3, 0, 0))])
def test_no_images(sizes, shape):
    made = records.Image(sizes=sizes).decode(StringTensor.from_list([]))
    assert (made[0] if sizes == "pad" else made).shape == shape


def test_a_damaged_image_is_named_by_its_number():
    with pytest.raises(RecordError, match="image 1: "):
        records.Image().decode(column(png(SMALL), b"none"))


@pytest.mark.parametrize("sizes", ["list", "pad"])
def test_a_damaged_image_is_skipped_as_one_without_pixels(sizes):
    decoder = records.Image(sizes=sizes, on_error="skip")
    with pytest.warns(UserWarning, match="image 0 is skipped"):
        made = decoder.decode(column(b"none", png(SMALL)))
    if sizes == "list":
        assert [tuple(image.shape) for image in made] == [(3, 0, 0), (3, 2, 3)]
    else:
        assert made.sizes.tolist() == [[0, 0], [2, 3]]
        assert made.images[0].sum() == 0


def _example(**values):
    features = {
        key: tf.train.Feature(bytes_list=tf.train.BytesList(value=value))
        for key, value in values.items()
    }
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def test_features_of_examples_are_decoded():
    serialized = [_example(x=[png(SMALL)], y=[png(SMALL)] * n) for n in (0, 2)]
    spec = {
        "x": records.FixedLenFeature((), bytes, decode=records.Image(sizes="same")),
        "y": records.VarLenFeature(bytes, decode=records.Image()),
    }
    parsed = records.parse_example(serialized, spec)
    assert parsed["x"].shape == (2, 3, 2, 3)
    assert [len(row) for row in parsed["y"]] == [0, 2]
    assert torch.equal(parsed["y"][1][1], chw(SMALL))
    single = records.parse_single_example(serialized[0], spec)
    assert torch.equal(single["x"], chw(SMALL))


# ---- the choice of a decoder ---------------------------------------------------------------------


@pytest.fixture
def no_decoder(monkeypatch):
    """None of the libraries can be imported."""
    for name in ("torchcodec", "torchcodec.decoders", "torchvision", "torchvision.io", "PIL.Image"):
        monkeypatch.setitem(sys.modules, name, None)
    find_decoder.cache_clear()
    yield monkeypatch
    find_decoder.cache_clear()


def test_without_a_library_all_are_named(no_decoder):
    with pytest.raises(
        FrameworkError, match=r"torchcodec \(.*torchvision \(.*pillow \(.*pip install"
    ):
        records.decode_image(png(SMALL))


def test_the_first_that_loads_is_taken(no_decoder):
    old = types.ModuleType("torchcodec.decoders")
    no_decoder.setitem(sys.modules, "torchcodec", types.ModuleType("torchcodec"))
    no_decoder.setitem(sys.modules, "torchcodec.decoders", old)
    with pytest.raises(FrameworkError, match=r"before 0\.16"):
        find_decoder(None)
    calls = []
    new = types.ModuleType("torchcodec.decoders")
    new.decode_image = lambda data, **options: calls.append(options) or torch.zeros(3, 1, 1)
    no_decoder.setitem(sys.modules, "torchcodec.decoders", new)
    assert find_decoder(None)[0] == "torchcodec"
    records.decode_image(png(SMALL), channels=1)
    assert calls == [{"mode": "GRAY", "output_dtype": torch.uint8}]


def test_several_frames_are_refused(no_decoder):
    codec = types.ModuleType("torchcodec.decoders")
    codec.decode_image = lambda data, **options: torch.zeros(5, 3, 1, 1)
    no_decoder.setitem(sys.modules, "torchcodec", types.ModuleType("torchcodec"))
    no_decoder.setitem(sys.modules, "torchcodec.decoders", codec)
    with pytest.raises(RecordError, match="got 5 frames"):
        records.decode_image(b"GIF")
