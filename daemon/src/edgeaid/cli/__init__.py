"""`edgeai`: ask and steer a running edgeaid, and prepare models for it.

One module per group of verbs, imported when used.
"""

from __future__ import annotations

import importlib
import sys
from importlib.util import find_spec
from typing import Any, Final

import click

from .. import __version__
from ..errors import EdgeaiError, Unsupported

#: verb -> module in this package; the command is an attribute of the verb's name ("-" as "_").
VERBS: Final[dict[str, str]] = {
    "models": "models", "load": "models", "unload": "models", "reload": "models",
    "rollback": "models", "remove": "models",
    "push": "transfer", "pull": "transfer",
    "infer": "infer", "classify": "infer", "detect": "infer", "segment": "infer",
    "stats": "watch", "devices": "watch", "events": "watch", "top": "top",
    "bench": "bench", "doctor": "doctor", "version": "version", "completion": "version",
    "model": "model", "stream": "stream",
}  # fmt: skip

EPILOG = """\
\b
Exit status: 0 done, 64 wrong use or bad request, 65 bad model or too much data, 66 not found,
  69 not supported here, 70 internal error, 75 not now (queue full, device lost, deadline): try again,
  77 not allowed, 78 bad configuration.

\b
Examples:
  edgeai classify digits three.png
  edgeai --host root@raspberrypi4-64.local devices
  edgeai push bird mobilenet_v2_1.0_224_inat_bird_quant.tflite
  edgeai --json stats digits | jq .
"""


class _Verbs(click.Group):
    """Commands imported at first use: `edgeai --help` and completion stay fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = VERBS.get(cmd_name)
        if module is None:
            return None
        if module == "model" and find_spec(f"{__name__}.{module}") is None:
            raise Unsupported(
                "this device carries no toolkit: run `edgeai model` on a desk (pip install 'edgeaid[toolkit]') "
                "or add the package edgeaid-toolkit to the image"
            )
        command: click.Command = getattr(importlib.import_module(f"{__name__}.{module}"), cmd_name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except EdgeaiError as error:
            if ctx.params.get("as_json"):
                import json

                click.echo(json.dumps({"error": str(error), "kind": type(error).__name__}))
            else:
                click.echo(f"edgeai: {error}", err=True)
            ctx.exit(error.exit_code)
        except BrokenPipeError:
            sys.stderr.close()
            ctx.exit(0)


@click.group(
    cls=_Verbs, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
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
    "--timeout", type=float, default=60.0, show_default=True, metavar="SECONDS", help="Longest wait for an answer."
)
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
@click.version_option(__version__, prog_name="edgeai")
@click.pass_context
def main(ctx: click.Context, socket: str | None, host: str | None, timeout: float, as_json: bool) -> None:
    """Ask and steer a running edgeaid, and prepare models for it."""
    from .common import Session

    ctx.obj = Session(socket, host, timeout, as_json)
    ctx.call_on_close(ctx.obj.close)


__all__ = ["main"]
