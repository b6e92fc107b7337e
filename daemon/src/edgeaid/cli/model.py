"""`edgeai model ...`: know, check, plan, convert and compile a model before it meets a device.

Each verb lives in a module of its own that is imported when the verb is used: `edgeai --help` must stay fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

import click

from ..errors import EdgeaiError

#: Verb -> (module in this package, name of the command in it, first line of its help).
VERBS: Final[dict[str, tuple[str, str, str]]] = {
    "inspect": ("model_inspect", "inspect", "Show what a model file holds and where each operator will run."),
    "check": ("model_check", "check_command", "Compare a model with every documented limit of a target."),
    "plan": ("model_plan", "plan", "Find the best way to compile Edge TPU models together."),
    "quantize": ("model_convert", "quantize", "Turn a float model into a full-integer TFLite file."),
    "convert": ("model_convert", "convert", "Convert between model formats and compare the results."),
    "compile": ("model_compile", "compile_", "Drive a target's compiler and read its log."),
    "lighten": ("model_convert", "lighten", "Prune or cluster a Keras model and measure what it brings."),
    "bundle": ("model_bundle", "bundle", "Pack a model directory into one reproducible, signed file."),
    "verify": ("model_bundle", "verify", "Check every byte of a bundle, and its signature."),
    "keygen": ("model_bundle", "keygen", "Make a key to sign bundles with."),
    "environments": ("model_convert", "environments", "List, create or remove the converters' environments."),
}


class _Failure(click.ClickException):
    """An EdgeaiError as the command line shows it."""

    def __init__(self, error: EdgeaiError) -> None:
        super().__init__(str(error))
        # click reads it from the object; its type stub knows the class attribute only.
        vars(self)["exit_code"] = error.exit_code


class LazyGroup(click.Group):
    """A group whose commands are imported when asked for, and whose errors become exit codes."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in VERBS:
            return None
        module, attribute, _ = VERBS[name]
        command: click.Command = getattr(import_module(f".{module}", __package__), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        # The help of the group needs no verb's module.
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in VERBS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except EdgeaiError as e:
            raise _Failure(e) from e


@click.group("model", cls=LazyGroup, help="Know, check, plan, convert and compile a model before it meets a device.")
def model() -> None:
    """Group of the verbs."""
