"""`edgeai.toml`: the settings of a device that scripts/flash writes and `edgeaid.provision` applies.

Text in, frozen dataclasses out, and back; no I/O. The schema is described in docs/flashing.md.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import difflib
import hashlib
import json
import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

from ..errors import InvalidConfig
from ..tables import Table, WrongValue, dotted, read_toml
from .countries import is_country
from .typed import UNREADABLE, decoded, hint, utf16

SCHEMA: Final = 1
#: Names on the boot partition.
FILE: Final = "edgeai.toml"
LOG: Final = "edgeai-provision.log"
MODELS: Final = "edgeai-models"

MAX_BYTES: Final = 64 << 10
MAX_KEYS: Final = 32
MAX_KEY_LENGTH: Final = 8 << 10
MAX_PRELOAD: Final = 64
#: Lines that are not TOML above which the file is something else.
MAX_BAD_LINES: Final = 16

#: One label of RFC 1123, lower case because mDNS and prompts show it.
_HOSTNAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_TIMEZONE: Final = re.compile(r"[A-Za-z][A-Za-z0-9_+-]{0,31}(?:/[A-Za-z0-9][A-Za-z0-9_+-]{0,31}){0,2}")
_PSK: Final = re.compile(r"[0-9a-fA-F]{64}")
#: IEEE 802.11i: a passphrase has 8 to 63 printable ASCII characters.
_PASSPHRASE: Final = re.compile(r"[\x20-\x7e]{8,63}")
BUNDLE: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,63})-([1-9][0-9]{0,8})\.edgeai")
_KEY_TYPES: Final = frozenset(
    {
        "ssh-ed25519",
        "ssh-rsa",
        "ecdsa-sha2-nistp256",
        "ecdsa-sha2-nistp384",
        "ecdsa-sha2-nistp521",
        "sk-ssh-ed25519@openssh.com",
        "sk-ecdsa-sha2-nistp256@openssh.com",
    }
)
#: Lines of a file that is not TOML which may stay in it: known keys without secrets, table headers, empty ones.
_HARMLESS: Final = re.compile(
    r"""\s*(?:(?:schema|hostname|timezone|country|ssid|authorized_keys|preload)\s*=.*|\[[a-z]+\]\s*|)"""
)
#: A line that begins a known table, with a bracket too few or too many.
_HEADER: Final = re.compile(r"\s*(?:\[+\s*(wifi|ssh|models)\b[^=]*|(wifi|ssh|models)\s*\]+[^=]*)")
#: A line that begins a table or a setting, however it goes on.
_BEGINS: Final = re.compile(
    r"\s*(?:\[+\s*[a-z]+\s*(?:\]|$)|[a-z]+\s*\]|[\"']?[A-Za-z][A-Za-z0-9_.-]{0,40}[\"']?\s*[=:]|//)"
)
#: The line with the number of the schema, damaged.
_SCHEMA_LINE: Final = re.compile(r"(?m)^\s*[\"']?schema\b[^\w\n]*1\b\W*$")
#: Keys whose values are not secrets, and lines of lists of such.
_OPEN_KEYS: Final = (
    "schema",
    "hostname",
    "timezone",
    "ssid",
    "country",
    "open",
    "hidden",
    "authorized_keys",
    "preload",
)
_SECRET_KEYS: Final = ("password", "passphrase", "psk", "key", "pass")
_KEY: Final = re.compile(r"\s*(?:#\s*)?[\"']?([A-Za-z_-]{1,32})[\"']?\s*[=:]")
_LISTED: Final = re.compile(
    r"\s*[\"']?(?:(?:ssh-|ecdsa-|sk-)\S+ .*|[A-Za-z0-9][A-Za-z0-9._-]*\.edgeai[\"']?\s*,?|[\[\],\s]*)\s*"
)
_SUSPICIOUS: Final = re.compile(r"(?i)pass|psk|secret|\"\"\"|'''|\\u")


@dataclass(frozen=True, slots=True)
class Wifi:
    """One wireless network."""

    ssid: str
    #: ISO 3166-1 alpha-2: which channels may be used.
    country: str
    #: WPA passphrase, or the pre-shared key as 64 hex digits; "" keeps what the device has.
    password: str = field(default="", repr=False)
    #: True for a network without encryption.
    open: bool = False
    #: True for a network that does not announce its name.
    hidden: bool = False


@dataclass(frozen=True, slots=True)
class Settings:
    """Content of `edgeai.toml`; what is empty is left as the device has it."""

    hostname: str = ""
    #: Name in the tz database, such as Europe/Berlin.
    timezone: str = ""
    wifi: Wifi | None = None
    #: Lines for root's authorized_keys, without options.
    authorized_keys: tuple[str, ...] = ()
    #: File names `<name>-<version>.edgeai` in the directory `edgeai-models` of the boot partition.
    preload: tuple[str, ...] = ()


class _Reader:
    """A table of which every key that can be used is used; what is wrong or left over becomes a problem.

    No problem shows a value: it might be a password in the wrong place.
    """

    def __init__(self, table: Table, problems: list[str]) -> None:
        self._table = table
        self._problems = problems

    def problem(self, key: str, text: str) -> None:
        self._problems.append(f"{dotted((*self._table.path, key))}: {text}")

    def text(self, key: str, valid: Callable[[str], bool], expected: str) -> str:
        value = self._table.take(key, "")
        if isinstance(value, str) and (not value or valid(value)):
            return value
        self.problem(key, f"must be {expected}, as text in quotes")
        return ""

    def flag(self, key: str) -> bool:
        try:
            return self._table.boolean(key, default=False)
        except WrongValue as error:
            self.problem(key, str(error))
            return False

    def texts(self, key: str, most: int, check: Callable[[str], str]) -> tuple[str, ...]:
        """A list of texts; `check` says what is wrong with one, or nothing."""
        value = self._table.take(key, [])
        if not isinstance(value, list) or len(value) > most:
            self.problem(key, f"must be a list of at most {most} texts")
            return ()
        kept: list[str] = []
        for number, item in enumerate(value, 1):
            wrong = check(item.strip()) if isinstance(item, str) else "is not text in quotes"
            if wrong:
                self.problem(key, f"entry {number} {wrong}")
            elif item.strip() not in kept:
                kept.append(item.strip())
        return tuple(kept)

    def table(self, key: str) -> _Reader | None:
        if key not in self._table.rest:
            return None
        try:
            return _Reader(self._table.table(key), self._problems)
        except WrongValue:
            self.problem(key, f"must be a table, [{key}]")
            return None

    def end(self) -> None:
        for key in self._table.rest:
            # A name this long is not a typing error; it might be a value in the wrong place.
            self.problem(ascii(key) if len(key) <= 32 else "(a long key)", "is not known; see docs/flashing.md")


def parse(data: bytes) -> tuple[Settings, tuple[str, ...]]:
    """Settings and what is wrong with the file, line by line and key by key; the rest is used.

    Raises InvalidConfig where nothing can be used: too long, not UTF-8, no line that is TOML, another schema.
    """
    if len(data) > MAX_BYTES:
        raise InvalidConfig(f"{FILE} has {len(data)} bytes; at most {MAX_BYTES} are read")
    text, unreadable = decoded(data)
    if len(unreadable) > MAX_BAD_LINES or len(unreadable) * 2 > text.count("\n") + 1:
        raise InvalidConfig(f"{FILE} is not UTF-8 text (line {unreadable[0]}); save it as UTF-8")
    content, problems = _readable(text)
    problems[:0] = [f"line {n}: is not UTF-8 text and is not used; save the file as UTF-8" for n in unreadable]
    schema = content.pop("schema", None)
    for name in ("wifi", "ssh", "models"):
        value = content.get(name)
        if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict):
            problems.append(f"{name}: has one pair of brackets, [{name}]; it is used")
            content[name] = value[0]
    if schema == str(SCHEMA):
        problems.append("schema: must be a number, without quotes")
        schema = SCHEMA
    if type(schema) is not int or schema != SCHEMA:
        raise InvalidConfig(f"{FILE}: this image reads schema {SCHEMA}; put 'schema = {SCHEMA}' at its top")
    top = _Reader(Table(content), problems)
    hostname = top.text("hostname", _matches(_HOSTNAME), "1 to 63 of a-z 0-9 -, no - at the ends")
    timezone = top.text("timezone", _matches(_TIMEZONE), "a name of the tz database like Europe/Berlin")
    wifi = _wifi(top.table("wifi"))
    keys: tuple[str, ...] = ()
    preload: tuple[str, ...] = ()
    if ssh := top.table("ssh"):
        keys = ssh.texts("authorized_keys", MAX_KEYS, key_problem)
        ssh.end()
    if models := top.table("models"):
        preload = models.texts("preload", MAX_PRELOAD, bundle_problem)
        models.end()
    top.end()
    return Settings(hostname, timezone, wifi, keys, preload), tuple(problems)


def _readable(text: str) -> tuple[dict[str, Any], list[str]]:
    """The TOML of a file without the lines that are none, and what is wrong with those. InvalidConfig if too many."""
    try:
        return read_toml(text), []
    except ValueError:
        pass
    # TOML knows no way to go on behind a fault: every setting is read alone.
    content: dict[str, Any] = {}
    table, problems = content, []
    for number, lines in _statements(text.split("\n")):
        header = _HEADER.fullmatch(lines[0])
        if header is not None:
            name = header[1] or header[2]
            if lines[0].strip() != f"[{name}]":
                problems.append(f"line {number}: is taken for [{name}]")
            known = content.setdefault(name, {})
            if not isinstance(known, dict):
                problems.append(f"{name}: is not used, as there is a table [{name}] too")
                known = content[name] = {}
            table = known
            lines[0] = ""
        _take(table, number, lines, problems)
        if len(problems) > MAX_BAD_LINES:
            raise InvalidConfig(f"{FILE} has more than {MAX_BAD_LINES} lines that are not TOML; correct it")
    if "schema" not in content and _SCHEMA_LINE.search(text):
        content["schema"] = SCHEMA
    return content, problems


def _statements(lines: list[str]) -> Iterator[tuple[int, list[str]]]:
    """(number of the first line, lines) of every header and setting; what follows one belongs to it."""
    begins = [n for n, line in enumerate(lines) if _BEGINS.match(line)]
    if begins[:1] != [0]:
        begins.insert(0, 0)
    for begin, end in pairwise([*begins, len(lines)]):
        yield begin + 1, lines[begin:end]


def _take(table: dict[str, Any], number: int, lines: list[str], problems: list[str]) -> None:
    """Read one setting into its table. Of a list with wrong lines the others are kept."""
    lines = list(lines)
    for _ in lines:
        try:
            values = read_toml("\n".join(lines))
            break
        except ValueError as error:
            with contextlib.suppress(ValueError):
                values = read_toml("\n".join([*lines, "]"]))
                problems.append(f"line {number}: the list does not end, a ] is missing; it is used")
                break
            place = re.search(r"at line (\d+), column \d+", str(error))
            wrong = int(place[1]) - 1 if place and 0 < int(place[1]) <= len(lines) else 0
            if not lines[wrong].strip() or wrong == 0:
                wrong, lines[1:] = 0, [""] * (len(lines) - 1)  # the setting's first line: what follows belongs to it
            problems.append(f"line {number + wrong}: is not TOML and is not used; {hint(lines[wrong])}")
            lines[wrong] = ""
    else:
        return
    for key, value in values.items():
        if key in table:
            problems.append(f"line {number}: {ascii(key)[:40]} is set a second time; the first is used")
        else:
            table[key] = value


def _matches(pattern: re.Pattern[str]) -> Callable[[str], bool]:
    return lambda value: pattern.fullmatch(value) is not None


def _wifi(table: _Reader | None) -> Wifi | None:
    if table is None:
        return None
    ssid = table.text("ssid", _ssid_valid, "a network name of 1 to 32 bytes without control characters")
    country = table.text("country", is_country, "the code of a country (ISO 3166-1) such as DE; Great Britain is GB")
    country = country.strip().upper()
    password = table.text(
        "password", lambda v: bool(_PSK.fullmatch(v) or _PASSPHRASE.fullmatch(v)), "8 to 63 ASCII characters or 64 hex"
    )
    is_open, hidden = table.flag("open"), table.flag("hidden")
    table.end()
    if not ssid or not country:
        table.problem("ssid" if not ssid else "country", "is needed for Wi-Fi; the section is not used")
        return None
    if is_open and password:
        table.problem("open", "is true and there is a password; the password is used")
        is_open = False
    return Wifi(ssid, country, password, is_open, hidden)


def _ssid_valid(value: str) -> bool:
    """Any text of up to 32 bytes is legal; control characters are not typed but come from somewhere else."""
    return 1 <= len(value.encode()) <= 32 and not any(
        unicodedata.category(c) in ("Cc", "Cs") or c == UNREADABLE for c in value
    )


def key_problem(line: str) -> str:
    """What is wrong with a line for authorized_keys, or nothing. Options before the key are not accepted."""
    parts = line.split(None, 2)
    if len(line) > MAX_KEY_LENGTH or not line.isprintable():
        return "is too long or has control characters"
    if "PRIVATE KEY" in line:
        return "is a private key; give the public one (*.pub)"
    if len(parts) < 2 or parts[0] not in _KEY_TYPES:
        return "is not an SSH public key ('ssh-ed25519 AAAA... name')"
    try:
        blob = base64.b64decode(parts[1], validate=True)
    except (binascii.Error, ValueError):
        return "is an SSH key whose base64 is damaged"
    kind = parts[0].encode()
    if blob[:4] != len(kind).to_bytes(4, "big") or blob[4 : 4 + len(kind)] != kind or len(blob) < len(kind) + 36:
        return "is an SSH key whose content does not fit its type; it is cut off or damaged"
    return ""


def bundle_problem(name: str) -> str:
    return "" if BUNDLE.fullmatch(name) else "is not a file name <name>-<version>.edgeai"


def render(settings: Settings, *, secret: bool) -> bytes:
    """The file for `settings`, which `parse` reads back to the same; without `secret`, no password."""
    lines = [f"# Settings of this device, applied at boot when changed. Results: {LOG}", f"schema = {SCHEMA}"]
    for key in ("hostname", "timezone"):
        if value := getattr(settings, key):
            lines.append(f"{key} = {_quote(value)}")
    if wifi := settings.wifi:
        lines += ["", "[wifi]", f"ssid = {_quote(wifi.ssid)}", f"country = {_quote(wifi.country)}"]
        if wifi.password and secret:
            lines.append(f"password = {_quote(wifi.password)}")
        elif not wifi.open:
            lines.append("# The key was erased after it was applied; to change it, write it here again.")
        lines += [f"{flag} = true" for flag in ("open", "hidden") if getattr(wifi, flag)]
    if settings.authorized_keys:
        lines += ["", "[ssh]", "authorized_keys = [", *(f"  {_quote(k)}," for k in settings.authorized_keys), "]"]
    if settings.preload:
        lines += ["", "[models]", "preload = [", *(f"  {_quote(n)}," for n in settings.preload), "]"]
    return ("\n".join(lines) + "\n").encode()


def _quote(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)


def preshared_key(ssid: str, password: str) -> str:
    """The 64 hex digits that WPA makes of a passphrase (IEEE 802.11i: PBKDF2, SHA-1, 4096 rounds)."""
    if _PSK.fullmatch(password):
        return password.lower()
    return hashlib.pbkdf2_hmac("sha1", password.encode(), ssid.encode(), 4096, 32).hex()


def keep(data: bytes, secrets: tuple[str, ...]) -> bytes:
    """The file as it was typed, for correction, without what is or might be a secret."""
    text = utf16(data[:MAX_BYTES]) or data[:MAX_BYTES].decode("utf-8-sig", "replace")
    if '"""' in text or "'''" in text:
        return redact(data)  # a text over several lines may hold anything
    head = f"# Not everything here could be used: see {LOG}. Correct it; the file is read again when it has changed."
    lines = [line for line in text.splitlines() if line != head]
    kept = [line if _is_open(line, secrets) else _removed(line) for line in lines]
    return "\n".join([head, *kept, ""]).encode()


def _is_open(line: str, secrets: tuple[str, ...]) -> bool:
    """Whether a line holds no secret: one of a known key or a misspelt one, a table's beginning, a listed value."""
    if any(secret in line for secret in secrets) or "\\u" in line or "PRIVATE" in line:
        return False
    if (_HEADER.match(line) and "=" not in line) or _LISTED.fullmatch(line) or line.startswith("# The key was erased"):
        return True
    key = _KEY.match(line)
    if key is None:
        return False
    near = difflib.get_close_matches(key[1].lower(), (*_OPEN_KEYS, *_SECRET_KEYS), 1)
    return bool(near) and near[0] in _OPEN_KEYS and not _SUSPICIOUS.search(line)


def _removed(line: str) -> str:
    key = _KEY.match(line)
    return f"# {key[1]}: removed, as it might be a secret; write it again" if key else "# (removed)"


def redact(data: bytes) -> bytes:
    """What may stay of a file that cannot be read: lines of known keys, nothing that could be a secret."""
    text = utf16(data[:MAX_BYTES]) or data[:MAX_BYTES].decode("utf-8", "replace")
    if '"""' in text or "'''" in text:
        kept: list[str] = []  # a text over several lines may hold anything
    else:
        kept = [ln for ln in text.splitlines() if _HARMLESS.fullmatch(ln) and not _SUSPICIOUS.search(ln)]
    return "\n".join(
        [f"# This file could not be read ({LOG}); what might be a secret was removed.", *kept, ""]
    ).encode()
