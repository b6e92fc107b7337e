"""Child (environment quantizer): float TFLite to int8 TFLite. Usage: python quantize_tflite.py REQUEST.json

Request: model, representative (.npz with `data`), int8_out, answer. Inputs and outputs stay float: this quantiser keeps
the interface.
"""

import json
import sys
from importlib import import_module
from typing import Any

import numpy as np


def main(path: str) -> None:
    with open(path) as file:
        request: dict[str, Any] = json.load(file)
    from ai_edge_litert.interpreter import Interpreter

    signatures = Interpreter(model_path=request["model"]).get_signature_list()
    if not signatures:
        raise SystemExit(
            "the model has no signature, which this quantiser needs; quantise its Keras or SavedModel source"
        )
    key = "serving_default" if "serving_default" in signatures else next(iter(signatures))
    name = signatures[key]["inputs"][0]
    data = np.load(request["representative"], allow_pickle=False)["data"].astype(np.float32)
    quantizer, recipe = (import_module(f"ai_edge_quantizer.{name}") for name in ("quantizer", "recipe"))
    made = quantizer.Quantizer(request["model"])
    made.load_quantization_recipe(recipe.static_wi8_ai8())
    calibration = made.calibrate({key: [{name: sample[None]} for sample in data]})
    result = made.quantize(calibration)
    with open(request["int8_out"], "wb") as file:
        file.write(result.quantized_model)
    with open(request["answer"], "w") as file:
        json.dump({"signature": key}, file)


if __name__ == "__main__":
    main(sys.argv[1])
