"""Calls of every function of the C interface, with valid arguments and with nulls in their place.

    python c_calls.py [NAME...]     # all functions but these

Prints a line `call NAME HOW` before each call, which may end the process, and `wrong NAME: WHY` if
the answer differs from the promise of c_api.h. For the test that starts it.
"""

from __future__ import annotations

import ctypes
import os
import re
import struct
import sys
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import c_header

from tensor_bridge.checkpoint.read._names import slice_key

DATA = c_header.ROOT / "tests" / "data" / "checkpoints"
OK, INVALID_OPTION, INVALID_HANDLE = 0, 1, 7
UNTOUCHED = b"\xa5" * 8
# The wait for an element, which a busy machine does not reach.
MILLISECONDS_OF_A_FAULT = 600_000
HEADER = c_header.text()
STRUCTS = c_header.structs(HEADER)
FUNCTIONS = c_header.functions(HEADER)

# The arguments of each function: a number, or what makes it, by the name of a struct or a method of
# World. `?` stands before what may be null, as the header says; `?4` where the argument 4 is.
ENTRIES: dict[str, tuple[str | int, ...]] = {
    "tb_last_error": (),
    "tb_status_name": (0,),
    "tb_version": (),
    "tb_convert_options_init": ("?tb_convert_options",),
    "tb_convert_back_options_init": ("?tb_convert_back_options",),
    "tb_use_torch": (2, "torch_minor"),
    "tb_tensor_from_tf": ("tf_tensor", "out"),
    "tb_tensor_data": ("tensor",),
    "tb_tensor_ndim": ("tensor",),
    "tb_tensor_shape": ("tensor",),
    "tb_tensor_strides": ("tensor",),
    "tb_tensor_dtype": ("tensor",),
    "tb_tensor_nbytes": ("tensor",),
    "tb_tensor_flags": ("tensor",),
    "tb_tensor_device": ("tensor", "?room", "?room"),
    "tb_tensor_to_dlpack": ("tensor", "out"),
    "tb_tensor_release": ("?tensor",),
    "tb_tf_to_torch": ("tf_tensor", "?convert", "out"),
    "tb_tf_to_torch_consume": ("tf_tensor", "?convert", "out"),
    "tb_torch_tensor_view": ("torch_tensor", "out"),
    "tb_torch_tensor_mutable_data": ("torch_tensor", "out"),
    "tb_torch_tensor_release_previous": ("torch_tensor", "room"),
    "tb_torch_tensor_release": ("?torch_tensor",),
    "tb_torch_to_tf": ("torch_tensor", "?convert_back", "out"),
    "tb_tf_explain": ("?tf_tensor", "?convert", "tb_explanation"),
    "tb_py_set_gil_functions": ("?save_thread", "?restore_thread"),
    "tb_py_set_copying_torch": ("?null",),
    "tb_py_use_torch": (2, "torch_minor", 1),
    "tb_py_copying_reason": (),
    "tb_py_is_eager_tensor": ("eager",),
    "tb_py_has_handle": ("eager",),
    "tb_py_tf_to_torch": ("eager", "?convert", "out"),
    "tb_py_tf_explain": ("?eager", "?convert", "tb_explanation", "room", 8),
    "tb_py_variable_to_torch": ("resource", "context", 1, "?convert", "out"),
    "tb_py_variable_explain": (
        *("?resource", "?context", 1, "?convert", "tb_explanation", "room", 8),
    ),
    "tb_py_torch_to_tf": ("torch_object", "?convert_back", "out"),
    "tb_py_torch_explain": ("torch_object", "?convert_back", "tb_explanation", "room", 8),
    "tb_py_torch_release_previous": ("torch_object", "room"),
    "tb_py_tf_address": ("eager", "out"),
    "tb_narrow_values": (29, "room"),
    "tb_gpu_of_address": ("?packed",),
    "tb_py_set_gpu_of_logical": ("?null",),
    "tb_require_torch_cuda": (),
    "tb_py_tf_to_dlpack": ("eager", 1, "out"),
    "tb_dlpack_allocate": ("prototype", "out", "?null", "?set_error"),
    "tb_dlpack_from_unversioned": ("unversioned", "out"),
    "tb_py_dlpack_to_torch": ("dlpack", "?convert", "out"),
    "tb_strings_from_tf": ("tf_strings", "out"),
    "tb_strings_from_memory": ("characters", 3, "offsets", 3, "shape", 1, "out"),
    "tb_strings_from_torch": ("torch_bytes", "torch_offsets", "shape", 1, "out"),
    "tb_strings_ndim": ("strings",),
    "tb_strings_shape": ("strings",),
    "tb_strings_count": ("strings",),
    "tb_strings_get": ("strings", 0, 2, "room"),
    "tb_strings_nbytes": ("strings", "room"),
    "tb_strings_gather": ("strings", "?room", "room", 3),
    "tb_strings_to_torch": ("strings", "?convert", "out", "out"),
    "tb_strings_to_tf": ("strings", "?convert_back", "out"),
    "tb_strings_explain": ("strings", "?convert", "tb_explanation"),
    "tb_strings_explain_back": ("strings", "?convert_back", "tb_explanation"),
    "tb_strings_release": ("?strings",),
    "tb_py_strings_from_tf": ("eager_strings", "out"),
    "tb_py_strings_from_torch": ("bytes_object", "offsets_object", "shape", 1, "out"),
    "tb_py_strings_to_torch": ("strings", "?convert", "out", "out"),
    "tb_py_strings_to_tf": ("strings", "?convert_back", "out"),
    "tb_py_data_open": ("iterator_resource", "context", "data_options", "out"),
    "tb_py_data_next": ("iterator", 1000, "tb_data_outcome", "out"),
    "tb_py_data_pause": ("iterator",),
    "tb_py_data_resume": ("?iterator",),
    "tb_py_data_cancel": ("?iterator",),
    "tb_data_stats_get": ("iterator", "tb_data_stats"),
    "tb_py_data_close": ("?iterator", 1000),
    "tb_py_data_slot": ("element", 0, "out"),
    "tb_data_slot_shape": ("element_of_strings", 0, "room"),
    "tb_data_slot_strings": ("element", 0),
    "tb_data_element_release": ("?element",),
    "tb_bundle_read": ("index", "index_size", "out", "?tb_bundle_place"),
    "tb_bundle_num_shards": ("bundle",),
    "tb_bundle_entry_get": ("bundle", 0, "tb_bundle_entry"),
    "tb_bundle_block_get": ("bundle", 0, "tb_bundle_block"),
    "tb_bundle_release": ("?bundle",),
    "tb_bundle_strings": ("entry_of_strings", 6, 1, "room", "room", "?tb_bundle_place"),
    "tb_dtype_row_get": (0, "tb_dtype_row"),
    "tb_live_owners": (),
    "tb_stored_format_of": ("graph", "graph_size"),
    "tb_stored_read": ("graph", "graph_size", "out", "?tb_bundle_place"),
    "tb_stored_get": ("stored", 0, "tb_stored_tensor"),
    "tb_stored_release": ("?stored",),
    "tb_tensor_describe": ("float_proto", 5, "room", "room", "room", "?tb_bundle_place"),
    "tb_tensor_values": ("float_proto", 5, 1, 1, "room", "?tb_bundle_place"),
    "tb_tensor_strings": ("string_proto", 3, 1, "room", "?room", "?4 room", "?tb_bundle_place"),
    "tb_tflite_unpack": ("characters", 4, 2, "room"),
    "tb_tflite_strings": ("tflite_strings", 13, 1, "room", "?tb_bundle_place"),
    "tb_snappy_length": ("packed", 5),
    "tb_snappy_unpack": ("packed", 5, "room", 3),
    "tb_v1_read": ("v1_file", "v1_file_size", "out", "?tb_bundle_place"),
    "tb_v1_tensor_get": ("v1", 0, "tb_v1_tensor"),
    "tb_v1_block_get": ("v1", 0, "tb_bundle_block"),
    "tb_v1_release": ("?v1",),
    "tb_v1_slice_find": (
        *(
            "v1",
            "v1_file",
            "v1_file_size",
            "v1_key",
            "v1_key_size",
            1,
            1,
            "out",
            "?tb_bundle_place",
        ),
    ),
    "tb_v1_slice_values": ("v1_slice", "tb_v1_values"),
    "tb_v1_slice_release": ("?v1_slice",),
    "tb_example_spec_new": ("example_columns", 1, 0, "out"),
    "tb_example_spec_release": ("?example_spec",),
    "tb_example_scan": (
        *("example_spec", "characters", "room", "room", 1, "out", "?tb_bundle_place"),
    ),
    "tb_example_size_get": ("example_batch", 0, "tb_example_size"),
    "tb_example_fill": ("example_batch", "example_memory", 1, "?tb_bundle_place"),
    "tb_example_keys_read": ("characters", 0, "out", "?tb_bundle_place"),
    "tb_example_key_get": ("example_keys", 0, "tb_example_key"),
    "tb_example_keys_release": ("?example_keys",),
    "tb_example_parse": (
        *("example_spec", "characters", "room", "room", 1, "out", "?tb_bundle_place"),
    ),
    "tb_example_queue_new": ("?example_spec", "record_files", "queue_options", "out"),
    "tb_example_queue_ready": ("example_queue",),
    "tb_example_queue_take": ("example_queue", "out"),
    "tb_parsed_batch_info": ("parsed_batch", "tb_parsed_info"),
    "tb_parsed_column_get": ("parsed_batch", 0, "tb_parsed_column"),
    "tb_py_parsed_tensor": ("parsed_batch", 0, 0, "room", 1, "out"),
    "tb_parsed_batch_retain": ("parsed_batch",),
    "tb_parsed_batch_release": ("?parsed_batch",),
    "tb_example_queue_release": ("?example_queue",),
    "tb_example_batch_release": ("?example_batch",),
    "tb_records_scan": ("characters", 3, "tb_record_scan", 1, "room", "room", "out"),
    "tb_records_at": (
        *("record_files", "room", 1, 0, "?characters", "room", "room", "tb_record_stop"),
    ),
    "tb_records_gather": ("characters", "room", "room", 1, "room", "room"),
    "tb_records_frame": ("characters", "room", "room", 1, "room"),
    # Last: the library that it names stays in use.
    "tb_use_tensorflow": ("tensorflow",),
}


# Arguments that are bytes; with `_size` behind its name, how many.
BYTES = {
    "characters": b"abc",
    "index": (DATA / "sonnet_mlp_3x4x5_1x3/checkpoint-1.index").read_bytes(),
    "entry_of_strings": b"\1____a",
    "graph": (DATA / "keras_gpt_2_toy/model.ckpt.meta").read_bytes(),
    "float_proto": struct.pack("<Bf", 5 << 3 | 5, 1.0),
    "string_proto": bytes([8 << 3 | 2, 1, 97]),
    "tflite_strings": struct.pack("<iii", 1, 12, 13) + b"a",
    "packed": b"\3\10abc",
    "v1_file": (DATA / "serving_session_bundle/export-00000-of-00001").read_bytes(),
    "v1_key": slice_key(b"a", ()),
    "example": b"\x0a\x07\x0a\x05\x0a\x01a\x12\x00",  # with an empty feature "a"
}


class World:
    """Makes each argument anew, because a call may consume it. Nothing is released."""

    def __init__(self) -> None:
        import tensorflow as tf
        import torch

        from tensor_bridge import capi, checkpoint

        self.tf, self.torch, self.capi, self.checkpoint = tf, torch, capi, checkpoint
        # The GIL is held, as the Python family requires; the other functions allow it.
        self.library = capi.TensorBridge()._library
        for name, function in FUNCTIONS.items():
            entry = getattr(self.library, name)
            entry.argtypes, entry.restype = function.types, function.returns
        assert self.call("tb_py_use_torch", 2, self.torch_minor(), 1) == OK
        self.kept: dict[int, Any] = {}

    def call(self, name: str, *arguments: Any) -> Any:
        return getattr(self.library, name)(*arguments)

    def error(self) -> str:
        return ctypes.string_at(self.call("tb_last_error")).decode()

    def make(self, what: str | int) -> Any:
        """The argument of that name."""
        if isinstance(what, int):
            return what
        what = re.sub(r"^\?(?:\d )?", "", what)
        if what in STRUCTS:
            return self.keep(self._struct(what))
        if what in BYTES:
            return self.keep(ctypes.create_string_buffer(BYTES[what], len(BYTES[what])))
        if what.removesuffix("_size") in BYTES:
            return len(BYTES[what.removesuffix("_size")])
        made = getattr(self, what)()
        return made if made is None or isinstance(made, int) else self.keep(made)

    def keep(self, made: Any) -> int:
        """The address of an object that is kept alive as long as this one."""
        is_memory = isinstance(made, ctypes.Array | ctypes.Structure)
        address = ctypes.addressof(made) if is_memory else id(made)
        self.kept[address] = made
        return address

    def kept_at(self, address: Any) -> Any:
        """The object from which `keep` made that address."""
        return self.kept.get(address)

    def _struct(self, name: str) -> ctypes.Structure:
        made = STRUCTS[name]()
        if hasattr(made, "struct_size"):
            made.struct_size = ctypes.sizeof(made)
        return made

    def _made(self, name: str, *arguments: Any) -> int:
        """The value that a function writes to its first result pointer."""
        place = ctypes.c_void_p()
        given = [ctypes.addressof(place) if each is ... else each for each in arguments]
        assert self.call(name, *given) == OK, (name, self.error())
        assert place.value is not None
        return place.value

    # Places.

    def null(self) -> None:
        return None

    def out(self) -> Any:
        return ctypes.create_string_buffer(UNTOUCHED, 8)

    def room(self) -> Any:
        return (ctypes.c_int64 * 64)()

    # Options.

    def convert(self) -> Any:
        made = self._struct("tb_convert_options")
        self.call("tb_convert_options_init", ctypes.addressof(made))
        return made

    def convert_back(self) -> Any:
        made = self._struct("tb_convert_back_options")
        self.call("tb_convert_back_options_init", ctypes.addressof(made))
        return made

    # The frameworks' own.

    def torch_minor(self) -> int:
        return int(self.torch.__version__.split(".")[1])

    def tensorflow(self) -> int:
        return ctypes.CDLL("libtensorflow_cc.so.2")._handle

    def save_thread(self) -> int | None:
        return ctypes.cast(ctypes.pythonapi.PyEval_SaveThread, ctypes.c_void_p).value

    def restore_thread(self) -> int | None:
        return ctypes.cast(ctypes.pythonapi.PyEval_RestoreThread, ctypes.c_void_p).value

    def eager(self) -> Any:
        return self.tf.constant([1.0, 2.0, 3.0])

    def eager_strings(self) -> Any:
        return self.tf.constant([b"a", b"bc"])

    def torch_object(self) -> Any:
        return self.torch.ones(3)

    def bytes_object(self) -> Any:
        return self.torch.tensor([97, 98, 99], dtype=self.torch.uint8)

    def offsets_object(self) -> Any:
        return self.torch.tensor([0, 1, 3])

    def resource(self) -> Any:
        variable = self.tf.Variable([1.0, 2.0])
        self.keep(variable)
        return variable.handle

    def context(self) -> int | None:
        from tensorflow.python.eager import context

        context.ensure_initialized()
        return self.capi._capsule_pointer(context.context()._handle)

    def tf_tensor(self) -> int:
        return self._made("tb_torch_to_tf", self.torch_tensor(), None, ...)

    def tf_strings(self) -> int:
        return self._made("tb_strings_to_tf", self.strings(), None, ...)

    # Handles.

    def torch_tensor(self) -> int:
        return self._torch_strings()[0]

    def torch_bytes(self) -> int:
        return self.torch_tensor()

    def torch_offsets(self) -> int:
        return self._torch_strings()[1]

    def _torch_strings(self) -> tuple[int, int]:
        offsets = (ctypes.c_void_p * 1)()
        block = self._made("tb_strings_to_torch", self.strings(), None, ..., self.keep(offsets))
        assert offsets[0] is not None
        return block, offsets[0]

    def tensor(self) -> int:
        return self._made("tb_tensor_from_tf", self.tf_tensor(), ...)

    def offsets(self) -> Any:
        return (ctypes.c_int64 * 3)(0, 1, 3)

    def shape(self) -> Any:
        return (ctypes.c_int64 * 1)(2)

    def strings(self) -> int:
        places = (self.make("characters"), 3, self.make("offsets"), 3, self.make("shape"), 1)
        return self._made("tb_strings_from_memory", *places, ...)

    def dlpack(self) -> int:
        return self._made("tb_py_tf_to_dlpack", self.make("eager"), 1, ...)

    def prototype(self) -> Any:
        import dl_structures

        made = dl_structures.DLTensor()
        made.device.type, made.ndim = 1, 1
        made.dtype.code, made.dtype.bits, made.dtype.lanes = 2, 32, 1
        made.shape = ctypes.cast(self.make("shape"), ctypes.POINTER(ctypes.c_int64))
        return made

    def unversioned(self) -> Any:
        import dl_structures

        return dl_structures.Managed(tensor=self.prototype())

    def set_error(self) -> int | None:
        kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p)
        made = kind(lambda context, name, message: None)
        self.keep(made)
        return ctypes.cast(made, ctypes.c_void_p).value

    # Iterators.

    def _dataset(self, values: Any) -> Any:
        iterator = iter(self.tf.data.Dataset.from_tensors(values))
        self.keep(iterator)
        return iterator._iterator_resource

    def iterator_resource(self) -> Any:
        return self._dataset([1.0, 2.0])

    def data_options(self, kind: int = 0, dtype: int = 1) -> Any:
        component = STRUCTS["tb_data_component"](kind=kind, tf_dtype=dtype)
        made = self._struct("tb_data_options")
        made.num_components, made.components = 1, self.keep(component)
        return made

    def _opened(self, resource: Any, options: Any) -> int:
        places = (self.keep(resource), self.context(), self.keep(options))
        return self._made("tb_py_data_open", *places, ...)

    def iterator(self) -> int:
        return self._opened(self.iterator_resource(), self.data_options())

    def _element(self, iterator: int) -> int:
        outcome = self.make("tb_data_outcome")
        return self._made("tb_py_data_next", iterator, MILLISECONDS_OF_A_FAULT, outcome, ...)

    def element(self) -> int:
        return self._element(self.iterator())

    def element_of_strings(self) -> int:
        return self._element(self._opened(self._dataset([b"a"]), self.data_options(1, 7)))

    # Files.

    def bundle(self) -> int:
        return self._made("tb_bundle_read", self.make("index"), self.make("index_size"), ..., None)

    def stored(self) -> int:
        return self._made("tb_stored_read", self.make("graph"), self.make("graph_size"), ..., None)

    def v1(self) -> int:
        return self._made("tb_v1_read", self.make("v1_file"), self.make("v1_file_size"), ..., None)

    def v1_slice(self) -> int:
        file = (self.make("v1_file"), self.make("v1_file_size"))
        key = (self.make("v1_key"), self.make("v1_key_size"))
        return self._made("tb_v1_slice_find", self.make("v1"), *file, *key, 1, 1, ..., None)

    # Records.

    def example_columns(self) -> Any:
        made = self._struct("tb_example_column")
        made.type, made.kind, made.stride, made.required = 3, 3, 1, 0
        made.key_size, made.key = 3, self.make("characters")
        return made

    def example_spec(self) -> int:
        return self._made("tb_example_spec_new", self.make("example_columns"), 1, 0, ...)

    def example_batch(self) -> int:
        records = (self.make("characters"), self.make("room"), self.make("room"), 1)
        return self._made("tb_example_scan", self.example_spec(), *records, ..., None)

    def record_files(self) -> Any:
        made = self._struct("tb_record_files")
        made.data, made.sizes = self.make("room"), self.make("room")
        made.ends, made.offsets, made.count = self.make("shape"), self.make("room"), 1
        return made

    def queue_options(self) -> Any:
        made = self._struct("tb_queue_options")
        made.threads = made.batch_size = made.ahead = made.step = 1
        return made

    def example_queue(self) -> int:
        files, options = self.make("record_files"), self.make("queue_options")
        return self._made("tb_example_queue_new", self.example_spec(), files, options, ...)

    def parsed_batch(self) -> int:
        records = (self.make("characters"), self.make("room"), self.make("room"), 1)
        return self._made("tb_example_parse", self.example_spec(), *records, ..., None)

    def example_keys(self) -> int:
        return self._made(
            "tb_example_keys_read", self.make("example"), self.make("example_size"), ..., None
        )

    def example_memory(self) -> Any:
        made = self._struct("tb_example_memory")
        made.values, made.index = self.make("room"), self.make("room")
        return made


def may_be_null(what: str | int, absent: set[int]) -> bool:
    """Whether a pointer may be null while the arguments ``absent`` are null."""
    mark = re.match(r"\?(\d )?", str(what))
    return mark is not None and (mark[1] is None or int(mark[1]) in absent)


def null_calls(world: World, name: str) -> Iterator[str]:
    """Calls with every combination of nulls; yields what is wrong with the answers."""
    entry, function = ENTRIES[name], FUNCTIONS[name]
    for nulls in product((False, True), repeat=len(function.pointers)):
        absent = {place for place, null in zip(function.pointers, nulls, strict=True) if null}
        arguments = [None if i in absent else world.make(each) for i, each in enumerate(entry)]
        missing = [i for i in absent if not may_be_null(entry[i], absent)]
        print(f"call {name} without {sorted(absent)}", flush=True)
        answer = world.call(name, *arguments)
        said = f"without {sorted(absent)} it answers {answer}"
        if not missing:
            if function.status and answer != OK:
                yield f"{said}: {world.error()}"
            continue
        if function.status and answer != INVALID_HANDLE:
            yield f"{said}, expected {INVALID_HANDLE}"
        elif function.status and not world.error():
            yield f"{said} and no message"
        elif not function.status and function.returns is not None and answer not in (0, -1, None):
            yield f"{said}, expected nothing"
        for i, each in enumerate(entry):
            place = None if i in absent or each != "out" else arguments[i]
            if place is not None and ctypes.string_at(place, 8) != UNTOUCHED:
                yield f"{said} and writes a result"


# Parameters that cannot be below zero.
_NATURAL = re.compile(r"\b(?:count|index|slot|first|ndim|nbytes|num_offsets)$")


def number_calls(world: World, name: str) -> Iterator[str]:
    """Calls with zero and negative numbers for signed parameters, which must not crash."""
    entry, function = ENTRIES[name], FUNCTIONS[name]
    for place, kind in enumerate(function.types):
        if kind not in (ctypes.c_int32, ctypes.c_int64):
            continue
        for number in (0, -1, -(2 ** (8 * ctypes.sizeof(kind) - 1))):
            arguments = [world.make(each) for each in entry]
            arguments[place] = number
            print(f"call {name} with {number} at {place}", flush=True)
            answer = world.call(name, *arguments)
            natural = _NATURAL.search(function.parameters[place])
            if number < 0 and natural and function.status and answer == OK:
                yield f"with {number} at {place} it answers {answer}"


def size_calls(world: World, name: str) -> Iterator[str]:
    """Calls with another struct_size, which must be refused, with a message of its own."""
    entry, function = ENTRIES[name], FUNCTIONS[name]
    for place in range(len(entry)):
        arguments = [world.make(each) for each in entry]
        made = world.kept_at(arguments[place])
        if not function.status or not hasattr(made, "struct_size"):
            continue
        made.struct_size += 8
        print(f"call {name} with another struct_size at {place}", flush=True)
        answer = world.call(name, *arguments)
        explains = "tb_explanation" in entry and entry[place] != "tb_explanation"
        if answer != (OK if explains else INVALID_OPTION):
            yield f"with another struct_size at {place} it answers {answer}"


CALLS: tuple[Callable[[World, str], Iterator[str]], ...] = (null_calls, number_calls, size_calls)


def main(skipped: list[str]) -> None:
    world = World()
    for name in ENTRIES:
        if name in skipped:
            continue
        for calls in CALLS:
            for wrong in calls(world, name):
                print(f"wrong {name}: {wrong}", flush=True)
        # Restores process-wide state that a call may have changed.
        world.call("tb_py_set_gil_functions", world.save_thread(), world.restore_thread())
    print("done", flush=True)
    # Skips the frameworks' exit handlers, because the calls left objects behind.
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
