"""The extension module: CPython's limited API over the C ABI of libtensor_bridge.so."""

from collections.abc import Sequence
from typing import Any, Literal, SupportsIndex, overload

import tensorflow as tf
import torch
from typing_extensions import Never, Unpack

from tensor_bridge._checked_types import (
    Key,
    NamedTuple,
    Tf,
    TfTensor,
    Torch,
    TorchTensor,
    ToTfOptions,
    ToTorchOptions,
)

__version__: str

# Only Any is also a Never: by the first overload Any becomes Any.
# strings= and live= make other values of tensors, so the last one alone has them.
@overload
def convert_tf_to_pytorch(t: Never, **options: Unpack[ToTorchOptions]) -> Any: ...
@overload
def convert_tf_to_pytorch(t: TfTensor, **options: Unpack[ToTorchOptions]) -> torch.Tensor: ...
@overload
def convert_tf_to_pytorch(t: NamedTuple, **options: Unpack[ToTorchOptions]) -> Any: ...
@overload
def convert_tf_to_pytorch(t: list[Tf], **options: Unpack[ToTorchOptions]) -> list[torch.Tensor]: ...
@overload
def convert_tf_to_pytorch(
    t: tuple[TfTensor, TfTensor], **options: Unpack[ToTorchOptions]
) -> tuple[torch.Tensor, torch.Tensor]: ...
@overload
def convert_tf_to_pytorch(
    t: tuple[TfTensor, ...], **options: Unpack[ToTorchOptions]
) -> tuple[torch.Tensor, ...]: ...
@overload
def convert_tf_to_pytorch(
    t: dict[Key, Tf], **options: Unpack[ToTorchOptions]
) -> dict[Key, torch.Tensor]: ...
@overload
def convert_tf_to_pytorch(
    t: Any,
    *,
    copy: bool | None = None,
    device: torch.device | str | int | None = None,
    on_write: Literal["copy", "raise", "alias"] = "copy",
    raw: bool = False,
    scale: float | Sequence[float] | torch.Tensor | None = None,
    zero_point: int | Sequence[int] | torch.Tensor | None = None,
    axis: int | None = None,
    strings: Literal["tensor", "list"] = "tensor",
    unknown: Literal["raise", "keep"] = "raise",
    live: bool = False,
) -> Any: ...
def tensor_to_torch(t: Any, /, **options: Any) -> torch.Tensor: ...
def tensor_to_tf(x: Any, /, **options: Any) -> Any: ...
@overload
def convert_pytorch_to_tf(x: Never, **options: Unpack[ToTfOptions]) -> Any: ...
@overload
def convert_pytorch_to_tf(x: TorchTensor, **options: Unpack[ToTfOptions]) -> tf.Tensor: ...
@overload
def convert_pytorch_to_tf(x: NamedTuple, **options: Unpack[ToTfOptions]) -> Any: ...
@overload
def convert_pytorch_to_tf(x: list[Torch], **options: Unpack[ToTfOptions]) -> list[tf.Tensor]: ...
@overload
def convert_pytorch_to_tf(
    x: tuple[torch.Tensor, torch.Tensor], **options: Unpack[ToTfOptions]
) -> tuple[tf.Tensor, tf.Tensor]: ...
@overload
def convert_pytorch_to_tf(
    x: tuple[torch.Tensor, ...], **options: Unpack[ToTfOptions]
) -> tuple[tf.Tensor, ...]: ...
@overload
def convert_pytorch_to_tf(
    x: dict[Key, Torch], **options: Unpack[ToTfOptions]
) -> dict[Key, tf.Tensor]: ...

# The check of this package does not follow torch, and takes its tensors for Any.
@overload
def convert_pytorch_to_tf(  # type: ignore[overload-cannot-match]
    x: Any,
    *,
    copy: bool | None = None,
    device: Any = None,
    dtype: Any = None,
    grad: Literal["detach", "raise"] = "detach",
    unknown: Literal["raise", "keep"] = "raise",
) -> Any: ...
def explain_to_tf(
    x: Any, /, **options: Any
) -> tuple[int, int, int, tuple[int, ...] | None, int, str, str, str, str]: ...
def is_torch_tensor(x: Any, /) -> bool: ...
def variable_to_torch(
    handle: Any, context: Any, tf_dtype: int, /, **options: Any
) -> torch.Tensor: ...
def explain_to_torch(
    t: Any, /, **options: Any
) -> tuple[int, int, int, tuple[int, ...] | None, int, str, str, str, str]: ...
def explain_variable(
    handle: Any, context: Any, tf_dtype: int, /, **options: Any
) -> tuple[int, int, int, tuple[int, ...] | None, int, str, str, str, str]: ...
def dlpack_capsule(t: Any, versioned: bool, copy: bool, /) -> Any: ...
def torch_from_dlpack(capsule: Any, /, **options: Any) -> torch.Tensor: ...
def dlpack_exchange_api() -> Any: ...
def capsule_is_read_only(capsule: Any, /) -> bool: ...
def convert_node(
    value: Any, to_tf: int, options: dict[str, Any], path: str, /
) -> tuple[Any, int]: ...
def strings_to_torch(t: Any, /, **options: Any) -> Any: ...
def explain_strings_to_torch(
    t: Any, /, **options: Any
) -> tuple[int, int, int, tuple[int, ...] | None, int, str, str, str, str]: ...
def explain_strings_to_tf(
    data: torch.Tensor, offsets: torch.Tensor, shape: tuple[int, ...], /, **options: Any
) -> tuple[int, int, int, tuple[int, ...] | None, int, str, str, str, str]: ...
def tf_strings_list(t: Any, /) -> Any: ...
def torch_strings_list(
    data: torch.Tensor,
    offsets: torch.Tensor,
    shape: tuple[int, ...],
    encoding: str | None,
    errors: str,
    /,
) -> Any: ...
def strings_to_tf(
    data: torch.Tensor, offsets: torch.Tensor, shape: tuple[int, ...], /, **options: Any
) -> Any: ...
def data_open(
    resource: Any,
    context: Any,
    prefetch: int,
    adaptive: bool,
    string_lists: bool,
    components: Sequence[tuple[int, int, int, int, int]],
    structure: Any,
    on_failure: Any,
    /,
    **options: Any,
) -> Any: ...
def data_next(iterator: Any, seconds: float, /) -> Any: ...
def data_next_flat(iterator: Any, seconds: float, /) -> list[Any]: ...
def data_build(iterator: Any, flat: Sequence[Any], /) -> Any: ...
def data_pause(iterator: Any, /) -> None: ...
def data_resume(iterator: Any, /) -> None: ...
def data_cancel(iterator: Any, /) -> None: ...
def data_stats(iterator: Any, /) -> tuple[int, int, int, int, int, int, int]: ...
def data_close(iterator: Any, /) -> None: ...
def snappy_unpack(packed: bytes, /) -> bytes: ...
def bundle_index(
    data: bytes, /
) -> tuple[
    int,
    list[tuple[bytes, int, tuple[int, ...], int, int, int, int, list[tuple[int, ...]]]],
    list[tuple[int, int, int]],
]: ...
def bundle_strings(address: int, size: int, count: int, offsets_address: int, /) -> int: ...

# Of a file in memory: 0, 1 for a graph, 2 for TensorFlow Lite.
def stored_format(address: int, size: int, /) -> int: ...

# name, dtype, shape, (offset, size) of values that need no decoding, (offset, size) of the message,
# whether a node reads it as a variable.
def graph_constants(
    address: int, size: int, /
) -> list[tuple[bytes, int, tuple[int, ...], tuple[int, int] | None, tuple[int, int], bool]]: ...

# name, (index, name) of the subgraph, type, dtype, bits, shape, (offset, size), storage,
# (scales, zero points, axis).
def tflite_tensors(
    address: int, size: int, /
) -> list[
    tuple[
        bytes,
        tuple[int, bytes],
        int,
        int,
        int,
        tuple[int, ...],
        tuple[int, int] | None,
        int,
        tuple[tuple[float, ...], tuple[int, ...], int],
    ]
]: ...

# dtype as TensorFlow numbers it, and shape.
def tensor_describe(address: int, size: int, /) -> tuple[int, tuple[int, ...]]: ...
def tensor_values(address: int, size: int, dtype: int, count: int, out_address: int, /) -> None: ...

# Bytes of all strings; with addresses other than 0 offsets and strings are written there.
def tensor_strings(
    address: int, size: int, count: int, offsets_address: int, out_address: int, /
) -> int: ...
def tflite_unpack(address: int, bits: int, count: int, out_address: int, /) -> None: ...
def tflite_strings(address: int, size: int, count: int, offsets_address: int, /) -> None: ...

# Columns are tuples (in lists, key, type, kind, stride, required, defaults, ends of default
# strings), with the numbers of formats/feature.h and formats/example.h.
def example_spec(
    columns: tuple[tuple[int, bytes, int, int, int, int, bytes, tuple[int, ...]], ...],
    sequence: int,
    /,
) -> Any: ...

# Returns a batch, which refers to the records' memory, and five numbers for each column: values,
# bytes, rows, most rows of a record, most values of a record or row.
def example_scan(
    spec: Any, address: int, begins: int, sizes: int, count: int, columns: int, /
) -> tuple[Any, tuple[int, ...]]: ...

# For each feature: whether it is a row of a feature list, key, type (0 for an empty Feature),
# number of values.
def example_keys(address: int, size: int, /) -> list[tuple[bool, bytes, int, int]]: ...

# What the columns of parsed records become. For each its key, kind, whether it is in feature lists
# and the shape of a record (of a row); the form: 0 a list of columns (values, index, lengths, most
# rows of a record, most values of a record or row), 1 a dict of values, 2 the first one's values.
def example_plan(
    columns: tuple[tuple[str, int, bool, tuple[int, ...]], ...],
    form: int,
    string_tensor: Any,
    size: Any,
    /,
) -> Any: ...

# The records one by one, each in the plan's form 1 and in memory of its own; those before one that
# does not fit the spec.
def example_singles(
    spec: Any, plan: Any, address: int, begins: int, sizes: int, count: int, /
) -> list[dict[str, Any]]: ...

# Threads that make batches of the spec (None: of raw records) from files in memory, which the
# caller keeps: arrays of addresses and sizes; the numbers of records up to each file's end, the
# number of files, each record's offset in its file. Then the numbers of the records and how many
# these are; or 0, and every step-th record from the first one on, which needs neither ends nor
# offsets.
def example_queue(
    spec: Any,
    files: int,
    sizes: int,
    ends: int,
    count: int,
    offsets: int,
    numbers: int,
    num_numbers: int,
    first: int,
    step: int,
    batch_size: int,
    ahead: int,
    threads: int,
    verify: int,
    skip: int,
    drop_last: int,
    /,
) -> Any: ...
def example_queue_ready(queue: Any, /) -> int: ...

# Waits for the next batch; None at the end. Why there is none: 1, or 2 for lack of memory; a
# fault's number, file, place and message. The batch by the plan. Then records, bytes, skipped
# records, their bytes, nanoseconds.
def example_queue_take(
    queue: Any, plan: Any, /
) -> tuple[tuple[int, int, int, int, str] | None, Any, int, int, int, int, int] | None: ...
def example_queue_close(queue: Any, /) -> None: ...

# Four addresses for each column, 0 if it does not need them: values, offsets, index, lengths.
def example_fill(batch: Any, addresses: list[int], /) -> None: ...

# Finds records of a TFRecord file in memory from a position on. Returns their number; position,
# searching and budget for the next call; the number and the offset of a fault; skipped records and
# skipped bytes. The numbers are those of formats/tfrecord.h.
def records_scan(
    address: int,
    size: int,
    place: int,
    searching: int,
    budget: int,
    verify: int,
    skip: int,
    final: int,
    most: int,
    begins: int,
    sizes: int,
    /,
) -> tuple[int, int, int, int, int, int, int, int]: ...

# Finds records by number. Returns the count of records before a file that is not in memory or has a
# fault; the number of that file, -1 for none; and the number of the fault, 0 for none.
def records_at(
    files: int,
    file_sizes: int,
    ends: int,
    num_files: int,
    offsets: int,
    numbers: int,
    count: int,
    verify: int,
    base: int,
    begins: int,
    sizes: int,
    /,
) -> tuple[int, int, int]: ...

# The bytes of a record by its number, from the end if it is below 0; None if there is none, if its
# file is not in memory, or if it has a fault.
def record_bytes(
    files: int,
    file_sizes: int,
    ends: int,
    num_files: int,
    offsets: int,
    number: SupportsIndex,
    verify: int,
    /,
) -> bytes | None: ...
def records_gather(
    address: int, begins: int, sizes: int, count: int, out: int, offsets: int, /
) -> None: ...
def records_frame(address: int, begins: int, sizes: int, count: int, out: int, /) -> None: ...

# (name, dtype, shape, slices as pairs (start, length) for each axis); blocks as of bundle_index;
# what finds slices.
def v1_index(
    address: int, size: int, /
) -> tuple[
    list[tuple[bytes, int, tuple[int, ...], list[tuple[int, ...]]]],
    list[tuple[int, int, int]],
    Any,
]: ...

# (offset, size) of values that need no decoding; (offset, size) of their TensorProto, or its bytes
# if they were packed.
def v1_slice(
    address: int, size: int, capsule: Any, key: bytes, dtype: int, count: int, /
) -> tuple[tuple[int, int] | None, tuple[int, int] | bytearray]: ...
def is_eager_tensor(t: Any, /) -> bool: ...
def has_handle(t: Any, /) -> bool: ...
def release_previous(x: torch.Tensor, /) -> int: ...
def trim_heap() -> None: ...
def tf_address(t: Any, /) -> int: ...
def gpu_of_address(address: int, /) -> int: ...
def require_torch_cuda() -> None: ...
def dtype_rows() -> list[tuple[str, int, int, int, str, str, str, str]]: ...

# Of a dtype's number in TensorFlow: 256 elements of the nearest torch dtype, or None.
def narrow_values(tf_enum: int, /) -> bytes | None: ...
def live_owners() -> int: ...
