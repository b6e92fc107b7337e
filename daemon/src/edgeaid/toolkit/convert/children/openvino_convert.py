"""Child (environment openvino): ONNX, TFLite or TensorFlow to OpenVINO IR.

Usage: python openvino_convert.py REQUEST.json
Request: model, shape ([] or the fixed shape of the first input), fp16, xml (file to write), inputs (.npz with `data`:
runs x input), output (name of the output to keep, "" = the first), outputs (.npz to write), answer.
"""

import json
import sys
from typing import Any

import numpy as np
import openvino as ov


def main(path: str) -> None:
    with open(path) as file:
        request: dict[str, Any] = json.load(file)
    options = {"input": [request["shape"]]} if request.get("shape") else {}
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
    data = np.load(request["inputs"], allow_pickle=False)["data"]
    kept = next((p for p in compiled.outputs if request["output"] in p.names), compiled.output(0))
    np.savez(request["outputs"], data=np.stack([compiled([sample])[kept] for sample in data]))
    with open(request["answer"], "w") as file:
        json.dump(answer, file)


if __name__ == "__main__":
    main(sys.argv[1])
