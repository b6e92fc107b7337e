"""Child (environment torch): PyTorch to ONNX. Usage: python torch_onnx.py REQUEST.json

Request: what torch_module.load takes, shape (of the first input; [] = as the .pt2 says), names ([inputs, outputs], []
where they are made up), onnx (file to write), count, seed, made and outputs (.npz to write, `<run>_<number>`), answer.
Answer: inputs and outputs ([name, shape, dtype]), version (of torch).
"""

import json
import sys
from importlib import import_module
from typing import Any

_OPSET = 18


def main(path: str) -> None:
    with open(path) as file:
        request: dict[str, Any] = json.load(file)
    network, torch = (import_module(name) for name in ("torch_module", "torch"))
    module = network.load(request)
    given, made = network.run(module, request)
    network.save(request["made"], given)
    network.save(request["outputs"], made)
    specs: dict[str, Any] = {}
    for side, values, word in (("inputs", given[0], "input"), ("outputs", made[0], "output")):
        chosen = request["names"][0 if side == "inputs" else 1]
        if chosen and len(chosen) != len(values):
            raise SystemExit(f"{len(chosen)} names for {len(values)} {side}: {', '.join(chosen)}")
        names = chosen or ([word] if len(values) == 1 else [f"{word}{i}" for i in range(len(values))])
        specs[side] = [[n, list(v.shape), v.detach().numpy().dtype.name] for n, v in zip(names, values, strict=True)]
    # TorchScript cannot be traced again, so the older exporter has to do it.
    scripted = isinstance(module, torch.jit.ScriptModule)
    torch.onnx.export(
        module, tuple(given[0]), request["onnx"], dynamo=not scripted, opset_version=17 if scripted else _OPSET,
        input_names=[n for n, _, _ in specs["inputs"]], output_names=[n for n, _, _ in specs["outputs"]],
        **({} if scripted else {"external_data": False}),
    )  # fmt: skip
    with open(request["answer"], "w") as file:
        json.dump({**specs, "version": torch.__version__.split("+")[0]}, file)


if __name__ == "__main__":
    main(sys.argv[1])
