"""Part of the children of the environment torch: the network of a file, and inputs for it."""

import importlib.util
import json
import sys
from importlib import import_module
from typing import Any

import numpy as np

#: Where training programs keep the weights in what they save.
_WEIGHTS = ("state_dict", "model_state_dict", "model", "net", "network", "weights", "ema", "params")


def load(request: dict[str, Any]) -> Any:
    """The network of a .pt2, a pickled module, or weights and the class that they belong to; in evaluation mode.

    Request: model; module (.py file or dotted name), cls and arguments (JSON: list or object) for weights;
    import_paths.
    """
    torch: Any = import_module("torch")
    sys.path[:0] = request.get("import_paths") or []
    if request["model"].endswith(".pt2"):
        program = torch.export.load(request["model"])
        module = program.module()
        module.examples = examples(program)
        return module
    if request.get("cls"):
        return with_weights(torch, request)
    try:
        return torch.jit.load(request["model"], map_location="cpu").eval()
    except RuntimeError:
        module = torch.load(request["model"], map_location="cpu", weights_only=False)
    if not isinstance(module, torch.nn.Module):
        raise SystemExit(
            "the file holds weights without the network: say where its class is with --module FILE.py --class NAME"
        )
    return module.eval()


def with_weights(torch: Any, request: dict[str, Any]) -> Any:
    """An instance of the class with the weights of the file; every name must fit."""
    place = request["module"]
    if place.endswith(".py"):
        spec: Any = importlib.util.spec_from_file_location("user_module", place)
        source = importlib.util.module_from_spec(spec)
        sys.modules["user_module"] = source
        spec.loader.exec_module(source)
    else:
        source = import_module(place)
    made = getattr(source, request["cls"], None)
    if made is None:
        names = ", ".join(n for n, v in vars(source).items() if isinstance(v, type) and issubclass(v, torch.nn.Module))
        raise SystemExit(f"{place} has no {request['cls']!r}; networks in it: {names or 'none'}")
    arguments = json.loads(request.get("arguments") or "[]")
    module = made(**arguments) if isinstance(arguments, dict) else made(*arguments)
    weights = torch.load(request["model"], map_location="cpu", weights_only=True)
    while (
        isinstance(weights, dict) and (inner := next((weights[k] for k in _WEIGHTS if k in weights), None)) is not None
    ):
        weights = inner
    weights = {name.removeprefix("module."): value for name, value in weights.items()}
    try:
        missing, unexpected = module.load_state_dict(weights, strict=False)
        reasons = [f"{name} is missing" for name in missing] + [f"{name} is too many" for name in unexpected]
    except RuntimeError as error:  # sizes that differ
        reasons = [line.strip() for line in str(error).splitlines()[1:]]
    if reasons:
        raise SystemExit(
            f"the weights do not belong to {request['cls']} as it was made: {'; '.join(reasons[:3])}; "
            "give the same arguments as in training with --arguments"
        )
    return module.eval()


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


def inputs(module: Any, request: dict[str, Any], run: int) -> list[Any]:
    """Random inputs: of the shape asked for, or as the file's examples are."""
    torch: Any = import_module("torch")
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


def run(module: Any, request: dict[str, Any]) -> tuple[list[list[Any]], list[list[Any]]]:
    """Inputs and outputs of every run, tensors; the outputs in the order of the network's own nesting."""
    torch: Any = import_module("torch")
    given = [inputs(module, request, number) for number in range(request["count"])]
    with torch.no_grad():
        made = [torch.utils._pytree.tree_leaves(module(*values)) for values in given]
    return given, made


def save(path: str, runs: list[list[Any]]) -> None:
    """Tensors as .npz, `<run>_<number>`."""
    np.savez(path, **{f"{r}_{i}": v.detach().numpy() for r, values in enumerate(runs) for i, v in enumerate(values)})
