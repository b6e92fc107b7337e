"""Child (environment openvino): ONNX, TFLite or TensorFlow to OpenVINO IR.

Usage: python openvino_convert.py REQUEST.json
Request: model, shapes ({input name: fixed shape}, "" = the first input; {} = as the file says), fp16, xml (file to
write), inputs (.npz with `<run>_<input>`), output (name of the only output to keep, "" = all), outputs (.npz to write,
`<run>_<output>`), answer.
"""

import json
import sys
from typing import Any

import numpy as np
import openvino as ov


def main(path: str) -> None:
    with open(path) as file:
        request: dict[str, Any] = json.load(file)
    shapes = request["shapes"]
    given: list[Any] = [shape if name == "" else (name, shape) for name, shape in shapes.items()]
    options = {"input": given} if given else {}
    model = ov.convert_model(request["model"], **options)
    ov.save_model(model, request["xml"], compress_to_fp16=request["fp16"])
    saved = ov.Core().read_model(request["xml"])
    answer = {
        "openvino": ov.__version__,
        "inputs": [[str(p.get_any_name()), p.element_type.get_type_name(), str(p.partial_shape)] for p in saved.inputs],
        "outputs": [
            [str(next(iter(p.names), "")), p.element_type.get_type_name(), str(p.partial_shape)] for p in saved.outputs
        ],
        "transposes": sum(op.get_type_name() == "Transpose" for op in saved.get_ops()),
    }
    compiled = ov.Core().compile_model(saved, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    kept = [p for p in compiled.outputs if request["output"] in p.names] or list(compiled.outputs)
    outputs: dict[str, Any] = {}
    with np.load(request["inputs"], allow_pickle=False) as data:
        for run in range(len({key.split("_")[0] for key in data.files})):
            made = compiled([data[f"{run}_{i}"] for i in range(len(compiled.inputs))])
            outputs |= {f"{run}_{j}": made[port] for j, port in enumerate(kept)}
    np.savez(request["outputs"], **outputs)
    with open(request["answer"], "w") as file:
        json.dump(answer, file)


if __name__ == "__main__":
    main(sys.argv[1])
