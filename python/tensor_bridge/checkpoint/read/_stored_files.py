"""Which files are frozen graphs or models of TensorFlow Lite. Not for: what is in them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tensor_bridge import _C
from tensor_bridge.checkpoint.read._mapped import MappedFile
from tensor_bridge.checkpoint.read._stored import read_whole

if TYPE_CHECKING:
    from tensor_bridge.checkpoint.read._frozen_graph import FrozenGraph
    from tensor_bridge.checkpoint.read._tflite import Tflite

_GRAPH, _TFLITE = 1, 2
# How GraphDef, MetaGraphDef and SavedModel begin as text.
_AS_TEXT = re.compile(
    rb"(\s|#[^\n]*\n)*"
    rb"(node|library|versions|meta_info_def|graph_def|meta_graphs|saved_model_schema_version)"
    rb"\s*[:{]"
)


def open_stored(path: str, head: bytes) -> FrozenGraph | Tflite | None:
    """Opens a graph or a model; None for a file that begins as neither.

    Args:
      path: The file.
      head: Its first bytes.

    Raises:
      UnsupportedFileError: It is a graph as text.
      CheckpointError: It is damaged.
    """
    if _AS_TEXT.match(head):
        from tensor_bridge.checkpoint.read._other_formats import unsupported

        raise unsupported(
            path,
            "expected a graph as protobuf has it in binary files, got one as text (.pbtxt); write "
            "it anew: tf.io.write_graph(graph_def, folder, name, as_text=False)",
        )
    file = MappedFile(path)
    if not file.size:
        return None
    kind = read_whole(file, _C.stored_format)
    if kind == _TFLITE:
        from tensor_bridge.checkpoint.read._tflite import Tflite

        return Tflite(file)
    if kind == _GRAPH:
        from tensor_bridge.checkpoint.read._frozen_graph import FrozenGraph

        return FrozenGraph(file)
    return None
