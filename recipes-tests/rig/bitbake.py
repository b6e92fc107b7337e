"""Runs real BitBake over a copy of the checkout: kas fetches the layers, the test distribution supplies the rest."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import re
import shutil
import signal
import subprocess
import time
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from . import packages
from .paths import BUILD_UID, LAYER, TOP, Missing, need, work_dir

KAS_VERSION = "5.5"
#: What is copied to the tree that BitBake reads.
SOURCES = ("meta-edgeai", "kas", "daemon", "recipes-tests", "scripts")
#: The programs whose absence explains a failed build best.
TOOLS = (
    "git", "gawk", "chrpath", "diffstat", "lz4", "zstd", "cpio", "file", "rpcgen", "pseudo", "aarch64-linux-gnu-gcc", "cmake", "ninja",
    "quilt", "rpm", "apt-ftparchive", "depmod", "parted", "sgdisk", "mcopy", "mkfs.vfat", "mke2fs", "bmaptool", "setpriv",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Build:
    """A build directory of one release.

    `variant` is "" for the product's default configuration, else the name of a file in recipes-tests/kas that adds features to
    it; builds of one release share their layers and what they have compiled.
    """

    release: str
    work: Path
    variant: str = ""

    @property
    def top(self) -> Path:
        return self.work / self.release

    @property
    def project(self) -> Path:
        """Copy of the checkout that BitBake reads."""
        return self.work / "project"

    @property
    def directory(self) -> Path:
        return self.top / (f"build-{self.variant}" if self.variant else "build")

    @property
    def config(self) -> str:
        """kas's word for the configuration."""
        extra = f":recipes-tests/kas/{self.variant}.yml" if self.variant else ""
        return f"recipes-tests/kas/testdistro-{self.release}.yml{extra}"

    @property
    def tmp(self) -> Path:
        directory = self.directory / "tmp-glibc"
        return directory if directory.is_dir() else self.directory / "tmp"

    @property
    def images(self) -> Path:
        return self.tmp / "deploy" / "images" / "raspberrypi4-64"

    def image(self, suffix: str, name: str = "edgeai-image") -> Path:
        """The newest image file, such as suffix 'wic' or 'ext4'."""
        for pattern in (f"{name}-raspberrypi4-64.rootfs.{suffix}", f"{name}-raspberrypi4-64.{suffix}"):
            if (self.images / pattern).exists():
                return (self.images / pattern).resolve()
        raise FileNotFoundError(
            f"no {name} as {suffix} in {self.images}; build it: recipes-tests/testdistro build {self.release} {self.variant}"
        )


@functools.cache
def reachable() -> str:
    """Empty, or why the OpenEmbedded layers cannot be checked out here. One quick question to each server."""
    for url in ("https://git.openembedded.org/bitbake", "https://git.yoctoproject.org/meta-raspberrypi"):
        try:
            done = subprocess.run(
                ["git", "ls-remote", "--exit-code", url, "HEAD"], capture_output=True, text=True, timeout=60, check=False,
                env=os.environ | {"GIT_TERMINAL_PROMPT": "0"},
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return f"{url} does not answer"
        if done.returncode:
            return f"{url} cannot be reached: {(done.stderr.strip().splitlines() or ['git ls-remote failed'])[-1]}"
    return ""


@contextlib.contextmanager
def locked(work: Path) -> Iterator[None]:
    """One build at a time in a work directory: a second test run waits."""
    with (work / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def prepare(release: str, work: Path | None = None, variant: str = "") -> Build:
    """Fetch packages and kas, copy the checkout. Raises Missing where the host cannot run BitBake."""
    need(*TOOLS)
    if problem := reachable():
        raise Missing(f"no OpenEmbedded layers: {problem}")
    work = work or work_dir()
    build = Build(release, work, variant)
    locales = subprocess.run(["locale", "-a"], capture_output=True, text=True, check=True).stdout.lower()
    if "en_us.utf8" not in locales:
        raise Missing("BitBake wants the locale en_US.UTF-8: localedef -i en_US -f UTF-8 en_US.UTF-8")
    sources = tomllib.loads((LAYER / "conf" / "sources.toml").read_text())
    with locked(work):
        with ThreadPoolExecutor() as pool:  # most of it is waiting for servers
            jobs = [
                pool.submit(packages.fetch_debs, work),
                pool.submit(packages.fetch_wheels, work),
                pool.submit(packages.fetch_sources, work, sources["wheel"], wheel=True),
                pool.submit(packages.fetch_sources, work, sources["sdist"]),
                pool.submit(_kas, work),
            ]
            for job in jobs:
                job.result()
        (build.top / "home").mkdir(parents=True, exist_ok=True)
        _git_config(build)
        sync(build)
        if release == "wrynose":
            _wic(work)
        if os.getuid() == 0:
            for directory in (work, work / "downloads", build.top, build.top / "home"):
                os.chown(directory, BUILD_UID, BUILD_UID)
    return build


def _kas(work: Path) -> Path:
    """A venv of the system's Python with kas; BitBake uses its interpreter too."""
    venv = work / "venv"
    if not (venv / "bin" / "kas").is_file():
        subprocess.run(["/usr/bin/python3", "-m", "venv", str(venv)], check=True)
        done = subprocess.run(
            [str(venv / "bin/pip"), "install", "-q", f"kas=={KAS_VERSION}"], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise Missing(f"kas {KAS_VERSION} cannot be installed:\n{done.stderr.strip()}")
    return venv


def _wic(work: Path) -> None:
    """wic as oe-core of scarthgap has it, at the commit of its lock file: wrynose's is a repository of its own, on another server."""
    lock = (TOP / "kas/release/scarthgap.lock.yml").read_text()
    commit = re.findall(r"openembedded-core:\n\s+commit: (\w{40})", lock)[0]
    directory, mark = work / "wic", work / "wic" / "commit"
    if mark.is_file() and mark.read_text() == commit:
        return
    shutil.rmtree(directory, ignore_errors=True)
    git = ["git", "-C", str(directory)]
    url = "https://git.openembedded.org/openembedded-core"
    subprocess.run(["git", "init", "-q", str(directory)], check=True)
    # By its branch: a local copy of the repository may not give single commits.
    subprocess.run([*git, "fetch", "-q", "--depth=1", url, "scarthgap"], check=True)
    if subprocess.run([*git, "cat-file", "-e", commit], check=False, capture_output=True).returncode:
        subprocess.run([*git, "fetch", "-q", "--depth=1", url, commit], check=True)
    subprocess.run([*git, "checkout", "-q", commit, "--", "scripts", "meta/lib"], check=True)
    shutil.rmtree(directory / ".git")
    mark.write_text(commit)


def _git_config(build: Build) -> None:
    """git's settings for kas: an identity, every directory trusted, and the user's own URL rewrites (local copies of layers)."""
    lines = [
        "[user]",
        "\tname = test",
        "\temail = test@example.com",
        "[safe]",
        "\tdirectory = *",
        "[init]",
        "\tdefaultBranch = main",
    ]
    done = subprocess.run(
        ["git", "config", "--get-regexp", r"^url\..*\.insteadof$"],
        capture_output=True,
        text=True,
        check=False,
    )
    for line in done.stdout.splitlines():
        key, value = line.split(" ", 1)
        lines += [f'[url "{key[4 : -len(".insteadof")]}"]', f"\tinsteadOf = {value}"]
    (build.top / "gitconfig").write_text("\n".join(lines) + "\n")


def sync(build: Build) -> None:
    """Bring the copy of the checkout up to date. Only changed files are touched, so BitBake's caches stay valid."""
    listed = subprocess.run(
        ["git", "-C", str(TOP), "-c", f"safe.directory={TOP}", "ls-files", "-z", "-co", "--exclude-standard", *SOURCES],
        capture_output=True, check=True,
    )  # fmt: skip
    wanted = {name.decode() for name in listed.stdout.split(b"\0") if name}
    for name in sorted(wanted):
        source, target = TOP / name, build.project / name
        if not source.is_file():
            continue
        info = source.stat()
        if target.is_file():
            old = target.stat()
            if old.st_size == info.st_size and old.st_mtime_ns == info.st_mtime_ns and old.st_mode == info.st_mode:
                continue
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target)
    for directory in SOURCES:
        for path in (build.project / directory).rglob("*"):
            relative = str(path.relative_to(build.project))
            if path.is_file() and relative not in wanted and "__pycache__" not in path.parts:
                path.unlink()
    owner = BUILD_UID if os.getuid() == 0 else os.getuid()
    if not (build.project / ".git").is_dir():
        subprocess.run(["git", "init", "-q", str(build.project)], check=True)
    if os.getuid() == 0:
        subprocess.run(["chown", "-R", f"{owner}:{owner}", str(build.project)], check=True)


def run(
    build: Build, *arguments: str, log: Path | None = None, timeout: float = 3600
) -> subprocess.CompletedProcess[str]:
    """Run a program (kas, or anything on the build's PATH) as the build user, with a clean environment.

    Returns the finished process with stdout and stderr as one text; the log file, if named, gets it as it comes.
    """
    environment = {
        "HOME": str(build.top / "home"),
        "LANG": "en_US.UTF-8",
        "LC_ALL": "en_US.UTF-8",
        "PATH": f"{build.work / 'venv/bin'}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "KAS_WORK_DIR": str(build.top),
        "KAS_BUILD_DIR": str(build.directory),
        "KAS_CLONE_DEPTH": "1",
        "GITCONFIG_FILE": str(build.top / "gitconfig"),
        "GIT_CONFIG_GLOBAL": str(build.top / "gitconfig"),
        "TERM": "dumb",
    }
    command = list(arguments)
    if os.getuid() == 0:
        command = ["setpriv", f"--reuid={BUILD_UID}", f"--regid={BUILD_UID}", "--clear-groups", *command]
    command = ["nice", "-n", "10", *command]
    with log.open("w") if log else contextlib.nullcontext(subprocess.PIPE) as out:
        process = subprocess.Popen(
            command, env=environment, cwd=build.project, stdin=subprocess.DEVNULL,
            stdout=out, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip
        try:
            text, _ = process.communicate(timeout=timeout)
        except BaseException as error:  # BitBake's server ends its tasks when kas, its client, is gone
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()
            if isinstance(error, subprocess.TimeoutExpired):
                raise RuntimeError(f"no end after {timeout:.0f} s: {' '.join(arguments)}; log: {log}") from None
            raise
    if log:
        text = log.read_text(errors="replace")
    return subprocess.CompletedProcess(command, process.returncode, text, "")


def kas(
    build: Build, *arguments: str, log: Path | None = None, timeout: float = 3600
) -> subprocess.CompletedProcess[str]:
    """`kas VERB CONFIG ARGUMENTS...`: the verb first, then what follows the configuration."""
    verb, *rest = arguments
    return run(build, "kas", verb, build.config, *rest, log=log, timeout=timeout)


def build_image(build: Build, target: str = "edgeai-image", timeout: float = 3600) -> float:
    """Build an image; returns the seconds it took. Raises RuntimeError with the errors of the log."""
    start = time.monotonic()
    log = build.top / f"{build.directory.name}-{target}.log"
    with locked(build.work):
        done = kas(build, "build", "--target", target, log=log, timeout=timeout)
    if done.returncode:
        lines = done.stdout.splitlines()
        errors = [line for line in lines if "ERROR" in line or "FATAL" in line]
        raise RuntimeError(f"{target} for {build.release} failed; log: {log}\n" + "\n".join(errors[:12] or lines[-40:]))
    return time.monotonic() - start
