"""The first operators of a TFLite model as a model of their own, by changing a few bytes of a copy.

A flatbuffer's vectors may be made shorter where they lie, and a reference may be turned to a vector behind the end:
nothing has to be written anew. Table slots: google-ai-edge/LiteRT:tflite/converter/schema/schema.fbs.
"""

from __future__ import annotations

import struct
from typing import Final

from ...errors import InvalidModel
from ...formats.tflite.model import Subgraph
from ...formats.wire.flatbuffer import Flatbuffer

_SUBGRAPHS: Final = 2
_SIGNATURES: Final = 7
_OUTPUTS: Final = 2
_OPERATORS: Final = 3


def prefix(content: bytes, graph: Subgraph, count: int) -> bytes:
    """The model with the first `count` operators of its first subgraph; what later ones read becomes its output.

    `graph` is that subgraph as `tflite.read` gave it. Raises InvalidModel for a file without room for that.
    """
    made = {i for o in graph.operators[:count] for i in o.outputs if i >= 0}
    wanted = {i for o in graph.operators[count:] for i in o.inputs if i >= 0} | set(graph.outputs)
    live = sorted(made & wanted) or sorted(made)[-1:]
    root = Flatbuffer(content, "TFLite model").root(b"TFL3")
    table = root.tables(_SUBGRAPHS, "subgraphs")[0]
    place, (operators, total) = table.place(_OUTPUTS), table.span(_OPERATORS, 4)
    if not place or not operators or not 0 < count <= total:
        raise InvalidModel(f"the model has {total} operators, not {count}, or no outputs")
    changed = bytearray(content) + bytes(-len(content) % 4)
    struct.pack_into("<I", changed, operators - 4, count)
    struct.pack_into("<I", changed, place, len(changed) - place)
    # Signatures name outputs that are not there any more.
    signatures, named = root.span(_SIGNATURES, 4)
    if named:
        struct.pack_into("<I", changed, signatures - 4, 0)
    return bytes(changed) + struct.pack(f"<{len(live) + 1}I", len(live), *live)
