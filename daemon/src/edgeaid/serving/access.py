"""Who may do what: roles from the Unix groups of the peer, declared beside each route."""

from __future__ import annotations

import array
import grp
import logging
import os
import pwd
import socket
import struct
import time
from dataclasses import dataclass
from enum import IntEnum
from math import inf
from typing import Final, NoReturn

from ..config import Access
from ..errors import PermissionDenied
from .events import EventLog

SO_PEERGROUPS: Final = 59  # asm-generic/socket.h
_UCRED: Final = struct.Struct("3i")
_MAX_OPTION: Final = 1024
#: A user's denials are written once in so many seconds.
DENIAL_SECONDS: Final = 1.0


class Role(IntEnum):
    """Each role includes the ones before it."""

    NOBODY = 0
    #: health, metadata, statistics
    OBSERVE = 1
    #: run models
    INFER = 2
    #: load, unload, push, settings
    CONTROL = 3


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end of a connection."""

    uid: int
    pid: int
    role: Role


def credentials(sock: socket.socket) -> tuple[int, int, int, tuple[int, ...]]:
    """(pid, uid, gid, supplementary groups) of a Unix peer as of connect()."""
    pid, uid, gid = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    groups = array.array("I")
    try:
        groups.frombytes(sock.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, _MAX_OPTION))
    except OSError:  # in more than 256 groups: as many as Python's getsockopt can take
        return pid, uid, gid, tuple(os.getgrouplist(pwd.getpwuid(uid).pw_name, gid))
    return pid, uid, gid, tuple(groups)


class Denials:
    """Writes denials to the journal and publishes them, so that repeated requests of one user fill neither."""

    def __init__(self, events: EventLog) -> None:
        self.events = events
        #: User id -> (when the last one was written, how many since).
        self._last: dict[int, tuple[float, int]] = {}

    def refuse_token(self, what: str) -> NoReturn:
        """Record and raise PermissionDenied for a client on TCP that shows `what` instead of the token."""
        self._record(-1, f"TCP connection with {what} refused", pid=0)
        raise PermissionDenied("TCP needs the header 'Authorization: Bearer TOKEN'")

    def deny(self, peer: Peer, role: Role, what: str) -> NoReturn:
        """Record and raise PermissionDenied; `what` needs `role`."""
        self._record(peer.uid, f"{what} denied to user id {peer.uid}, process {peer.pid}", peer.pid)
        raise PermissionDenied(
            f"{what} needs the role '{role.name.lower()}', user id {peer.uid} has "
            f"'{peer.role.name.lower()}'; join one of the groups that [access] names for it"
        )

    def _record(self, uid: int, text: str, pid: int) -> None:
        now = time.monotonic()
        written, since = self._last.get(uid, (-inf, 0))
        if now - written < DENIAL_SECONDS:
            self._last[uid] = (written, since + 1)
            return
        self._last[uid] = (now, 0)
        more = f", and {since} more before it" if since else ""
        self.events.publish("access-denied", text + more, level=logging.WARNING, uid=uid, pid=pid)


class Roles:
    """Group names of the configuration, resolved once."""

    def __init__(self, access: Access) -> None:
        self._groups = {
            Role.CONTROL: _gids(access.control),
            Role.INFER: _gids(access.infer),
            Role.OBSERVE: _gids(access.observe),
        }
        self._own = os.geteuid()

    def of(self, uid: int, gids: set[int]) -> Role:
        """Best role of a user with these groups. Root and the daemon's own user have all."""
        if uid in (0, self._own):
            return Role.CONTROL
        for role, groups in self._groups.items():
            if gids & groups:
                return role
        return Role.NOBODY

    def peer(self, sock: socket.socket) -> Peer:
        """Who is at the other end of a Unix socket."""
        pid, uid, gid, groups = credentials(sock)
        return Peer(uid, pid, self.of(uid, {gid, *groups}))


def _gids(names: tuple[str, ...]) -> frozenset[int]:
    gids = set()
    for name in names:
        try:
            gids.add(grp.getgrnam(name).gr_gid)
        except KeyError:
            continue  # a group that does not exist has no members
    return frozenset(gids)
