"""`edgeaid`: the daemon's command line."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import gc
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from . import __version__, config, errors
from . import systemd as service
from .worker import launch

DESCRIPTION = """\
Serve models on a Unix socket: Open Inference Protocol over HTTP, pictures in and labelled answers out.
Runs in the foreground; under systemd it takes its sockets, watchdog and reload from there."""

EPILOG = """\
signals:
  SIGTERM, SIGINT   finish requests under way, then end
  SIGHUP            read the configuration again; a bad one is logged and changes nothing

exit status:
  0 ended as told   64 wrong arguments   70 internal error   78 configuration cannot be used

files:
  /etc/edgeai/edgeaid.toml     configuration (see docs/operations.md)
  /var/lib/edgeai/models       models; the first repository is where pushed ones go
  /run/edgeai/edgeaid.sock     HTTP

example:
  edgeaid --socket /tmp/edgeaid.sock --model-repository ~/models
  curl --unix-socket /tmp/edgeaid.sock http://localhost/v2/models"""


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="edgeaid", description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="configuration in TOML")
    parser.add_argument("--socket", type=Path, metavar="PATH", help="HTTP socket; overrides the configuration")
    parser.add_argument(
        "--fast-socket", metavar="PATH", help="fast socket (default: 'fast.sock' beside --socket when that is given)"
    )
    parser.add_argument("--grpc-socket", metavar="PATH", help="gRPC socket; needs edgeaid[grpc]")
    parser.add_argument(
        "--model-repository",
        type=Path,
        action="append",
        metavar="DIR",
        help="model directory; may be repeated, the first takes pushed models",
    )
    parser.add_argument("--no-embedded", action="store_true", help="do not serve the models that come with edgeaid")
    parser.add_argument("--log-level", choices=("debug", "info", "warning", "error"))
    parser.add_argument(
        "--check", action="store_true", help="read the configuration, say whether it can be used, and end"
    )
    parser.add_argument("--version", action="version", version=f"edgeaid {__version__}")
    return parser.parse_args(argv)


def build(args: argparse.Namespace) -> config.Config:
    """The configuration file with the command line on top."""
    configuration = config.load(args.config) if args.config else config.Config()
    server, models = configuration.server, configuration.models
    if args.socket:
        server = dataclasses.replace(
            server, socket=args.socket, fast_socket=server.fast_socket or str(args.socket.parent / "fast.sock")
        )
    if args.fast_socket is not None:
        server = dataclasses.replace(server, fast_socket=args.fast_socket)
    if args.grpc_socket is not None:
        server = dataclasses.replace(server, grpc_socket=args.grpc_socket)
    if args.log_level:
        server = dataclasses.replace(server, log_level=args.log_level)
    if args.model_repository:
        models = dataclasses.replace(models, repositories=tuple(args.model_repository))
    if args.no_embedded:
        models = dataclasses.replace(models, embedded=False)
    return dataclasses.replace(configuration, server=server, models=models)


@contextlib.contextmanager
def without_openssl() -> Iterator[None]:
    """What is imported meanwhile does without OpenSSL: libraries of 8 MiB for what the daemon never speaks.

    asyncio, http.client and aiohttp look whether `ssl` is there, and hashlib has functions of its own beside
    `_hashlib`: slower ones, for small files of models (models.digests). Later imports find both again.
    """
    modules = cast(dict[str, Any], sys.modules)
    own_hashes = any(importlib.util.find_spec(name) is not None for name in ("_sha2", "_sha256"))  # 3.12 on, before
    hidden = [name for name in ("ssl", *["_hashlib"] * own_hashes) if name not in modules]
    modules.update(dict.fromkeys(hidden))  # None: import says that there is no such module
    try:
        yield
    finally:
        for name in hidden:
            del modules[name]


def main(argv: list[str] | None = None) -> None:
    """Entry point of the console script."""
    args = _arguments(argv)
    try:
        configuration = build(args)
        if args.check:
            print("configuration is usable")
            return
        service.set_up_logging(configuration.server.log_level)
        fork_server = launch.ahead()  # its imports take as long as those of the daemon, which follow
        with without_openssl():
            from . import daemon

        gc.freeze()  # imports live for ever; the collector need not walk them
        daemon.main(configuration, lambda: build(args), fork_server)
    except errors.EdgeaiError as error:
        print(f"edgeaid: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
