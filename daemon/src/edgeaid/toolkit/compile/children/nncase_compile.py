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

#: What nncase takes for an option that it does not check itself.
CHOICES = {
    "calibrate_method": ("no_clip", "l2", "kld_m0", "kld_m1", "kld_m2", "cdf"),
    "input_type": ("default", "uint8", "int8", "float32"),
    "output_type": ("uint8", "int8", "float32"),
    "quant_type": ("uint8", "int8"),
    "w_quant_type": ("uint8", "int8"),
    "input_layout": ("NCHW", "NHWC"),
    "output_layout": ("NCHW", "NHWC"),
}


def apply(options: dict[str, str], *targets: Any) -> None:
    """Set the user's options where they belong; the type is that of the default."""
    for name, text in options.items():
        target = next((t for t in targets if t is not None and name in settings(t)), None)
        if target is None:
            known = ", ".join(sorted(n for t in targets if t is not None for n in settings(t)))
            raise SystemExit(f"nncase has no option {name!r}; there are {known}")
        value = settings(target)[name]
        if text not in CHOICES.get(name, (text,)):
            raise SystemExit(f"{name}={text}: nncase takes {', '.join(CHOICES[name])}")
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
    # A path is taken as text, but cannot be read as such.
    return {
        name: "" if name == "dump_dir" else v for name, v in own.items() if isinstance(v, simple) or name == "dump_dir"
    }


def fed(samples: Any, options: Any, kind: str) -> Any:
    """Samples as the compiled model takes them: with `preprocess` in its own layout and type, before mean and std."""
    made = samples.astype(np.float32)
    if not options.preprocess:
        return made
    if made.ndim == 4:
        last = np.moveaxis(made, 1, -1) if kind == "onnx" else made
        last = last * np.array(options.std, np.float32) + np.array(options.mean, np.float32)
        last = last[..., ::-1] if options.swapRB else last
        made = np.moveaxis(last, -1, 1) if options.input_layout == "NCHW" else last
    if options.input_type in ("uint8", "int8"):
        low, high = options.input_range
        kind_of = np.iinfo(options.input_type)
        steps = np.rint((made - low) / (high - low) * 255) + kind_of.min
        made = np.clip(steps, kind_of.min, kind_of.max).astype(options.input_type)
    return made


def as_model(output: Any, options: Any, kind: str) -> Any:
    """An output [1, ...] in the layout of the model that was compiled."""
    own = "NCHW" if kind == "onnx" else "NHWC"
    if not options.preprocess or output.ndim != 4 or options.output_layout == own:
        return output
    return np.moveaxis(output, -1, 1) if own == "NCHW" else np.moveaxis(output, 1, -1)


def main(path: str) -> None:
    with open(path) as file:
        request: dict[str, Any] = json.load(file)
    options = nncase.CompileOptions()
    options.target = request["target"]
    options.dump_ir = False
    options.dump_asm = False
    # With `preprocess` these count; nncase's own default turns a TFLite model's maps around.
    options.input_layout = options.output_layout = "NCHW" if request["kind"] == "onnx" else "NHWC"
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
        data = fed(np.load(request["calibration"], allow_pickle=False)["data"], options, request["kind"])
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
        for sample in fed(np.load(request["inputs"], allow_pickle=False)["data"], options, request["kind"]):
            value = np.ascontiguousarray(sample[None])
            simulator.set_input_tensor(0, nncase.RuntimeTensor.from_numpy(value))
            simulator.run()
            runs.append(as_model(simulator.get_output_tensor(0).to_numpy(), options, request["kind"]).copy())
        np.savez(request["outputs"], data=np.stack(runs))
        answer["outputs"] = simulator.outputs_size
    with open(request["answer"], "w") as file:
        json.dump(answer, file)


if __name__ == "__main__":
    main(sys.argv[1])
