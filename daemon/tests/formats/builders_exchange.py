"""Writers of small, valid files of the formats that models are exchanged in: XML, protobuf, protobuf text, LevelDB."""

from __future__ import annotations

import struct
from typing import Any

IR = """<?xml version="1.0"?>
<net name="tiny" version="11">
 <layers>
  <layer id="0" name="x" type="Parameter" version="opset1"><data shape="1,4" element_type="f32"/>
   <output><port id="0" precision="FP32" names="x"><dim>1</dim><dim>4</dim></port></output></layer>
  <layer id="1" name="w" type="Const" version="opset1"><data element_type="f32" shape="4,2" offset="0" size="32"/>
   <output><port id="0" precision="FP32"><dim>4</dim><dim>2</dim></port></output></layer>
  <layer id="2" name="mm" type="MatMul" version="opset1"><data transpose_a="false" transpose_b="false"/>
   <input><port id="0"><dim>1</dim><dim>4</dim></port><port id="1"><dim>4</dim><dim>2</dim></port></input>
   <output><port id="2" precision="FP32" names="y"><dim>1</dim><dim>2</dim></port></output></layer>
  <layer id="3" name="y/result" type="Result" version="opset1">
   <input><port id="0"><dim>1</dim><dim>2</dim></port></input></layer>
 </layers>
 <edges><edge from-layer="0" from-port="0" to-layer="2" to-port="0"/>
  <edge from-layer="1" from-port="0" to-layer="2" to-port="1"/>
  <edge from-layer="2" from-port="2" to-layer="3" to-port="0"/></edges>
</net>
"""

OLD_IR = """<?xml version="1.0" ?>
<net batch="1" name="old" version="6">
 <layers>
  <layer id="0" name="data" precision="FP16" type="Input">
   <output><port id="0"><dim>1</dim><dim>3</dim><dim>8</dim><dim>8</dim></port></output></layer>
  <layer id="1" name="conv" precision="FP16" type="Convolution">
   <data dilations="1,1" group="1" kernel="3,3" output="4" pads_begin="1,1" pads_end="1,1" strides="1,1"/>
   <input><port id="0"><dim>1</dim><dim>3</dim><dim>8</dim><dim>8</dim></port></input>
   <output><port id="3"><dim>1</dim><dim>4</dim><dim>8</dim><dim>8</dim></port></output>
   <blobs><weights offset="0" size="216"/><biases offset="216" size="8"/></blobs></layer>
  <layer id="2" name="relu" precision="FP16" type="ReLU"><data negative_slope="0.0"/>
   <input><port id="0"><dim>1</dim><dim>4</dim><dim>8</dim><dim>8</dim></port></input>
   <output><port id="1"><dim>1</dim><dim>4</dim><dim>8</dim><dim>8</dim></port></output></layer>
 </layers>
 <edges><edge from-layer="0" from-port="0" to-layer="1" to-port="0"/>
  <edge from-layer="1" from-port="3" to-layer="2" to-port="0"/></edges>
</net>
"""

PROTOTXT = """name: "tiny"  # a comment
input: "data" input_shape { dim: 1 dim: 3 dim: 8 dim: 8 }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param { num_output: 4 kernel_size: 3 stride: 1 weight_filler { type: "xavier" std: 1e-2 } } }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "prob" type: 'Softmax' bottom: "conv1" top: "prob" softmax_param: < axis: [1] > }
"""


def varint(value: int) -> bytes:
    """A protobuf number."""
    value &= (1 << 64) - 1
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def pb(*fields: tuple[int, Any]) -> bytes:
    """A protobuf message: int -> varint, float -> 32 bit, str, bytes -> length-delimited."""
    out = b""
    for number, value in fields:
        if isinstance(value, int):
            out += varint(number << 3) + varint(value)
        elif isinstance(value, float):
            out += varint(number << 3 | 5) + struct.pack("<f", value)
        else:
            raw = value.encode() if isinstance(value, str) else value
            out += varint(number << 3 | 2) + varint(len(raw)) + raw
    return out


def onnx() -> bytes:
    """MatMul, LeakyRelu and Transpose; input x ?x4, weight w 4x2."""

    def info(name: str, *dims: bytes) -> bytes:
        return pb((1, name), (2, pb((1, pb((1, 1), (2, b"".join(pb((1, d)) for d in dims)))))))

    weight = pb((1, 4), (1, 2), (2, 1), (8, "w"), (9, bytes(32)))
    attribute = pb((1, "alpha"), (2, 0.5), (20, 1))
    perm = pb((1, "perm"), (8, b"\0\1"), (20, 7))
    graph = pb(
        (1, pb((1, "x"), (1, "w"), (2, "h"), (3, "mm"), (4, "MatMul"))),
        (1, pb((1, "h"), (2, "a"), (4, "LeakyRelu"), (5, attribute))),
        (1, pb((1, "a"), (2, "y"), (4, "Transpose"), (5, perm))),
        (2, "g"), (5, weight),
        (11, info("x", pb((2, "n")), pb((1, 4)))), (11, info("w", pb((1, 4)), pb((1, 2)))),
        (12, info("y", pb((2, "n")), pb((1, 2)))),
    )  # fmt: skip
    return pb((1, 8), (2, "test"), (3, "1"), (7, graph), (8, pb((1, ""), (2, 13))))


def graphdef() -> bytes:
    """x -> MatMul(x, w) -> y."""
    shape = pb((2, pb((1, -1))), (2, pb((1, 4))))
    placeholder = pb((1, "x"), (2, "Placeholder"), (5, pb((1, "dtype"), (2, pb((6, 1))))),
                     (5, pb((1, "shape"), (2, pb((7, shape))))))  # fmt: skip
    const = pb(
        (1, "w"), (2, "Const"), (5, pb((1, "dtype"), (2, pb((6, 1))))), (5, pb((1, "value"), (2, pb((8, bytes(40))))))
    )
    matmul = pb((1, "y"), (2, "MatMul"), (3, "x"), (3, "w"), (5, pb((1, "T"), (2, pb((6, 1))))))
    return pb((1, placeholder), (1, const), (1, matmul), (4, pb((1, 1395))))


def calling(name: str, function: str) -> bytes:
    """A node that runs a function of the library."""
    attribute = pb((1, "f"), (2, pb((10, pb((1, function))))))
    return pb((1, name), (2, "StatefulPartitionedCall"), (3, "x"), (5, attribute))


def graph_of_functions() -> bytes:
    """x -> a call of a function that calls the function that computes; and another call, of the saver."""

    def function(name: str, *nodes: bytes) -> bytes:
        return pb((1, pb((1, pb((1, name))), *[(3, node) for node in nodes])))

    placeholder = pb((1, "x"), (2, "Placeholder"))
    library = function("wrap", calling("inner", "real"), pb((1, "out"), (2, "Identity"), (3, "inner:output:0")))
    library += function("real", pb((1, "m"), (2, "MatMul"), (3, "x")), pb((1, "r"), (2, "Relu"), (3, "m:product:0")))
    library += function("save", pb((1, "s"), (2, "SaveV2"), (3, "x")))
    return pb((1, placeholder), (1, calling("y", "wrap")), (1, calling("z", "save")), (2, library))


def metagraph() -> bytes:
    """The graph with tags and a signature."""
    tensor_info = pb((1, "x:0"), (2, 1), (3, pb((2, pb((1, -1))), (2, pb((1, 4))))))
    signature = pb((1, pb((1, "x"), (2, tensor_info))), (2, pb((1, "y"), (2, tensor_info))), (3, "predict"))
    return pb((1, pb((1, "v"), (4, "serve"), (5, "2.21.0"))), (2, graphdef()),
              (5, pb((1, "serving_default"), (2, signature))))  # fmt: skip


def saved_model() -> bytes:
    """A SavedModel with one MetaGraph."""
    return pb((1, 1), (2, metagraph()))


def checkpoint_index() -> bytes:
    """Variables b and w in a LevelDB table."""

    def block(*pairs: tuple[bytes, bytes]) -> bytes:
        rows = b"".join(varint(0) + varint(len(k)) + varint(len(v)) + k + v for k, v in pairs)
        return rows + struct.pack("<II", 0, 1)

    def entry(size: int, *dims: int) -> bytes:
        return pb((1, 1), (2, b"".join(pb((2, pb((1, d)))) for d in dims)), (4, 0), (5, size))

    data = block((b"", pb((1, 1))), (b"b", entry(8, 2)), (b"w", entry(32, 4, 2)))
    index = block((b"x", varint(0) + varint(len(data))))
    at = len(data) + 5
    footer = (varint(0) + varint(0) + varint(at) + varint(len(index))).ljust(40, b"\0")
    return data + bytes(5) + index + bytes(5) + footer + bytes.fromhex("57fb808b247547db")


def caffemodel() -> bytes:
    """One convolution with weights and bias."""
    weights = pb((7, pb((1, b"\4\3\3\3"))), (5, bytes(432)))
    return pb(
        (1, "tiny"), (100, pb((1, "conv1"), (2, "Convolution"), (7, weights), (7, pb((1, 1), (2, 4), (5, bytes(16))))))
    )
