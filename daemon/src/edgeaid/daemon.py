"""The daemon's life: sockets, signals, watchdog, reload, drain."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ipaddress
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import errors
from . import systemd as service
from .api.descriptors import ListeningSocket, interruptible
from .api.fast.server import FastServer
from .api.http import page, routes_edgeai, routes_oip, routes_streams
from .api.http.server import HttpServer, Routes
from .api.sockets import BACKLOG, bind
from .config import Config, Dialects
from .serving.access import Role, Roles
from .serving.hotplug import Hotplug
from .serving.plane import Plane
from .serving.poller import Poller
from .streams import ensembles
from .streams.manager import StreamManager
from .worker.launch import ForkServer

if TYPE_CHECKING:
    from .api.grpc.server import GrpcServer

log = logging.getLogger(__name__)

#: Health checks without a watchdog.
CHECK_SECONDS = 10.0
#: From the end of the drain time to the end of the process, whatever hangs.
END_SECONDS = 1.7
#: A thread that computes gives the interpreter's lock to the event loop, which answers everybody, after so long.
SWITCH_SECONDS = 0.0005
#: For files and what else blocks.
THREADS = 8


def routes(dialects: Dialects | None = None, streams: StreamManager | None = None) -> Routes:
    """All HTTP routes; those of the dialects that are on are among them. Without a manager there are no streams."""
    table = Routes()
    routes_oip.register(table)
    routes_edgeai.register(table)
    page.register(table)
    routes_streams.register(table, streams)
    if dialects is not None and (dialects.deepstack or dialects.doods):
        from .api.dialects import routes as routes_dialects

        routes_dialects.register(table, deepstack=dialects.deepstack, doods=dialects.doods)
    return table


class Daemon:
    """Runs until SIGTERM or SIGINT."""

    def __init__(
        self,
        config: Config,
        reload: Callable[[], Config],
        poller: Poller | None = None,
        fork_server: ForkServer | None = None,
    ) -> None:
        self.config = config
        self._reload = reload
        self.plane = Plane(config, poller=poller, fork_server=fork_server)
        self.streams = StreamManager(self.plane, config)
        ensembles.install(self.plane)
        #: Sockets that this daemon has bound itself, by their name in the service manager's store.
        self._bound: dict[str, Path] = {}
        self._stop = asyncio.Event()
        self._fast: FastServer | None = None
        self._http: list[HttpServer] = []
        self._servers: list[asyncio.Server] = []
        self._grpc: GrpcServer | None = None
        self._hotplug: Hotplug | None = None
        self._reloading: asyncio.Task[None] | None = None
        #: A signal came that no reading of the configuration has followed yet.
        self._reload_due = False

    def _socket(self, passed: dict[str, socket.socket], name: str, path: str | Path, kind: int) -> socket.socket:
        if name in passed:
            return passed.pop(name)
        stored = f"kept-{name}"
        kept = passed.pop(stored, None)
        if kept is not None and (kept.getsockname() != str(path) or not os.path.exists(path)):
            service.forget(stored)
            kept.close()
            kept = None
        # A kept one is from a daemon that crashed: clients that connected meanwhile wait in it.
        sock = kept or bind(Path(path), kind)
        self._bound[stored] = Path(path)
        service.keep(sock, stored)
        return sock

    async def run(self) -> None:
        """Serve until told to stop."""
        started = time.monotonic()
        loop = asyncio.get_running_loop()
        config = self.config
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop)
        loop.add_signal_handler(signal.SIGHUP, self._on_hup)
        interruptible()
        # Every connection of both sockets, and what models, workers and pictures need beside them.
        service.allow_descriptors(2 * config.limits.connections + 1024)
        loop.set_default_executor(threads())
        passed = service.listen_fds()
        roles = Roles(config.access)
        table = routes(config.dialects, self.streams)
        try:
            http = HttpServer(self.plane, roles, table)
            self._http.append(http)
            listening = ListeningSocket.of(self._socket(passed, "http", config.server.socket, socket.SOCK_STREAM))
            self._servers.append(await loop.create_unix_server(http.protocol, sock=listening, backlog=BACKLOG))
            if "fast" in passed or config.server.fast_socket:
                sock = self._socket(passed, "fast", config.server.fast_socket, socket.SOCK_SEQPACKET)
                self._fast = FastServer(self.plane, roles, sock)
            if config.tcp.listen:
                await self._listen_tcp(roles, table)
            service.notify("STATUS=loading models")
            if not await self._unless_stopped(self.plane.start()):
                return
            if config.discover:
                self._hotplug = Hotplug(self.plane, sysfs=Path(os.environ.get("EDGEAI_SYSFS", "/sys")))
                self._hotplug.start()
            if "grpc" in passed or config.server.grpc_socket:
                await self._start_grpc(passed)
            for sock in passed.values():
                log.warning("a passed socket has a name that edgeaid does not know; it is closed")
                sock.close()
            await self.streams.start()
            # What is there now stays: a collection that looks through all of it would hold up everybody for 20 ms.
            gc.collect()
            gc.freeze()
            ms = (time.monotonic() - started) * 1e3
            names = ", ".join(n for n, s in sorted(self.plane.registry.served.items()) if s.versions) or "no models"
            service.notify("READY=1", f"STATUS=serving {names}")
            self.plane.events.publish("daemon-ready", f"ready after {ms:.0f} ms: {names}", ms=round(ms))
            watch = loop.create_task(self._watch())
            await self._stop.wait()
            watch.cancel()
        finally:
            await self._shut_down()

    async def _unless_stopped(self, work: Coroutine[Any, Any, None]) -> bool:
        """Carry `work` through, however long; False when the daemon was told to stop meanwhile."""
        task = asyncio.get_running_loop().create_task(work)
        stop = asyncio.get_running_loop().create_task(self._stop.wait())
        try:
            while not task.done() and not stop.done():
                # Each model has a limit of its own, and the service manager waits for as many as there are.
                service.notify(f"EXTEND_TIMEOUT_USEC={int(3 * CHECK_SECONDS * 1e6)}")
                await asyncio.wait({task, stop}, timeout=CHECK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stop.cancel()
            if not task.done():
                task.cancel()
                await asyncio.wait({task}, timeout=END_SECONDS / 2)
        if task.done() and not task.cancelled():
            task.result()
            return True
        return False

    def _on_stop(self) -> None:
        """SIGTERM, SIGINT: end in time, whatever hangs."""
        if self._stop.is_set():
            return
        self._stop.set()
        seconds = self.config.server.drain_seconds + END_SECONDS
        asyncio.get_running_loop().call_later(seconds, os._exit, 0)
        # Should the event loop itself stand still, the kernel ends the process.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, seconds + 0.2)

    async def _start_grpc(self, passed: dict[str, socket.socket]) -> None:
        try:
            from .api.grpc.server import GrpcServer
        except ImportError as error:
            raise errors.InvalidConfig(
                f"server.grpc_socket is set but {error.name} is not installed; pip install './daemon[grpc]'"
            ) from error
        sock = self._socket(passed, "grpc", self.config.server.grpc_socket, socket.SOCK_STREAM)
        self._grpc = GrpcServer(self.plane, Role[self.config.server.grpc_role.upper()])
        await self._grpc.start(sock)

    async def _listen_tcp(self, roles: Roles, table: Routes) -> None:
        host, _, port = self.config.tcp.listen.rpartition(":")
        try:
            loopback = ipaddress.ip_address(host.strip("[]")).is_loopback and port.isdecimal()
        except ValueError:
            loopback = False
        if not loopback:
            raise errors.InvalidConfig(
                f"tcp.listen {self.config.tcp.listen!r} must be a loopback address and a port; "
                "use ssh to reach a device from afar"
            )
        if not self.config.tcp.token_file:
            raise errors.InvalidConfig("tcp.listen needs tcp.token_file")
        file = Path(self.config.tcp.token_file)
        try:
            if file.stat().st_mode & 0o077:
                raise errors.InvalidConfig(f"{file} can be read by others; chmod 600 it")
            token = file.read_text().strip()
        except OSError as error:
            raise errors.InvalidConfig(f"tcp.token_file {file}: {error.strerror}") from error
        if len(token) < 16:
            raise errors.InvalidConfig(f"{file}: the token must have at least 16 characters")
        role = Role[self.config.tcp.role.upper()]
        server = HttpServer(self.plane, roles, table, token=(token, role))
        self._http.append(server)
        loop = asyncio.get_running_loop()
        self._servers.append(await loop.create_server(server.protocol, host.strip("[]"), int(port)))

    async def _watch(self) -> None:
        """Feed the service manager's watchdog, only while every worker answers."""
        interval = service.watchdog_seconds() / 3
        while True:
            await asyncio.sleep(interval or CHECK_SECONDS)
            if await self.plane.check() and interval:
                service.notify("WATCHDOG=1")

    def _on_hup(self) -> None:
        self._reload_due = True
        if self._reloading is None or self._reloading.done():
            self._reloading = asyncio.get_running_loop().create_task(self._apply_reloads())

    async def _apply_reloads(self) -> None:
        """Read the configuration, and again when it was changed while that was under way."""
        while self._reload_due:
            self._reload_due = False
            await self._apply_reload()

    async def _apply_reload(self) -> None:
        service.notify_reloading()
        try:
            fresh = self._reload()
            roles = Roles(fresh.access)
            for http in self._http:
                http.roles = roles
                http.forget_peers()
            if self._fast is not None:
                self._fast.recheck(roles)
            logging.getLogger().setLevel(fresh.server.log_level.upper())
            kept = await self.plane.reconfigure(fresh)
            await self.streams.reconfigure(fresh)
            self.config = fresh
            text = "configuration read again" + (f"; changes to {', '.join(kept)} need a restart" if kept else "")
            self.plane.events.publish("daemon-reloaded", text)
        except errors.EdgeaiError as error:
            log.error("configuration not changed, the old one stays: %s", error)
        finally:
            service.notify("READY=1")

    async def _shut_down(self) -> None:
        service.notify("STOPPING=1", "STATUS=finishing requests under way")
        if self._hotplug is not None:
            self._hotplug.stop()
        for server in self._servers:
            server.close()
        try:
            async with asyncio.timeout(self.config.server.drain_seconds + END_SECONDS - 0.3):
                await self._finish()
        except TimeoutError:
            log.error("not everything ended in time; it is left to the kernel")
        self.plane.regions.close()
        for stored, path in self._bound.items():
            service.forget(stored)
            path.unlink(missing_ok=True)

    async def _finish(self) -> None:
        """Requests under way, then workers and connections."""
        await self.streams.stop()
        await self.plane.stop()
        if self._fast is not None:
            self._fast.close()
        if self._grpc is not None:
            await self._grpc.stop(0.2)
        await asyncio.gather(*(http.close() for http in self._http))


def threads() -> ThreadPoolExecutor:
    """Threads for what blocks, all of them started: later there may be none to be had."""
    pool = ThreadPoolExecutor(THREADS, thread_name_prefix="blocking")
    together = threading.Barrier(THREADS)

    def meet() -> None:
        with contextlib.suppress(threading.BrokenBarrierError):
            together.wait(1.0)

    try:
        for _ in range(THREADS):
            pool.submit(meet)
    except RuntimeError as error:
        log.warning("not all threads could be started: %s", error)
        together.abort()
    return pool


def main(config: Config, reload: Callable[[], Config] | None = None, fork_server: ForkServer | None = None) -> None:
    """Run a daemon in this process until it is told to stop; with a fork server where one was started for it."""
    sys.setswitchinterval(SWITCH_SECONDS)
    poller = Poller()
    daemon_ended = False
    try:
        with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(poller)) as runner:
            runner.run(Daemon(config, reload or (lambda: config), poller, fork_server).run())
            daemon_ended = True
    except RuntimeError as error:  # asyncio wants a thread to wait for its threads, and there may be none to be had
        if not daemon_ended:
            raise
        log.debug("threads were not waited for: %s", error)
