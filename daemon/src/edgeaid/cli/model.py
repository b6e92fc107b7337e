"""`edgeai model ...`: inspect, check, plan, convert and compile a model before it meets a device.

Each verb lives in a module of its own that is imported when the verb is used: `edgeai --help` must stay fast.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import click

from . import ALIASES as TOP_ALIASES
from . import VERBS as TOP_VERBS
from .group import LazyGroup, Verb

VERBS: Final[dict[str, Verb]] = {
    "init": Verb("model_init", "init", "Make a model directory with a commented model.toml from a bare file."),
    "inspect": Verb("model_inspect", "inspect", "Show what a model file holds and where each operator will run."),
    "compare": Verb("model_compare", "compare", "Show in what two model files differ, as text or a page with graphs."),
    "check": Verb("model_check", "check_command", "Compare a model with every documented limit of a target."),
    "plan": Verb("model_plan", "plan", "Find the best way to compile Edge TPU models together."),
    "profile": Verb("model_profile", "profile", "Show where the time of a .tflite model goes, operator by operator."),
    "quantize": Verb("model_convert", "quantize", "Turn a float model into a full-integer TFLite file."),
    "convert": Verb("model_convert", "convert", "Convert between model formats and compare the results."),
    "kfpkg": Verb("model_kfpkg", "kfpkg", "Pack K210 models and firmware into a flash package for kflash."),
    "freeze": Verb("model_freeze", "freeze", "Turn a TensorFlow 1 checkpoint into a graph for the first NCS."),
    "compile": Verb("model_compile", "compile_", "Drive a target's compiler and read its log."),
    "lighten": Verb("model_convert", "lighten", "Prune or cluster a Keras model and measure what it brings."),
    "distill": Verb("model_distill", "distill", "Train a small Keras network to answer as a large model does."),
    "deploy": Verb("model_deploy", "deploy", "Take a trained model to a device: convert to push, in one command."),
    "bundle": Verb("model_bundle", "bundle", "Pack a model directory into one reproducible, signed file."),
    "verify": Verb("model_bundle", "verify", "Check every byte of a bundle, and its signature."),
    "keygen": Verb("model_bundle", "keygen", "Make a key to sign bundles with."),
    "environments": Verb("model_convert", "environments", "List, create or remove the converters' environments."),
}


class _Model(LazyGroup):
    verbs = VERBS
    aliases: Mapping[str, str] = {"quantise": "quantize"}
    elsewhere: Mapping[str, str] = {verb: f"edgeai {verb}" for verb in (*TOP_VERBS, *TOP_ALIASES)}


@click.group("model", cls=_Model, context_settings={"help_option_names": ["-h", "--help"]})
def model() -> None:
    """Inspect, check, plan, convert and compile a model before it meets a device."""
