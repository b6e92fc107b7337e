"""Reports about files of files: flash packages, zips, bundles, tars."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from ...errors import EdgeaiError, InvalidModel
from ...formats.finding import REFUSED, Finding
from ...formats.k210 import kfpkg
from ...formats.wire import tardir, zipdir
from ...tables import read_toml
from .report import Bar, Report

#: Files of an archive that are inspected themselves.
MODEL_FILES: Final = (".tflite", ".kmodel", ".graph", ".onnx", ".xml", ".pb", ".blob", ".prototxt", ".caffemodel")
MAX_PARTS: Final = 32
#: Archives are looked into this deep.
MAX_NESTING: Final = 2
#: Bytes unpacked from one archive.
MAX_UNPACKED: Final = 512 * 1024 * 1024

#: Inspects a file's content: bytes, its path, how deep it lies in archives.
Inspect = Callable[[bytes, Path, int], Report]


def kfpkg_report(inspect: Inspect, data: bytes, path: Path, depth: int) -> Report:
    """A flash package and the models in it."""
    package = kfpkg.read(data)
    entries = {e.name: e for e in zipdir.entries(data)}
    models = dict.fromkeys(f.name for f in package.files if f.kind != "unknown")
    parts = [(name, partial(zipdir.read, data, entries[name], kfpkg.FLASH)) for name in list(models)[:MAX_PARTS]]
    facts: dict[str, str | int | float] = {"list version": package.version}
    facts |= {f"{f.address:#010x}": f"{f.name} ({f.size if f.size is not None else '?'} B)" for f in package.files}
    report = Report(
        path=str(path), kind="kfpkg", size=len(data), facts=facts, findings=kfpkg.check(package),
        memory=(Bar("flash", tuple((f.name, f.size or 0) for f in package.files), kfpkg.FLASH),),
    )  # fmt: skip
    return with_parts(report, _inspect_all(inspect, parts, path, depth))


def zip_report(inspect: Inspect, data: bytes, path: Path, depth: int) -> Report:
    """A zip; a bundle of ours is compared with its own list of digests."""
    entries = zipdir.entries(data)
    names = {e.name for e in entries}
    facts: dict[str, str | int | float] = {"files": len(entries)}
    findings: list[Finding] = []
    if "model.toml" in names:
        manifest = next(e for e in entries if e.name == "model.toml")
        facts |= manifest_facts(zipdir.read(data, manifest, 1 << 20))
        facts["signature"] = "bundle.sig" if "bundle.sig" in names else "none"
        findings += _bundle_findings(data)
    chosen: list[zipdir.Entry] = []
    total = 0
    for e in entries:
        if e.name.lower().endswith(MODEL_FILES) and len(chosen) < MAX_PARTS and total + e.size <= MAX_UNPACKED:
            chosen.append(e)
            total += e.size
    # One at a time: a small archive may unpack to much.
    parts = [(e.name, partial(zipdir.read, data, e, MAX_UNPACKED)) for e in chosen]
    report = Report(
        path=str(path), kind="zip", size=len(data), facts=facts, findings=tuple(findings),
        memory=(Bar("unpacked", tuple((e.name, e.size) for e in entries[:64])),),
    )  # fmt: skip
    return with_parts(report, _inspect_all(inspect, parts, path, depth))


def _bundle_findings(data: bytes) -> Iterable[Finding]:
    """Compare a bundle of ours with its own list of digests. The signature needs a key: `edgeai model verify`."""
    import hashlib
    from io import BytesIO

    from ...models.bundle import open_bundle

    try:
        with open_bundle(BytesIO(data)) as bundle:
            for name, digest in bundle.digests().items():
                hashed = hashlib.sha256()
                for piece in bundle.pieces(name):
                    hashed.update(piece)
                if hashed.hexdigest() != digest:
                    yield Finding(REFUSED, "digest", f"{name!r} is not the file that bundle.sha256 lists")
    except EdgeaiError as error:
        yield Finding(REFUSED, "bundle", str(error))


def manifest_facts(raw: bytes) -> dict[str, str | int | float]:
    """What a model.toml says about itself. Raises InvalidModel when it is not TOML."""
    try:
        manifest = read_toml(raw.decode("utf-8"))
    except ValueError as error:
        raise InvalidModel(f"model.toml cannot be read: {error}") from None
    facts: dict[str, str | int | float] = {}
    for key in ("name", "task", "description", "license"):
        if isinstance(manifest.get(key), str):
            facts[key] = manifest[key][:200]
    artifacts = manifest.get("artifacts")
    if isinstance(artifacts, dict):
        facts["artifacts"] = ", ".join(
            f"{t}: {a.get('file', '?')}" for t, a in artifacts.items() if isinstance(a, dict)
        )
    return facts


def tar_report(inspect: Inspect, data: bytes, path: Path, depth: int) -> Report:
    """A tar and the models in it."""
    entries = [e for e in tardir.entries(data) if e.kind == "0"]
    chosen = [e for e in entries if e.name.lower().endswith(MODEL_FILES)][:MAX_PARTS]
    parts = [(e.name, partial(_cut, data, e.offset, e.size)) for e in chosen]
    report = Report(
        path=str(path), kind="tar", size=len(data), facts={"files": len(entries)},
        memory=(Bar("unpacked", tuple((e.name, e.size) for e in entries[:64])),),
    )  # fmt: skip
    return with_parts(report, _inspect_all(inspect, parts, path, depth))


def _cut(data: bytes, offset: int, size: int) -> bytes:
    return data[offset : offset + size]


def _inspect_all(
    inspect: Inspect, parts: Iterable[tuple[str, Callable[[], bytes]]], path: Path, depth: int
) -> tuple[Report, ...]:
    if depth >= MAX_NESTING:
        return ()
    reports = []
    for name, unpack in parts:
        inside, data = path / name, b""
        try:
            data = unpack()
            reports.append(inspect(data, inside, depth + 1))
        except EdgeaiError as error:
            finding = Finding(REFUSED, "damaged", str(error))
            reports.append(Report(path=str(inside), kind="unknown", size=len(data), findings=(finding,)))
    return tuple(reports)


def with_parts(report: Report, parts: tuple[Report, ...]) -> Report:
    """The report with more reports inside it."""
    return replace(report, parts=report.parts + parts)
