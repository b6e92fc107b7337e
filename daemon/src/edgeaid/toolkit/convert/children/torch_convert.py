"""Child (environment torch): PyTorch to TFLite with channels last. Usage: python torch_convert.py REQUEST.json

Request: what torch_module.load takes, shape (of the first input; [] = as the .pt2 says), tflite (file to write), count,
seed, made and outputs (.npz to write, `<run>_<input>` and `<run>_<output>`), answer (JSON to write: version, inputs and
outputs, their numbers).
"""

import json
import sys
from importlib import import_module
from typing import Any


def main(path: str) -> None:
    with open(path) as file:
        request: dict[str, Any] = json.load(file)
    network, torch, litert_torch = (import_module(name) for name in ("torch_module", "torch", "litert_torch"))
    module = network.load(request)
    if isinstance(module, torch.jit.ScriptModule):
        raise SystemExit(
            "litert-torch takes no TorchScript: --via onnx does, or save it with torch.export.save as .pt2"
        )
    given, made = network.run(module, request)
    network.save(request["made"], given)
    network.save(request["outputs"], made)
    pictures = [i for i, v in enumerate(given[0]) if v.ndim == 4 and v.shape[1] in (1, 3, 4)]
    wrapped = litert_torch.to_channel_last_io(module, args=pictures) if pictures else module
    sample = tuple(v.permute(0, 2, 3, 1).contiguous() if i in pictures else v for i, v in enumerate(given[0]))
    litert_torch.convert(wrapped, sample).export(request["tflite"])
    with open(request["answer"], "w") as file:
        number = import_module("importlib.metadata").version("litert-torch")
        json.dump({"version": number, "inputs": len(given[0]), "outputs": len(made[0])}, file)


if __name__ == "__main__":
    main(sys.argv[1])
