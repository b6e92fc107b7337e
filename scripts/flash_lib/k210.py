"""K210 boards: firmware and model in one package, written by kflash within a time limit."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from edgeaid.errors import EdgeaiError
from edgeaid.formats.detect import detect
from edgeaid.toolkit.compile import kfpkg

from . import Refused

BOARDS = ("kd233", "dan", "bit", "bit_mic", "goE", "goD", "maixduino", "trainer")


def find_kflash(top: Path) -> list[str]:
    """How to call kflash: from the checkout's environments, PATH, or as a module. Refused with advice if nowhere."""
    for directory in (Path(sys.executable).parent, top / ".venv-test/bin", top / ".venv/bin"):
        if os.access(directory / "kflash", os.X_OK):
            return [str(directory / "kflash")]
    if path := shutil.which("kflash"):
        return [path]
    if importlib.util.find_spec("kflash"):
        return [sys.executable, "-m", "kflash"]
    raise Refused("kflash is not installed: `pip install kflash==1.1.6` (or ./scripts/environment test)")


def package(firmware: Path, model: Path | None) -> tuple[bytes, list[str]]:
    """(kfpkg of firmware at 0 and model at 0x500000, warnings). Refused for files that cannot be that."""
    parts: dict[int, Path | tuple[str, bytes]] = {}
    try:
        if firmware.suffix == ".kfpkg":
            parts = {p.address: (p.name, p.data) for p in kfpkg.read(firmware.read_bytes())}
        else:
            parts[kfpkg.FIRMWARE] = firmware
            if detect(firmware.read_bytes()).startswith("kmodel"):
                raise Refused(f"{firmware} is a model; the firmware comes first: --k210 PORT FIRMWARE.bin MODEL.kmodel")
        if model is not None:
            if not detect(model.read_bytes()).startswith("kmodel"):
                raise Refused(f"{model} is not a kmodel; `edgeai model check` says what it is")
            parts[kfpkg.MODEL] = model
        data, findings = kfpkg.build(parts)
    except EdgeaiError as error:
        raise Refused(str(error)) from None
    except OSError as error:
        raise Refused(f"{error.filename}: {os.strerror(error.errno or 0)}") from None
    return data, [finding.text for finding in findings]


def seconds(size: int, baud: int) -> int:
    """A time that is enough: four times what the bytes take on the wire, erasing, and a slow start."""
    return 120 + 4 * size * 11 // baud


def flash(command: list[str], port: str, data: bytes, baud: int, board: str | None, limit: int) -> None:
    """Run kflash. Refused if it fails or is not done after `limit` seconds; kflash itself would try for ever."""
    with tempfile.TemporaryDirectory(prefix="edgeai-flash-") as directory:
        file = Path(directory) / "board.kfpkg"
        file.write_bytes(data)
        options = ["-p", port, "-b", str(baud), *(["-B", board] if board else [])]
        with subprocess.Popen([*command, *options, str(file)], start_new_session=True) as process:
            try:
                status = process.wait(limit)
            except subprocess.TimeoutExpired:
                raise Refused(
                    f"kflash was not done after {limit} s and was ended; press the board's reset button and try again, "
                    "with a lower --baud (115200), another --board, or a higher --time-limit"
                ) from None
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
    if status:
        raise Refused(f"kflash failed (status {status}) on {port}; try --board ({', '.join(BOARDS)}) or --baud 115200")
