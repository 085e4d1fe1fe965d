"""The PostgreSQL that is installed together with us, for a newcomer's machine and for tests.

One server per data folder, reached through a Unix socket that only its user and root may use, never
through TCP. The processes that name one folder share one server: the first owns it, the others
attach, and only the owner stops it, so the owner has to be the process that outlives the others.

States of a data folder: `absent → stopped → starting → ready → stopped`. Beside the folder `DATA`
stands `DATA.run` with the lock, the log, the access rules and the socket.

All rests on the lock. The server and every backend inherit it, so whoever obtains it knows that no
process of an earlier server is left, however that server ended.
"""

import contextlib
import fcntl
import hashlib
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, Self
from urllib.parse import quote

from api.embedded_ground import (
    Account,
    CannotStart,
    OtherMajorVersion,
    account_for,
    can_enter,
    move_durably,
    open_dir,
    private_dir,
    reachable_installation,
    refuse_other_major,
    tied,
)

__all__ = ["DURABLE_SETTINGS", "CannotStart", "EmbeddedPostgres", "OtherMajorVersion"]

DURABLE_SETTINGS: Mapping[str, str] = {
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "recovery_init_sync_method": "syncfs",
    "max_wal_size": "4GB",
    "shared_buffers": "256MB",
    "max_connections": "100",
    "shared_preload_libraries": "pg_stat_statements",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "listen_addresses": "",
}
"""What every server gets unless the caller says otherwise; nothing here risks a committed row."""

_SOCKET = ".s.PGSQL.5432"
# The kernel keeps 108 bytes for a socket's path, the last of them a zero; and drivers give commas,
# colons and plus signs in an address a meaning of their own.
_USABLE_SOCKET = re.compile(r"/[A-Za-z0-9._/-]{1,106}")
_LOG_BYTES_MAX = 16 * 1024 * 1024
_STOP_SECONDS_MAX, _ATTACH_SECONDS_MAX = 60.0, 900.0
_POLL_SECONDS, _REPORT_SECONDS = 0.02, 10.0


class _PidFile(NamedTuple):
    """What a postmaster wrote about itself, true only while that postmaster lives."""

    pid: int
    socket_dir: Path
    is_ready: bool


class EmbeddedPostgres:
    """A server over one data folder, owned by this process or attached to."""

    def __init__(
        self,
        data: Path,
        *,
        settings: Mapping[str, str] | None = None,
        progress: Callable[[str], None] = lambda _line: None,
        system_user: str = "yuanka",
        system_home: Path = Path("/var/lib/yuanka"),
    ) -> None:
        """Remember what start() needs.

        Args:
            data: The data folder, made at the first start.
            settings: Settings of PostgreSQL that go before `DURABLE_SETTINGS`.
            progress: Receives lines for people; a first start takes seconds.
            system_user: Whom the server runs as if we are root, which it refuses; made if absent.
            system_home: Where root puts what this user could not reach where it is.
        """
        self.data = data.absolute()
        self._settings = {**DURABLE_SETTINGS, **(settings or {})}
        self._progress = progress
        self._system_user, self._system_home = system_user, system_home
        self._account = Account("", -1, -1)
        self._socket_dir: Path | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._owner_pid = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()

    @property
    def run(self) -> Path:
        """The folder beside the data that holds lock, log, access rules and socket."""
        return self.data.with_name(f"{self.data.name}.run")

    @property
    def is_owner(self) -> bool:
        """Whether this process started the server that runs now."""
        return self._owned() is not None

    def dsn(self, database: str = "postgres") -> str:
        """Return the address of a database, good for asyncpg, psycopg and (`+asyncpg`) SQLAlchemy.

        Raises:
            CannotStart: The server was not started, so nobody knows its socket yet.
        """
        if self._socket_dir is None:
            raise CannotStart("the embedded PostgreSQL has no address before start()")
        # With the port, since the drivers would otherwise believe PGPORT in the environment.
        where = f"port=5432&host={self._socket_dir}"
        return f"postgresql://postgres@/{quote(database, safe='')}?{where}"

    def start(self) -> str:
        """Start the server or attach to the one that runs, wait until it accepts, give its DSN.

        A recovery after a crash is waited for however long it takes, while the server lives.

        Raises:
            CannotStart: The message says why and what to do.
            OtherMajorVersion: The data folder belongs to another major version.
        """
        # The kernel ties a child to the *thread* that forked it: started from any other thread,
        # the server would be told to stop as soon as that thread ended.
        if threading.current_thread() is not threading.main_thread():
            raise CannotStart("start the embedded PostgreSQL from the main thread")
        if sys.platform != "linux":
            raise CannotStart("the embedded PostgreSQL needs Linux; use a PostgreSQL server here")
        if not self.is_owner:
            self._settle()
            lock = self._lock_or_attach()
            if lock is not None:
                try:
                    self._launch(lock)
                except BaseException:
                    self.stop()
                    raise
                finally:
                    # Now the server alone holds the lock, which is free as soon as it is gone.
                    os.close(lock)
        return self.dsn()

    def stop(self) -> None:
        """Stop the server if this process owns it, leave it alone if not."""
        server = self._owned()
        self._child = self._socket_dir = None
        if server is not None:
            server.send_signal(signal.SIGINT)
            try:
                server.wait(_STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                # Nothing committed is lost by an immediate stop: the next start recovers it.
                server.send_signal(signal.SIGQUIT)
                server.wait()

    def kill_hard(self) -> None:
        """Kill the owned server as a power cut would, and return when no backend is left.

        Raises:
            CannotStart: This process is not the owner, or a backend outlives a minute.
        """
        server = self._owned()
        if server is None:
            raise CannotStart("only its owner may kill the embedded PostgreSQL")
        # A kernel may lack this list; then the backends end by themselves, a moment later.
        children = Path(f"/proc/{server.pid}/task/{server.pid}/children")
        backends = children.read_text().split() if children.exists() else []
        # The postmaster goes first: it would begin to tidy up after a backend that was killed.
        server.kill()
        for backend in backends:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(backend), signal.SIGKILL)
        server.wait()
        self._child = self._socket_dir = None
        for _ in _polling(_STOP_SECONDS_MAX, self._progress, "waiting for the last backend to go"):
            lock = self._try_lock()
            if lock is not None:
                os.close(lock)
                return
        raise CannotStart("a backend of the killed PostgreSQL does not end")

    def _owned(self) -> subprocess.Popen[bytes] | None:
        # A forked child holds a copy of this object, and must not stop its parent's server.
        if self._child is None or self._owner_pid != os.getpid():
            return None
        return self._child if self._child.poll() is None else None

    def _settle(self) -> None:
        """Decide whom the server runs as and where its data are."""
        data = self.data.resolve()
        data.parent.mkdir(parents=True, exist_ok=True)
        self._account = account_for(data, self._system_user)
        if os.geteuid() == 0 and not can_enter(data.parent, self._account):
            # Opening the closed folder would expose whatever else root keeps in it, so the data go
            # where the account can reach them, and a symbolic link says where that is.
            key = hashlib.sha256(os.fsencode(data)).hexdigest()[:16]
            away = open_dir(self._system_home) / f"{data.name}-{key}"
            self._progress(f"{data.parent} is closed to {self._account.name}: using {away}")
            with contextlib.suppress(FileExistsError):
                data.symlink_to(away)
            if data.resolve() != away:
                raise CannotStart(f"{self._account.name} cannot reach {data}: move it to {away}")
            data = away
        self.data = data
        private_dir(self.run, self._account)

    def _try_lock(self) -> int | None:
        lock = self._open("lock", os.O_RDWR)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return None
        return lock

    def _open(self, name: str, flags: int) -> int:
        """Open a file of `run`, whose owner might have put a link there for root to follow."""
        file = os.open(self.run / name, flags | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        os.fchown(file, self._account.uid, self._account.gid)
        return file

    def _lock_or_attach(self) -> int | None:
        """Return the lock, or None once another process's server accepts connections."""
        for _ in _polling(_ATTACH_SECONDS_MAX, self._progress, "another process starts PostgreSQL"):
            lock = self._try_lock()
            if lock is not None:
                return lock
            found = _read_pid_file(self.data)
            # The order matters. A pid file may be left from an earlier server, but its successor
            # rewrites it before it listens, so what is read after a connection is the truth.
            if found and _listens(found.socket_dir):
                found = _read_pid_file(self.data)
                if found and found.is_ready:
                    self._socket_dir = found.socket_dir
                    return None
        raise CannotStart(f"{self.run}/lock is held, but no server answers: see {self.run}/log")

    def _launch(self, lock: int) -> None:
        """Start the server over a cluster, made if need be, and wait until it accepts."""
        install = reachable_installation(self._account, self._system_home, self._progress)
        if not self.data.exists() or not any(self.data.iterdir()):
            self._make_cluster(install, lock)
        refuse_other_major(self.data)
        _forget_foreign_pid(self.data)
        self._socket_dir = self._make_socket_dir()
        settings = {
            **self._settings,
            **self._write_access_rules(),
            "port": "5432",
            "unix_socket_directories": str(self._socket_dir),
        }
        options = [f"--{name}={value}" for name, value in settings.items()]
        command = [str(install / "bin/postgres"), "-D", str(self.data), *options]
        server = self._run_tied(command, signal.SIGINT, lock)
        for _ in _polling(None, self._progress, "PostgreSQL recovers what a crash left"):
            if server.poll() is not None:
                raise CannotStart(f"PostgreSQL ended with {server.returncode}:\n{self._log_tail()}")
            found = _read_pid_file(self.data)
            if found and found.is_ready and found.pid == server.pid:
                return

    def _run_tied(self, command: list[str], signal_no: int, lock: int) -> subprocess.Popen[bytes]:
        """Run a program as the account, with the lock, signalled when this process dies."""
        log_path = self.run / "log"
        if log_path.exists() and log_path.stat().st_size > _LOG_BYTES_MAX:
            log_path.rename(self.run / "log.old")
        log = self._open("log", os.O_WRONLY | os.O_APPEND)
        try:
            self._owner_pid = os.getpid()
            self._child = subprocess.Popen(  # noqa: S603 - no word of the command is from outside
                tied(command, self._account, signal_no),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                # Nothing of our environment is handed on: PGDATA or PGOPTIONS would change things.
                env={"LC_ALL": "C"},
                pass_fds=[lock],
                # Ctrl-C reaches the whole session of a terminal; the server must not hear it
                # before we have finished our work and stop it.
                start_new_session=True,
            )
        finally:
            os.close(log)
        return self._child

    def _log_tail(self) -> str:
        return (self.run / "log").read_text(errors="replace")[-2000:]

    def _make_cluster(self, install: Path, lock: int) -> None:
        """Run initdb aside and move the result into place, so that no half-made one is met."""
        self._progress(f"making a PostgreSQL database in {self.data} (some seconds, only once)")
        half_made = self.data.with_name(f"{self.data.name}.init")
        shutil.rmtree(half_made, ignore_errors=True)
        private_dir(half_made, self._account)
        command = [str(install / "bin/initdb"), "-D", str(half_made), "--username=postgres"]
        command += ["--data-checksums", "--encoding=UTF8", "--auth=peer", "--sync-method=syncfs"]
        command += ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        if self._run_tied(command, signal.SIGKILL, lock).wait() != 0:
            raise CannotStart(f"initdb failed:\n{self._log_tail()}")
        move_durably(half_made, self.data)

    def _make_socket_dir(self) -> Path:
        """Return a private folder whose path is short and plain enough for a socket."""
        chosen = self.run
        if not _USABLE_SOCKET.fullmatch(str(chosen / _SOCKET)):
            # Not in TMPDIR, which may itself be long, or closed to the account.
            key = hashlib.sha256(os.fsencode(self.run)).hexdigest()[:16]
            chosen = Path("/tmp") / f"yuanka-{key}"  # noqa: S108 - checked to be ours, and 0700
            private_dir(chosen, self._account)
        # Their pid file may name a living stranger; the lock proves that no server listens here.
        for leftover in (_SOCKET, f"{_SOCKET}.lock"):
            (chosen / leftover).unlink(missing_ok=True)
        return chosen

    def _write_access_rules(self) -> dict[str, str]:
        """Let root and the server's own user be `postgres`, nobody else; return the settings."""
        # Written at each start, so that they fit even data that came from another machine.
        users = sorted({self._account.name, pwd.getpwuid(0).pw_name})
        rules = {
            "hba_file": "local all all peer map=yuanka\n",
            "ident_file": "".join(f'yuanka "{user}" postgres\n' for user in users),
        }
        for name, text in rules.items():
            with os.fdopen(self._open(name, os.O_WRONLY | os.O_TRUNC), "w") as file:
                file.write(text)
        return {name: str(self.run / name) for name in rules}


def _polling(
    seconds_max: float | None, progress: Callable[[str], None], waiting: str
) -> Iterator[None]:
    """Yield every moment until the time is over, and tell people why they wait."""
    begun = reported = time.monotonic()
    while seconds_max is None or time.monotonic() < begun + seconds_max:
        yield
        time.sleep(_POLL_SECONDS)
        if time.monotonic() > reported + _REPORT_SECONDS:
            reported = time.monotonic()
            progress(f"{waiting} ({reported - begun:.0f} s)")


def _read_pid_file(data: Path) -> _PidFile | None:
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
        return _PidFile(int(lines[0]), Path(lines[4]), lines[7].strip() == "ready")
    except (FileNotFoundError, IndexError, ValueError):
        return None


def _listens(socket_dir: Path) -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
        probe.connect(str(socket_dir / _SOCKET))
        return True
    return False


def _forget_foreign_pid(data: Path) -> None:
    """Remove a pid file whose number is a stranger's by now, which the server would respect.

    A number that nobody has is left to the server, which then also looks for memory in use.
    """
    found = _read_pid_file(data)
    if found is None or not Path(f"/proc/{found.pid}").exists():
        return
    words: list[bytes] = []
    cwd = Path()
    # A container's root may not see where other users' processes are, only what they were called.
    with contextlib.suppress(OSError):
        words = Path(f"/proc/{found.pid}/cmdline").read_bytes().split(b"\0")
        cwd = Path(f"/proc/{found.pid}/cwd").readlink()
    if cwd == data or os.fsencode(data) in words:
        raise CannotStart(f"process {found.pid}, which we did not start, serves {data}: stop it")
    (data / "postmaster.pid").unlink()
