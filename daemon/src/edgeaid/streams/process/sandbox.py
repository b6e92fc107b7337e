"""What a stream's own process may do: its stages may be foreign code, and decoders of pictures read foreign bytes."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ...errors import EdgeaiError
from ..sources import PROGRAMS, Source, understand
from ..table import STAGE_GROUP, Call, Stream
from .reader import confine, plugin_paths, registry_directory

log = logging.getLogger(__name__)


def shut_in(stream: Stream, reads: Sequence[str], directory: str) -> int:
    """Give up for good what the stream does not need. `reads` = where models lie, `directory` = where it writes.

    Only for a process with one thread: those that it starts later are shut in too, and so are its programs. Returns the
    version of Landlock that was used, 0 = the kernel has none.
    """
    writes = [directory] if directory else []
    if registry := registry_directory():
        writes.append(registry)
    if directory:
        try:
            Path(directory).mkdir(parents=True, exist_ok=True)
        except OSError as error:  # what is to be written there is counted as lost; the stream goes on
            log.error("stream %s: %s: %s", stream.name, directory, error.strerror)
    source = _source(stream)
    network = bool(stream.webhooks) or (source is not None and bool(source.host))
    files = [source.text] if source is not None and not source.live and not source.host else []
    version = confine([*reads, *_python(), *_programs(), *_own(stream), *files], writes, network=network)
    if not version:
        log.info("this kernel has no Landlock: stages of stream %s may do what the daemon may", stream.name)
    return version


def _python() -> Iterator[str]:
    """The interpreter and its packages."""
    yield from {sys.prefix, sys.base_prefix, *(p for p in sys.path if p)}
    yield str(Path(__file__).parents[3])


def _programs() -> Iterator[str]:
    """Programs that read sources, and their plug-ins."""
    for program in PROGRAMS:
        if path := shutil.which(program):
            yield os.path.dirname(os.path.realpath(path))
            yield os.path.dirname(path)
    yield from plugin_paths()


def _source(stream: Stream) -> Source | None:
    try:
        return understand(stream.source)
    except EdgeaiError:  # the capture says what is wrong with it
        return None


def _own(stream: Stream) -> Iterator[str]:
    """The packages of the user's own stages, wherever they are installed from."""
    names = {stage.name for stage in stream.stages if isinstance(stage, Call)}
    for entry in entry_points(group=STAGE_GROUP):
        if entry.name in names:
            yield from _package(entry)


def _package(entry: EntryPoint) -> Iterator[str]:
    """Where a package is read from; one that was installed to be edited lies somewhere else."""
    try:
        spec = find_spec(entry.module.partition(".")[0])
    except (ImportError, ValueError):
        spec = None  # the stream reports it when it makes the stage
    if spec is not None:
        yield from spec.submodule_search_locations or [os.path.dirname(spec.origin or "") or "/usr"]
    text = entry.dist.read_text("direct_url.json") if entry.dist is not None else None
    if text:
        yield unquote(urlsplit(json.loads(text).get("url", "")).path) or "/usr"
