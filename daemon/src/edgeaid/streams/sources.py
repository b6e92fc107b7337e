"""What a source is: from its text to the kind of reader, whether it is live, and what may be said of it."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit, urlunsplit

from ..errors import InvalidConfig, Unsupported

PICTURES: Final = (".jpg", ".jpeg", ".png", ".bmp")
TESTS: Final = ("pattern", "digits", "still", "noise")
#: Frames of a source that names no rate, where one has to be chosen.
DEFAULT_FPS: Final = 10.0
#: Descriptor at which ffmpeg finds a list of sources.
LIST_FD: Final = 9


class Kind(StrEnum):
    """How frames are read."""

    #: A child process that writes PPM pictures: files, cameras, networks. A file that begins as a picture that moves
    #: does is read without one.
    COMMAND = "command"
    #: A directory of pictures, in the order of their names.
    DIRECTORY = "directory"
    #: A URL that answers one JPEG each time.
    STILL = "still"
    #: A URL that answers JPEGs without end (multipart/x-mixed-replace).
    MJPEG = "mjpeg"
    #: Made here.
    TEST = "test"


@dataclass(frozen=True, slots=True)
class Source:
    """A source, understood."""

    kind: Kind
    #: As it was given.
    text: str
    #: A live source goes on whether its frames are taken or not; a file waits.
    live: bool
    #: Host and port to try before a program is started for it; "" = none.
    host: str = ""
    port: int = 0


_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def understand(text: str) -> Source:
    """What `text` names. InvalidConfig where it can be none of the known ones."""
    if not text.isprintable():
        raise InvalidConfig("the source has control characters")
    if text.startswith("test:"):
        name = text[5:].partition("?")[0]
        if name not in TESTS:
            raise InvalidConfig(
                f"source {text!r}: no such test picture; known: {', '.join('test:' + t for t in TESTS)}"
            )
        return Source(Kind.TEST, text, live=True)
    scheme = _SCHEME.match(text)
    if scheme is not None:
        text = scheme[0].lower() + text[scheme.end() :]
    if text.startswith(("rtsp://", "rtsps://", "http://", "https://")):
        return _network(text)
    if text.startswith("libcamera:") or re.fullmatch(r"/dev/(video\d+|v4l/.+)", text):
        return Source(Kind.COMMAND, text, live=True)
    if text.startswith(("file:///", "file://localhost/")):
        text = unquote(urlsplit(text).path)
    elif scheme is not None:
        raise InvalidConfig(f"source {redacted(text)!r}: the scheme is not known; use rtsp, rtsps, http, https or file")
    path = Path(text.removeprefix("file:"))
    if not path.is_absolute():
        raise InvalidConfig(
            f"source {text!r} is not an absolute path; known are also rtsp://, http://, /dev/videoN, libcamera:N and "
            f"{', '.join('test:' + t for t in TESTS)}"
        )
    return Source(Kind.DIRECTORY if path.is_dir() else Kind.COMMAND, str(path), live=False)


def _network(text: str) -> Source:
    parts = urlsplit(text)
    defaults = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443}
    try:
        host, port = parts.hostname or "", parts.port or defaults[parts.scheme]
    except ValueError as error:
        raise InvalidConfig(f"source {redacted(text)!r}: {error}") from error
    if not host:
        raise InvalidConfig(f"source {redacted(text)!r} names no host")
    if parts.scheme.startswith("rtsp"):
        return Source(Kind.COMMAND, text, True, host, port)
    lower = parts.path.lower()
    if lower.endswith(PICTURES):
        return Source(Kind.STILL, text, True, host, port)
    if lower.endswith((".m3u8", ".mp4", ".mkv", ".ts", ".webm", ".avi", ".mov")):
        return Source(Kind.COMMAND, text, lower.endswith(".m3u8"), host, port)
    return Source(Kind.MJPEG, text, True, host, port)


_SECRET: Final = re.compile(r"(?<=://)[^/@\s]*@")
_QUERY: Final = re.compile(r"(?i)((?:pass|password|passwd|pwd|token|key|secret|auth|user|usr|login)=)[^&\s'\"]+")


def redacted(text: str) -> str:
    """The text without user names, passwords and tokens: for logs, answers and error messages."""
    if "://" in text:
        try:
            parts = urlsplit(text)
        except ValueError:
            parts = None
        if parts is not None and parts.scheme and " " not in text and "@" in parts.netloc:
            text = urlunsplit(parts._replace(netloc="***@" + parts.netloc.rpartition("@")[2]))
    return _QUERY.sub(r"\1***", _SECRET.sub("***@", text))


def secrets_of(text: str) -> tuple[str, ...]:
    """User name and password of a URL, to be taken out of what programs print."""
    try:
        parts = urlsplit(text)
        return tuple(s for s in (parts.password, parts.username) if s)
    except ValueError:
        return ()


#: Programs that read sources.
PROGRAMS: Final = ("gst-launch-1.0", "ffmpeg")


def reader_of(wanted: str) -> str:
    """gstreamer or ffmpeg, whichever is wanted and installed. Unsupported says what to install."""
    if wanted in ("auto", "gstreamer") and shutil.which("gst-launch-1.0"):
        return "gstreamer"
    if wanted in ("auto", "ffmpeg") and shutil.which("ffmpeg"):
        return "ffmpeg"
    names = {"auto": "GStreamer (gst-launch-1.0) or ffmpeg", "gstreamer": "gst-launch-1.0", "ffmpeg": "ffmpeg"}
    raise Unsupported(f"{names[wanted]} is not installed; it reads files, cameras and networks")


@dataclass(frozen=True, slots=True)
class Invocation:
    """A program that writes the frames of a source to its standard output as PPM pictures; see process/reader.py."""

    command: list[str]
    #: The arguments have a secret: they are a pipeline that is run without being a program's arguments.
    describe: bool = False
    #: What ffmpeg reads as a list of sources instead of its arguments.
    sources: str = ""
    #: Files that it reads.
    reads: tuple[str, ...] = ()
    network: bool = False


def command(source: Source, reader: str, fps: float, size: int) -> Invocation:
    """How the frames of a source are read."""
    words = (_ffmpeg if reader == "ffmpeg" else _gstreamer)(source, fps, size)
    program = shutil.which(words[0])
    words[0] = program or words[0]
    network = bool(source.host)
    secret = network and redacted(source.text) != source.text
    if not secret:
        reads = () if network or source.live else (source.text,)
        return Invocation(words, reads=reads, network=network)
    if reader != "ffmpeg":
        return Invocation([words[0], *words[2:]], describe=True, network=True)  # without -q
    return _listed(source, words)


#: Protocols that an entry of a list may use.
_PROTOCOLS: Final = "file,pipe,fd,rtsp,rtp,tcp,tls,udp,http,https,crypto,httpproxy"


def _listed(source: Source, words: list[str]) -> Invocation:
    """ffmpeg's arguments with the source moved to a list."""
    at = words.index("-i")
    options, kept = [], words[1:at]
    for key in ("-rtsp_transport", "-timeout"):
        if key in kept:
            where = kept.index(key)
            options.append(f"option {key[1:]} {kept[where + 1]}\n")
            del kept[where : where + 2]
    entry = source.text.replace("'", "'\\''")
    text = f"ffconcat version 1.0\nfile '{entry}'\n{''.join(options)}"
    kept += ["-f", "concat", "-safe", "0", "-protocol_whitelist", _PROTOCOLS, "-i", f"/dev/fd/{LIST_FD}"]
    return Invocation([words[0], *kept, *words[at + 2 :]], sources=text, network=True)


def _gstreamer(source: Source, fps: float, size: int) -> list[str]:
    text = source.text
    if text.startswith("rtsp"):
        head = [
            "rtspsrc",
            f"location={quoted(text)}",
            "latency=100",
            "protocols=tcp",
            "tcp-timeout=5000000",
            "!",
            "decodebin",
        ]
    elif text.startswith("/dev/"):
        head = ["v4l2src", f"device={quoted(text)}", "!", "decodebin"]
    elif text.startswith("libcamera:"):
        name = text.partition(":")[2]
        head = ["libcamerasrc", *([f"camera-name={quoted(name)}"] if name and not name.isdecimal() else [])]
        if fps:
            head += ["!", f"video/x-raw,framerate={_rate(fps)}"]
    elif text.startswith("http"):
        head = ["souphttpsrc", f"location={quoted(text)}", "!", "decodebin"]
    else:
        head = ["filesrc", f"location={quoted(text)}", "!", "decodebin"]
    # A live source's newest frame is the one that counts: what is older is let go before anything is computed for it.
    leaky = ["!", "queue", "max-size-buffers=2", "max-size-bytes=0", "max-size-time=0", *_leaky(source)]
    rate = []
    if fps:
        drop = ["drop-only=true"] if source.live else []
        rate = ["!", "videorate", *drop, "!", f"video/x-raw,framerate={_rate(fps)}"]
        if source.live:
            rate = ["!", "videorate", "drop-only=true", f"max-rate={max(1, round(fps))}"]
    elif not source.live:
        rate = ["!", "videorate", "!", f"video/x-raw,framerate={_rate(DEFAULT_FPS)}"]
    scale = ["!", "videoconvert", "!", "videoscale", "!"]
    scale += [f"video/x-raw,width=[1,{size}],height=[1,{size}],pixel-aspect-ratio=1/1"]
    # Telephones write how they were held.
    upright = [] if source.live else ["!", "videoflip", "video-direction=auto"]
    tail = [
        "!",
        "videoconvert",
        "!",
        "video/x-raw,format=RGB",
        *upright,
        "!",
        "pnmenc",
        "!",
        "fdsink",
        "fd=1",
        "sync=false",
    ]
    return ["gst-launch-1.0", "-q", *head, *leaky, *rate, *scale, *tail]


def quoted(text: str) -> str:
    """A value of a property as GStreamer reads pipelines: blanks, quotes and `!` in a name are parts of the name."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _leaky(source: Source) -> list[str]:
    return ["leaky=downstream"] if source.live else []


def _rate(fps: float) -> str:
    return f"{round(fps * 1000)}/1000"


def _ffmpeg(source: Source, fps: float, size: int) -> list[str]:
    text = source.text
    options = ["-nostdin", "-v", "error"]
    if source.live:
        options += ["-fflags", "nobuffer", "-flags", "low_delay"]
    if text.startswith("rtsp"):
        options += ["-rtsp_transport", "tcp", "-timeout", "5000000"]
    elif text.startswith("/dev/"):
        options += ["-f", "v4l2"]
    elif text.startswith("libcamera:"):
        raise Unsupported("ffmpeg cannot read libcamera cameras; install GStreamer with libcamerasrc")
    # The url of a file is "file:..." so that a name like "a:b" is not taken for a protocol.
    where = text if source.host or text.startswith("/dev/") else f"file:{text}"
    rate = [f"fps={fps:g}"] if fps else [] if source.live else [f"fps={DEFAULT_FPS:g}"]
    square = "scale=w=iw*sar:h=ih,setsar=1"
    fit = f"scale=w='min({size},iw)':h='min({size},ih)':force_original_aspect_ratio=decrease"
    filters = ",".join([*rate, square, fit])
    tail = ["-an", "-vf", filters, "-pix_fmt", "rgb24", "-c:v", "ppm", "-f", "image2pipe", "-"]
    return ["ffmpeg", *options, "-i", where, *tail]


#: Part of what a program prints (lower case) -> what it means.
_REASONS: Final[tuple[tuple[tuple[str, ...], str], ...]] = (
    (
        ("401 unauthorized", "unauthorized", "authentication", "not-authorized"),
        "the camera refuses the user or password",
    ),
    (("404 not found", "not found (404)", "not-found"), "the camera does not know this path"),
    (
        ("no such file", "no such device", "cannot identify device", "resource not found", "does not exist"),
        "it does not exist",
    ),
    (("permission denied", "operation not permitted", "could not open device"), "no permission to open it"),
    (("device or resource busy", "is busy"), "another program uses it"),
    (
        ("name or service not known", "could not resolve", "failed to resolve", "error resolving"),
        "the host name is not known",
    ),
    (("connection refused",), "the host refuses connections on this port"),
    (("no route to host", "network is unreachable"), "the host cannot be reached"),
    (("timed out", "timeout"), "the camera does not answer in time"),
    (
        (
            "missing element",
            "missing a plug-in",
            "no decoder",
            "decoder not found",
            "your gstreamer installation is missing",
        ),
        "no decoder for this format is installed (a Raspberry Pi 5 has none for H.264 in hardware)",
    ),
    (('no element "libcamerasrc"',), "GStreamer has no libcamerasrc; install libcamera's GStreamer plugin"),
    (("no element",), "GStreamer lacks an element that is needed; install its base, good and bad plugins"),
    (
        (
            "could not determine type",
            "invalid data found",
            "moov atom not found",
            "this appears to be a text file",
            "stream doesn't contain enough data",
            "stream contains no data",
            "could not demultiplex",
        ),
        "it is not a video that can be read",
    ),
    (("no cameras", "could not find any supported camera"), "libcamera finds no camera"),
    (("reason not-linked", "does not contain any stream"), "it has no video, only sound or other data"),
)


def plain(printed: str, secrets: tuple[str, ...] = ()) -> str:
    """What a capture program's error output means, with the line it is taken from; secrets are removed."""
    for secret in secrets:
        printed = printed.replace(secret, "***")
    printed = redacted(printed)
    lower = printed.lower()
    line = next((line.strip() for line in printed.splitlines() if "error" in line.lower()), "")
    line = line or next((line.strip() for line in printed.splitlines() if line.strip()), "")
    for needles, meaning in _REASONS:
        if any(n in lower for n in needles):
            return meaning
    return f"the reader says: {line[-300:]}" if line else "the reader ended without a message"
