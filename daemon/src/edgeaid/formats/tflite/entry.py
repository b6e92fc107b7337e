"""How a model is entered and what it keeps: names of its tensors, and state that outlives a run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Final

from .model import Signature, TfliteModel

#: The signature that TensorFlow's exporters write unless another is asked for.
DEFAULT_SIGNATURE: Final = "serving_default"
#: Operators whose kernel keeps the state of a random number generator between runs.
_GENERATORS: Final = frozenset({"RANDOM_UNIFORM", "RANDOM_STANDARD_NORMAL", "MULTINOMIAL"})


class State(StrEnum):
    """What of an interpreter is different after a run."""

    NONE = ""
    #: Variable tensors: a runtime can set them back.
    VARIABLES = "variables"
    #: Resource variables or random number generators: only a new interpreter begins anew.
    RESOURCES = "resources"


def state_of(model: TfliteModel) -> State:
    """The state that a run of `model` leaves behind.

    Resources that only the initialising subgraph of CALL_ONCE writes (tables, constants) are not state.
    """
    operators = [operator for graph in model.subgraphs for operator in graph.operators]
    initialising = {o.options.get("init_subgraph") for o in operators if o.name == "CALL_ONCE"}
    serving = [g for i, g in enumerate(model.subgraphs) if i not in initialising]
    names = {operator.name for graph in serving for operator in graph.operators}
    if "ASSIGN_VARIABLE" in names or names & _GENERATORS:
        return State.RESOURCES
    if any(tensor.is_variable for graph in serving for tensor in graph.tensors):
        return State.VARIABLES
    return State.NONE


def signature_of(model: TfliteModel) -> Signature | None:
    """The signature that names the main graph's tensors, None when the file has none."""
    ours = [s for s in model.signatures if s.subgraph == 0]
    return next((s for s in ours if s.key == DEFAULT_SIGNATURE), ours[0] if ours else None)


def input_names(model: TfliteModel) -> tuple[str, ...]:
    """Names of the main graph's inputs in the runtime's order: its signature's, else the tensors' own; each once."""
    signature = signature_of(model)
    return _names(model, model.subgraphs[0].inputs, signature.inputs if signature else (), "input")


def output_names(model: TfliteModel) -> tuple[str, ...]:
    """The same of its outputs."""
    signature = signature_of(model)
    return _names(model, model.subgraphs[0].outputs, signature.outputs if signature else (), "output")


def _names(model: TfliteModel, tensors: Sequence[int], signed: Iterable[tuple[str, int]], what: str) -> tuple[str, ...]:
    # One tensor may be several outputs: its names are given out in their order.
    left = list(signed)
    chosen = []
    for index in tensors:
        entry = next((e for e in left if e[1] == index and e[0]), None)
        if entry is not None:
            left.remove(entry)
        chosen.append(entry[0] if entry is not None else model.subgraphs[0].tensors[index].name)
    return unique(chosen, what)


def unique(names: Sequence[str], what: str) -> tuple[str, ...]:
    """`names` with an own one (`input_0`, `name_2`) for those that are empty or were given before."""
    used: set[str] = set(names)
    result: list[str] = []
    for position, name in enumerate(names):
        if name and name not in result:
            result.append(name)
            continue
        stem, number = (name, 2) if name else (what, position)
        while f"{stem}_{number}" in used:
            number += 1
        result.append(f"{stem}_{number}")
        used.add(result[-1])
    return tuple(result)
