"""`edgeai model bundle`, `verify` and `keygen`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from ..models import pack
from ..toolkit.bundle import bundle as bundles


@click.command("bundle")
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="File or directory; default: the current directory."
)
@click.option("--key", type=click.Path(path_type=Path, dir_okay=False), help="Private key to sign with (keygen).")
@click.option("--golden", default=2, show_default=True, help="Golden vectors to record when the manifest has none.")
def bundle(directory: Path, output: Path | None, key: Path | None, golden: int) -> None:
    """Pack a model directory into one reproducible file, <name>-<version>.edgeai.

    DIRECTORY is <name>/<version> with a model.toml. Digests of the artifacts are filled in where they are missing, and
    golden vectors are recorded by running the cpu artifact when there are none; both change the directory.
    """
    from ..toolkit.bundle import golden as vectors

    done = vectors.complete(directory, golden)
    secret = bundles.read_key(key) if key else None
    path = pack.write(directory, output, secret)
    for line in done:
        click.echo(line)
    signed = "signed" if secret else "not signed (--key FILE)"
    click.echo(f"{path}  {path.stat().st_size} bytes, {signed}")


@click.command("verify")
@click.argument("path", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--trust", multiple=True, help="Public key in hex, or a file with one; the bundle must be signed by it.")
@click.option("--json", "as_json", is_flag=True)
def verify(path: Path, trust: tuple[str, ...], as_json: bool) -> None:
    """Check every byte of a bundle, its digests and its signature."""
    keys = [_public(text) for text in trust]
    verified = bundles.verify(path, keys)
    if as_json:
        click.echo(
            json.dumps(
                {"name": verified.name, "version": verified.version, "files": dict(verified.files),
                 "signed_by": verified.signed_by, "trusted": verified.trusted},
                indent=2,
            )
        )  # fmt: skip
        return
    click.echo(f"{path}: {verified.name} version {verified.version}, {len(verified.files)} files, "
               f"{sum(verified.files.values())} bytes unpacked")  # fmt: skip
    for name, size in sorted(verified.files.items()):
        click.echo(f"  {size:>10}  {name}")
    if verified.trusted:
        click.echo(f"signed by the trusted key {verified.signed_by}")
    elif verified.signed_by:
        click.echo(f"signed by {verified.signed_by}; whether to trust it is for you to know (--trust)")
    else:
        click.echo("not signed")


@click.command("keygen")
@click.argument("path", type=click.Path(path_type=Path, dir_okay=False))
def keygen(path: Path) -> None:
    """Write a new private key to PATH and its public key to PATH.pub."""
    public = bundles.make_key(path).hex()
    path.with_name(path.name + ".pub").write_text(public + "\n", "ascii")
    click.echo(f"private key: {path} (keep it secret)")
    click.echo(f"public key:  {public}")


def _public(text: str) -> bytes:
    if len(text) == 64 and all(c in "0123456789abcdefABCDEF" for c in text):
        return bytes.fromhex(text)
    return bundles.read_key(Path(text))
