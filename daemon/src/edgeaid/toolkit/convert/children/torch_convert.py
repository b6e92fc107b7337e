"""Child (environment torch): PyTorch to TFLite with channels last. Usage: python torch_convert.py REQUEST.json

Request: model (.pt2 of torch.export, or a pickled module: only from people you trust), shape (of the one input; [] = as
the .pt2 says), tflite (file to write), count, seed, made and outputs (.npz to write, `<run>_<input>` and
`<run>_<output>`), answer (JSON to write: version, inputs and outputs, their numbers).
"""

import json
import sys
from importlib import import_module
from typing import Any

import numpy as np


def examples(program: Any) -> list[Any]:
    """A tensor of each input's shape and type; open dimensions are 1."""
    given = {s.arg.name for s in program.graph_signature.input_specs if s.kind.name == "USER_INPUT"}
    torch: Any = import_module("torch")
    made = []
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in given:
            value = node.meta["val"]
            shape = [d if isinstance(d, int) else 1 for d in value.shape]
            made.append(torch.zeros(shape, dtype=value.dtype))
    return made


def inputs(torch: Any, module: Any, request: dict[str, Any], run: int) -> list[Any]:
    """Random inputs: of the shape asked for, or as the file's examples are."""
    wanted = getattr(module, "examples", [])
    if request["shape"]:
        wanted = [torch.zeros(request["shape"]), *wanted[1:]]
    if not wanted:
        raise SystemExit("this kind of PyTorch file does not say its input's shape; give --shape 1,3,224,224")
    generator = np.random.default_rng([request["seed"], run])
    made = []
    for value in wanted:
        shape = tuple(value.shape)
        array: Any = generator.uniform(0, 1, shape) if value.is_floating_point() else generator.integers(0, 2, shape)
        made.append(torch.from_numpy(np.asarray(array)).to(value.dtype))
    return made


def main(path: str) -> None:
    with open(path) as file:
        request: dict[str, Any] = json.load(file)
    torch: Any = import_module("torch")
    litert_torch: Any = import_module("litert_torch")
    if request["model"].endswith(".pt2"):
        program = torch.export.load(request["model"])
        module = program.module()
        module.examples = examples(program)
    else:
        try:
            torch.jit.load(request["model"], map_location="cpu")
        except RuntimeError:
            module = torch.load(request["model"], map_location="cpu", weights_only=False)
            if not isinstance(module, torch.nn.Module):
                raise SystemExit("the file holds weights without the network; save it with torch.export.save") from None
            module = module.eval()
        else:
            raise SystemExit("TorchScript cannot be exported any more; save the network with torch.export.save as .pt2")
    runs = [inputs(torch, module, request, run) for run in range(request["count"])]
    with torch.no_grad():
        outputs = [[leaf.numpy() for leaf in torch.utils._pytree.tree_leaves(module(*values))] for values in runs]
    for key, sides in (("made", [[v.numpy() for v in values] for values in runs]), ("outputs", outputs)):
        np.savez(request[key], **{f"{r}_{i}": v for r, values in enumerate(sides) for i, v in enumerate(values)})
    pictures = [i for i, v in enumerate(runs[0]) if v.ndim == 4 and v.shape[1] in (1, 3, 4)]
    wrapped = litert_torch.to_channel_last_io(module, args=pictures) if pictures else module
    sample = tuple(v.permute(0, 2, 3, 1).contiguous() if i in pictures else v for i, v in enumerate(runs[0]))
    litert_torch.convert(wrapped, sample).export(request["tflite"])
    with open(request["answer"], "w") as file:
        number = import_module("importlib.metadata").version("litert-torch")
        json.dump({"version": number, "inputs": len(runs[0]), "outputs": len(outputs[0])}, file)


if __name__ == "__main__":
    main(sys.argv[1])
