"""Child (environment nncase, Python 3.10): float TFLite or ONNX to kmodel v5.

Usage: python nncase_compile.py REQUEST.json
Request: model, kind (tflite | onnx), target (k210 | cpu), calibration (.npz with `data`, float32 in the model's own
layout; "" = no quantisation), inputs (.npz with `data` to simulate, may be ""), kmodel, outputs (.npz to write), answer
(JSON to write), options ({name of CompileOptions or PTQTensorOptions: text}).
"""

import json
import sys
from typing import Any

import nncase
import numpy as np


def apply(options: dict[str, str], *targets: Any) -> None:
    """Set the user's options where they belong; the type is that of the default."""
    for name, text in options.items():
        target = next((t for t in targets if t is not None and name in settings(t)), None)
        if target is None:
            known = ", ".join(sorted(n for t in targets if t is not None for n in settings(t)))
            raise SystemExit(f"nncase has no option {name!r}; there are {known}")
        value = settings(target)[name]
        if isinstance(value, bool):
            made: Any = text.lower() in ("1", "true", "yes", "")
        elif isinstance(value, list):
            made = [float(part) if name != "input_shape" else int(part) for part in text.split(",")]
        else:
            made = type(value)(text)
        setattr(target, name, made)


def settings(options: Any) -> dict[str, Any]:
    """Names and values that can be set."""
    simple = (bool, int, float, str, list)
    own = {n: getattr(options, n) for n in dir(options) if not n.startswith("_")}
    return {name: value for name, value in own.items() if isinstance(value, simple)}


def main(path: str) -> None:
    with open(path) as file:
        request: dict[str, Any] = json.load(file)
    options = nncase.CompileOptions()
    options.target = request["target"]
    options.dump_ir = False
    options.dump_asm = False
    if request["calibration"]:
        options.quant_type = "uint8"
        options.w_quant_type = "uint8"
    calibration = nncase.PTQTensorOptions() if request["calibration"] else None
    apply(request["options"], options, calibration)
    compiler = nncase.Compiler(options)
    with open(request["model"], "rb") as file:
        content = file.read()
    imports = nncase.ImportOptions()
    (compiler.import_tflite if request["kind"] == "tflite" else compiler.import_onnx)(content, imports)
    if calibration is not None:
        data = np.load(request["calibration"], allow_pickle=False)["data"].astype(np.float32)
        calibration.samples_count = len(data)
        # Bytes of another type are taken without a word and give an output of zeros.
        calibration.set_tensor_data(np.ascontiguousarray(data).tobytes())
        compiler.use_ptq(calibration)
    compiler.compile()
    kmodel = compiler.gencode_tobytes()
    with open(request["kmodel"], "wb") as file:
        file.write(kmodel)
    answer = {"nncase": getattr(nncase, "__version__", "1.9"), "bytes": len(kmodel)}
    if request.get("inputs"):
        simulator = nncase.Simulator()
        simulator.load_model(kmodel)
        runs = []
        for sample in np.load(request["inputs"], allow_pickle=False)["data"]:
            value = np.ascontiguousarray(sample[None].astype(np.float32))
            simulator.set_input_tensor(0, nncase.RuntimeTensor.from_numpy(value))
            simulator.run()
            runs.append(simulator.get_output_tensor(0).to_numpy().copy())
        np.savez(request["outputs"], data=np.stack(runs))
        answer["outputs"] = simulator.outputs_size
    with open(request["answer"], "w") as file:
        json.dump(answer, file)


if __name__ == "__main__":
    main(sys.argv[1])
