"""Who may do what: roles from the Unix groups of the peer, declared beside each route."""

from __future__ import annotations

import array
import grp
import os
import socket
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from ..config import Access
from ..errors import PermissionDenied

SO_PEERGROUPS: Final = 59  # asm-generic/socket.h
_UCRED: Final = struct.Struct("3i")
_MAX_GROUPS: Final = 65_536


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

    def require(self, role: Role, what: str) -> None:
        """Raise PermissionDenied unless the peer has the role."""
        if self.role < role:
            raise PermissionDenied(
                f"{what} needs the role '{role.name.lower()}', user id {self.uid} has "
                f"'{self.role.name.lower()}'; join one of the groups that [access] names for it"
            )


def credentials(sock: socket.socket) -> tuple[int, int, int, tuple[int, ...]]:
    """(pid, uid, gid, supplementary groups) of a Unix peer as of connect()."""
    pid, uid, gid = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    groups = array.array("I")
    size = 256
    while True:
        try:
            groups.frombytes(sock.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, size * 4))
            break
        except OSError:
            size *= 16
            if size > _MAX_GROUPS:
                break
    return pid, uid, gid, tuple(groups)


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
    found = set()
    for name in names:
        try:
            found.add(grp.getgrnam(name).gr_gid)
        except KeyError:
            continue  # a group that does not exist has no members
    return frozenset(found)
