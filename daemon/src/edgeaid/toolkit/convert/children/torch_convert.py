"""Child (environment torch): PyTorch to TFLite with channels last. Usage: python torch_convert.py REQUEST.json

Request: model (.pt2 of torch.export, or a pickled module: only from people you trust), shape (of the one
input), tflite (file to write), count, seed, made and outputs (.npz to write), answer.
"""

import json
import sys
from importlib import import_module
from typing import Any

import numpy as np


def main(path: str) -> None:
    with open(path) as file:
        request: dict[str, Any] = json.load(file)
    torch: Any = import_module("torch")
    litert_torch: Any = import_module("litert_torch")
    if request["model"].endswith(".pt2"):
        module = torch.export.load(request["model"]).module()
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
    values = np.random.default_rng(request["seed"]).uniform(0, 1, [request["count"], *request["shape"]])
    values = values.astype(np.float32)
    with torch.no_grad():
        runs = [module(torch.from_numpy(v)).numpy() for v in values]
    np.savez(request["made"], data=values)
    np.savez(request["outputs"], data=np.stack(runs))
    wrapped = litert_torch.to_channel_last_io(module, args=[0]) if len(request["shape"]) == 4 else module
    sample = torch.from_numpy(values[0])
    if len(request["shape"]) == 4:
        sample = sample.permute(0, 2, 3, 1).contiguous()
    litert_torch.convert(wrapped, (sample,)).export(request["tflite"])
    with open(request["answer"], "w") as file:
        json.dump({"version": import_module("importlib.metadata").version("litert-torch")}, file)


if __name__ == "__main__":
    main(sys.argv[1])
