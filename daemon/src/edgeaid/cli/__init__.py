"""`edgeai`: ask and control a running edgeaid, and prepare models for it.

One module per group of verbs, imported when used.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

import click

from .. import __version__
from .group import LazyGroup, Verb

_ASK, _MODELS, _WATCH, _OTHER = "Ask a model", "Manage models", "Watch", "Other"
VERBS: Final[dict[str, Verb]] = {
    "run": Verb("run", "run", "Ask a model file about pictures; starts a private daemon where none answers.", _ASK),
    "classify": Verb("infer", "classify", "Name what pictures show.", _ASK),
    "detect": Verb("infer", "detect", "Find objects in pictures.", _ASK),
    "pose": Verb("infer", "pose", "Find people or objects in pictures, and their keypoints.", _ASK),
    "segment": Verb("infer", "segment", "Find the areas of pictures that show something.", _ASK),
    "infer": Verb("infer", "infer", "Run a model on tensors in .npy files.", _ASK),
    "models": Verb("models", "models", "List models: every version that is stored or served.", _MODELS),
    "push": Verb("transfer", "push", "Upload a model and serve it.", _MODELS),
    "pull": Verb("transfer", "pull", "Fetch a public model of the catalogue and serve it.", _MODELS),
    "load": Verb("models", "load", "Load a stored model, or load it anew.", _MODELS),
    "reload": Verb("models", "reload", "The same as load: take what is stored now.", _MODELS),
    "unload": Verb("models", "unload", "Stop serving a model; requests under way finish.", _MODELS),
    "rollback": Verb("models", "rollback", "Go back to the next older version of a model.", _MODELS),
    "remove": Verb("models", "remove", "Delete a model, or one stored version of it.", _MODELS),
    "model": Verb("model", "model", "Inspect, check, plan, convert and compile models on this computer.", _MODELS),
    "stream": Verb("stream", "stream", "Cameras, videos and directories that are analysed continuously.", _WATCH),
    "status": Verb("watch", "status", "The daemon, its devices and its models at a glance.", _WATCH),
    "devices": Verb("watch", "devices", "Devices, their state and their recoveries.", _WATCH),
    "stats": Verb("watch", "stats", "Counts and mean times per model and phase.", _WATCH),
    "top": Verb("top", "top", "Show devices and models live.", _WATCH),
    "events": Verb("watch", "events", "Follow what happens: loads, device changes, recoveries.", _WATCH),
    "ui": Verb("ui", "ui", "Show the daemon's page in a browser.", _WATCH),
    "wait": Verb("watch", "wait", "Return as soon as the daemon and its models are ready.", _WATCH),
    "bench": Verb("bench", "bench", "Measure latency and throughput of a model.", _WATCH),
    "doctor": Verb("doctor", "doctor", "Check sticks, rights, USB speed, power, versions and models.", _OTHER),
    "version": Verb("version", "version", "Versions of this command and of the daemon, and your role there.", _OTHER),
    "completion": Verb("version", "completion", "Print the completion script of a shell.", _OTHER),
}
#: Verbs of `edgeai model`, which is not installed everywhere.
_OF_MODEL: Final = (
    "init", "inspect", "compare", "check", "plan", "profile", "quantize", "convert", "kfpkg", "freeze", "compile",
    "lighten", "distill", "deploy", "bundle", "verify", "keygen", "environments",
)  # fmt: skip
ALIASES: Final = {"ls": "models", "list": "models", "rm": "remove", "delete": "remove", "upload": "push"}

#: Exit status -> when; the codes are those of `edgeaid.errors`.
STATUSES: Final = {
    0: "done",
    1: "model check, deploy and doctor: something is wrong with what was looked at",
    64: "wrong use, or a bad request",
    65: "a model, picture, tensor or table that cannot be used, or too much data, whoever refuses it",
    66: "a file, model, version or device is not there",
    69: "not supported, or not installed here",
    70: "an internal error",
    73: "a file or standard output cannot be written",
    75: "not now: a full queue, a lost device, a deadline, no daemon; try again",
    77: "not allowed",
    78: "a bad configuration",
    130: "interrupted",
}
_LISTED: Final = "\n".join(f"  {code:>3}  {text}" for code, text in STATUSES.items())

EPILOG: Final = f"""\
\b
Exit status:
{_LISTED}

\b
Examples:
  edgeai run model.tflite photo.jpg
  edgeai classify digits three.png
  edgeai --host root@raspberrypi4-64.local devices
  edgeai push mobilenet_v2_1.0_224_inat_bird_quant.tflite
  edgeai stats digits --json | jq .
"""


class _Main(LazyGroup):
    verbs = VERBS
    aliases = ALIASES
    elsewhere: Mapping[str, str] = {verb: f"edgeai model {verb}" for verb in (*_OF_MODEL, "quantise")}


@click.group(
    cls=_Main, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.option(
    "--socket",
    "socket",
    metavar="PATH",
    envvar="EDGEAI_SOCKET",
    help="The daemon's HTTP socket (default: /run/edgeai/edgeaid.sock, or $EDGEAI_SOCKET).",
)
@click.option("--host", metavar="USER@PI", help="Reach the daemon of another machine through ssh.")
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    default=90.0,
    show_default=True,
    metavar="SECONDS",
    help="Longest wait for an answer.",
)
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output; may stand after the verb too.")
@click.version_option(__version__, prog_name="edgeai")
@click.pass_context
def main(ctx: click.Context, socket: str | None, host: str | None, timeout: float, as_json: bool) -> None:
    """Ask and control a running edgeaid, and prepare models for it."""
    from .common import Session

    if os.environ.get("NO_COLOR"):
        ctx.color = False
    ctx.obj = Session(socket, host, timeout, as_json)
    ctx.call_on_close(ctx.obj.close)


__all__ = ["main"]
