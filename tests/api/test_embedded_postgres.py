"""The embedded server starts, is shared, survives every kind of death, and lets nobody else in."""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from api.embedded_postgres import DURABLE_SETTINGS, CannotStart, EmbeddedPostgres, OtherMajorVersion

ROOT = Path(__file__).parents[2]
SITE_PACKAGES = Path(psycopg.__file__).parents[1]
SMALL = {"shared_buffers": "16MB", "max_connections": "20"}

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root changes to another user")

# A process of its own, which may be killed: waits for a file to appear, starts, then says where its
# server is and whether it owns it.
STARTER = """
import sys, time, psycopg
from pathlib import Path
from api.embedded_postgres import EmbeddedPostgres
while not Path(sys.argv[2]).exists():
    time.sleep(0.02)
server = EmbeddedPostgres(Path(sys.argv[1]), settings={"shared_buffers": "16MB"},
                          system_home=Path(sys.argv[1]).parent / "home")
psycopg.connect(server.start()).close()
try:
    print(server.dsn(), server.is_owner, flush=True)
    sys.stdin.read()
except KeyboardInterrupt:
    with psycopg.connect(server.dsn()) as connection:
        print(connection.execute("SELECT 'alive'").fetchone()[0], flush=True)
server.stop()
"""


def open_folder() -> Path:
    """Make a folder that every user may enter, which pytest's own tmp_path is not."""
    path = Path(tempfile.mkdtemp(prefix="embedded-"))
    path.chmod(0o755)
    return path


@pytest.fixture
def folder() -> Iterator[Path]:
    path = open_folder()
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Path]:
    """A stopped cluster to copy, since making one costs more than most tests."""
    path = open_folder()
    with EmbeddedPostgres(path / "data", settings=SMALL) as server:
        # Two thirds of the files to copy, and to delete again, are of templates nobody uses here.
        ask(server, "UPDATE pg_database SET datistemplate = false")
        ask(server, "DROP DATABASE template0")
        ask(server, "DROP DATABASE template1")
    yield path / "data"
    shutil.rmtree(path)


def copy_of(cluster: Path, data: Path) -> EmbeddedPostgres:
    data.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-a", cluster, data], check=True)
    return EmbeddedPostgres(data, settings=SMALL)


@pytest.fixture
def stopped(folder: Path, cluster: Path) -> EmbeddedPostgres:
    return copy_of(cluster, folder / "data")


@pytest.fixture
def server(stopped: EmbeddedPostgres) -> Iterator[EmbeddedPostgres]:
    with stopped:
        yield stopped


@pytest.fixture(scope="module")
def running(cluster: Path) -> Iterator[EmbeddedPostgres]:
    """A server for the tests that only look at it."""
    with copy_of(cluster, cluster.with_name("running")) as server:
        yield server


@contextlib.contextmanager
def command(
    words: list[str], *, uid: int | None = None, python_path: str = ""
) -> Iterator[subprocess.Popen[str]]:
    """Run a program, as that user if we are root, and let it not outlive the test."""
    process = subprocess.Popen(
        words,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd="/",
        env={"PYTHONPATH": python_path},
        start_new_session=True,
        user=uid if os.geteuid() == 0 else None,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def starter(
    data: Path,
    *,
    after: Path = ROOT,
    python: str = sys.executable,
    python_path: str = str(ROOT),
    uid: int | None = None,
) -> contextlib.AbstractContextManager[subprocess.Popen[str]]:
    words = [python, "-c", STARTER, str(data), str(after)]
    return command(words, uid=uid, python_path=python_path)


def hears(process: subprocess.Popen[str]) -> list[str]:
    assert process.stdout is not None
    return process.stdout.readline().split()


def ask(server: EmbeddedPostgres | str, query: str) -> object:
    dsn = server if isinstance(server, str) else server.dsn()
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(query.encode())
        row = cursor.fetchone() if cursor.description else None
        return row[0] if row else None


def remember(server: EmbeddedPostgres, count: int = 1000) -> None:
    ask(server, f"CREATE TABLE kept AS SELECT generate_series(1, {count}) AS number")


def postmaster_pid(server: EmbeddedPostgres) -> int:
    return int((server.data / "postmaster.pid").read_text().split()[0])


def test_rows_outlive_a_stop_and_only_the_first_start_makes_a_database(folder: Path) -> None:
    lines: list[str] = []
    server = EmbeddedPostgres(folder / "var/data", settings=SMALL, progress=lines.append)
    with pytest.raises(CannotStart, match="before start"):
        server.dsn()
    with server:
        remember(server)
        ask(server, "CREATE DATABASE city")
        assert ask(server.dsn("city"), "SELECT current_database()") == "city"
    assert len(lines) == 1
    assert "only once" in lines[0]
    begun = time.monotonic()
    with server:
        warm_seconds = time.monotonic() - begun
        assert ask(server, "SELECT count(*) FROM kept") == 1000
    assert len(lines) == 1
    assert warm_seconds < 10
    log = (server.run / "log").read_text()
    assert "not properly shut down" not in log
    assert sorted(path.name for path in server.data.parent.iterdir()) == ["data", "data.run"]


def test_the_settings_are_durable_and_the_callers_go_first(running: EmbeddedPostgres) -> None:
    expected = {**DURABLE_SETTINGS, **SMALL, "data_checksums": "on", "port": "5432"}
    for name, value in expected.items():
        assert ask(running, f"SHOW {name}") == value
    ask(running, "CREATE EXTENSION pg_stat_statements")
    assert ask(running, "SELECT count(*) > 0 FROM pg_stat_statements") is True
    assert ask(running, "SELECT datlocprovider::text FROM pg_database LIMIT 1") == "b"


async def test_one_dsn_suits_the_three_drivers_whatever_the_environment_says(
    running: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPORT", "1")
    assert ask(running, "SELECT current_user::text") == "postgres"
    connection = await asyncpg.connect(running.dsn())
    assert await connection.fetchval("SELECT current_user::text") == "postgres"
    await connection.close()
    engine = create_async_engine(running.dsn().replace("postgresql:", "postgresql+asyncpg:"))
    async with engine.connect() as session:
        assert await session.scalar(text("SELECT current_user::text")) == "postgres"
    await engine.dispose()


def test_processes_that_start_at_once_share_one_server_that_its_owner_stops(folder: Path) -> None:
    data = folder / "data"
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(starter(data)) for _ in range(4)]
        answers = [hears(process) for process in processes]
        assert sorted(is_owner for _, is_owner in answers) == ["False", "False", "False", "True"]
        assert len({dsn for dsn, _ in answers}) == 1
        dsn = answers[0][0]
        owner = processes[[is_owner for _, is_owner in answers].index("True")]
        attached = EmbeddedPostgres(data)
        assert attached.start() == dsn
        with pytest.raises(CannotStart, match="only its owner"):
            attached.kill_hard()
        attached.stop()
        for process in processes:
            if process is not owner:
                process.communicate()
                assert process.returncode == 0
        assert ask(dsn, "SELECT 1") == 1
        owner.communicate()
        assert owner.returncode == 0
        with pytest.raises(psycopg.OperationalError):
            ask(dsn, "SELECT 1")


def test_a_forked_child_leaves_its_parents_server_alone(running: EmbeddedPostgres) -> None:
    child = os.fork()
    if child == 0:
        was_owner = running.is_owner
        running.stop()
        os._exit(int(was_owner))
    assert os.waitpid(child, 0)[1] == 0
    assert running.is_owner
    assert ask(running, "SELECT 1") == 1


def test_two_folders_side_by_side_do_not_meet(
    stopped: EmbeddedPostgres, running: EmbeddedPostgres
) -> None:
    with stopped as other:
        remember(running, 7)
        remember(other, 8)
        assert ask(running, "SELECT count(*) FROM kept") == 7
        assert ask(other, "SELECT count(*) FROM kept") == 8
        assert other.is_owner
        assert running.is_owner


def test_a_killed_parent_takes_its_server_down_in_good_order(stopped: EmbeddedPostgres) -> None:
    server = stopped
    with starter(server.data) as process:
        dsn, _ = hears(process)
        ask(dsn, "CREATE TABLE kept AS SELECT 1 AS number")
        process.kill()
        process.wait()
        with server:
            assert server.is_owner
            assert ask(server, "SELECT count(*) FROM kept") == 1
    log = (server.run / "log").read_text()
    assert "received fast shutdown request" in log
    assert "not properly shut down" not in log


def test_a_parent_killed_while_it_makes_the_database_leaves_nothing_half_made(folder: Path) -> None:
    server = EmbeddedPostgres(folder / "data", settings=SMALL)
    half_made = folder / "data.init"
    with starter(server.data) as process:
        while not (half_made / "global").exists():
            time.sleep(0.001)
        process.kill()
        process.wait()
    assert not server.data.exists()
    with server:
        remember(server)
    assert not half_made.exists()


def test_an_interrupt_at_the_terminal_reaches_us_and_not_the_server(
    stopped: EmbeddedPostgres,
) -> None:
    with starter(stopped.data) as process:
        hears(process)
        os.killpg(process.pid, signal.SIGINT)
        assert hears(process) == ["alive"]
        process.communicate()
        assert process.returncode == 0


def test_committed_rows_outlive_a_killed_server(server: EmbeddedPostgres) -> None:
    remember(server)
    with psycopg.connect(server.dsn()) as connection:
        connection.execute("INSERT INTO kept VALUES (0)")
        server.kill_hard()
        assert not server.is_owner
        server.start()
        assert ask(server, "SELECT count(*) FROM kept") == 1000
        connection.close()
    assert "database system was not properly shut down" in (server.run / "log").read_text()


def test_a_server_waits_for_the_last_backend_of_a_killed_one(server: EmbeddedPostgres) -> None:
    # A backend that is deep in work does not notice the postmaster's death, and may still write.
    with psycopg.connect(server.dsn()) as connection:
        os.kill(connection.info.backend_pid, signal.SIGSTOP)
        os.kill(postmaster_pid(server), signal.SIGKILL)
        assert server._child is not None
        server._child.wait()
        noticing = threading.Timer(1, os.kill, (connection.info.backend_pid, signal.SIGCONT))
        begun = time.monotonic()
        noticing.start()
        server.start()
        assert time.monotonic() - begun > 0.9
        assert server.is_owner
        assert ask(server, "SELECT 1") == 1
        noticing.join()
        connection.close()


def test_a_pid_file_that_names_a_living_stranger_is_no_hindrance(server: EmbeddedPostgres) -> None:
    remember(server)
    pid_file, socket_lock = server.data / "postmaster.pid", server.run / ".s.PGSQL.5432.lock"
    stale = pid_file.read_text(), socket_lock.read_text()
    server.kill_hard()
    # Of the same user, since the server itself sees through a number that is someone else's.
    with command(["sleep", "600"], uid=server.data.stat().st_uid) as stranger:
        for path, contents in zip((pid_file, socket_lock), stale, strict=True):
            path.write_text("\n".join([str(stranger.pid), *contents.split("\n")[1:]]))
        server.start()
        assert ask(server, "SELECT count(*) FROM kept") == 1000
        assert stranger.poll() is None


def test_a_server_that_somebody_else_started_is_not_started_twice(
    stopped: EmbeddedPostgres,
) -> None:
    server = stopped
    with server:
        install = Path(f"/proc/{postmaster_pid(server)}/exe").readlink().parent
    words = [str(install / "postgres"), "-D", str(server.data), "-k", str(server.run), "-h", ""]
    with command(words, uid=server.data.stat().st_uid) as strangers:
        while not (server.run / ".s.PGSQL.5432").exists():
            time.sleep(0.02)
        with pytest.raises(CannotStart, match=f"process {strangers.pid}.*stop it"):
            server.start()
        assert strangers.poll() is None
        strangers.send_signal(signal.SIGINT)
        strangers.wait()
    with server:
        assert server.is_owner


def test_a_recovery_longer_than_ten_seconds_is_waited_for_also_by_who_attaches(
    stopped: EmbeddedPostgres,
) -> None:
    lines: list[str] = []
    # The server asks for archived segments before it is ready; the first answer takes its time.
    asked = stopped.run / "asked"
    restore = f"test -e {asked} || (touch {asked}; sleep 11); false"
    settings = {**SMALL, "restore_command": restore}
    server = EmbeddedPostgres(stopped.data, settings=settings, progress=lines.append)
    with server:
        remember(server)
        server.kill_hard()
        (server.data / "recovery.signal").touch()
        os.chown(server.data / "recovery.signal", server.data.stat().st_uid, -1)
        begun = time.monotonic()
        with starter(server.data, after=asked) as process:
            server.start()
            assert time.monotonic() - begun > 10
            assert ask(server, "SELECT count(*) FROM kept") == 1000
            assert hears(process) == [server.dsn(), "False"]
            process.communicate()
    assert any("recovers" in line for line in lines)


def test_data_of_another_major_version_are_refused_and_left_alone(
    stopped: EmbeddedPostgres,
) -> None:
    server = stopped
    version = server.data / "PG_VERSION"
    ours = version.read_text()
    version.write_text("16\n")
    with pytest.raises(OtherMajorVersion, match=r"PostgreSQL 16, but PostgreSQL 18.*pg_upgrade"):
        server.start()
    version.write_text(ours)
    with server:
        assert ask(server, "SELECT 1") == 1


def test_a_folder_with_other_files_is_refused_and_an_empty_one_is_used(folder: Path) -> None:
    photos, empty = folder / "photos", folder / "empty"
    photos.mkdir()
    empty.mkdir()
    (photos / "wedding.jpg").touch()
    with pytest.raises(CannotStart, match="no database"):
        EmbeddedPostgres(photos).start()
    assert [path.name for path in photos.iterdir()] == ["wedding.jpg"]
    with EmbeddedPostgres(empty, settings=SMALL) as server:
        assert ask(server, "SELECT 1") == 1


def test_a_server_that_cannot_start_says_why(stopped: EmbeddedPostgres) -> None:
    server = EmbeddedPostgres(stopped.data, settings={"shared_buffers": "much"})
    with pytest.raises(CannotStart, match="invalid value for parameter"):
        server.start()
    assert not server.is_owner
    lock = server._try_lock()
    assert lock is not None
    os.close(lock)


def test_the_kernel_ties_the_server_to_a_thread_so_only_the_main_one_may_start(
    folder: Path,
) -> None:
    refusals: list[CannotStart] = []

    def start() -> None:
        with pytest.raises(CannotStart, match="main thread") as refused:
            EmbeddedPostgres(folder / "data").start()
        refusals.append(refused.value)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert len(refusals) == 1
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("name", ["deep/" * 60 + "data", "园卡 my, c:ard+100%/data"])
def test_a_path_that_no_socket_can_have_is_no_hindrance(
    folder: Path, cluster: Path, name: str
) -> None:
    data = folder / name
    with copy_of(cluster, data) as server:
        socket_dir = Path(server.dsn().partition("host=")[2])
        assert socket_dir.parent == Path("/tmp")  # noqa: S108
        assert stat.S_IMODE(socket_dir.stat().st_mode) == 0o700
        with starter(data) as process:
            assert hears(process) == [server.dsn(), "False"]
            process.communicate()
        assert ask(server, "SELECT 1") == 1
    shutil.rmtree(socket_dir)


@needs_root
def test_a_socket_folder_that_somebody_else_prepared_is_refused(
    folder: Path, cluster: Path
) -> None:
    with copy_of(cluster, folder / ("deep/" * 60 + "data")) as server:
        socket_dir = Path(server.dsn().partition("host=")[2])
    os.chown(socket_dir, pwd.getpwnam("nobody").pw_uid, -1)
    with pytest.raises(CannotStart, match="somebody else"):
        server.start()
    shutil.rmtree(socket_dir)
    socket_dir.symlink_to(folder)
    with pytest.raises(OSError, match=r"Not a directory|symbolic"):
        server.start()
    socket_dir.unlink()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755


@needs_root
def test_a_closed_checkout_of_root_stays_closed_and_its_data_are_found_again(folder: Path) -> None:
    closed = folder / "root/checkout"
    closed.mkdir(parents=True)
    closed.parent.chmod(0o700)
    lines: list[str] = []
    for _ in range(2):
        server = EmbeddedPostgres(
            closed / "var/data",
            settings=SMALL,
            progress=lines.append,
            system_home=folder / "home",
        )
        with server:
            ask(server, "CREATE TABLE IF NOT EXISTS kept (number integer)")
            ask(server, "INSERT INTO kept VALUES (1)")
    pointer = closed / "var/data"
    assert pointer.readlink() == server.data
    assert server.data.parent == folder / "home"
    assert server.data.stat().st_uid not in {0, pwd.getpwnam("nobody").pw_uid}
    assert stat.S_IMODE(closed.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(closed.stat().st_mode) == 0o755
    assert len([line for line in lines if str(server.data) in line and "closed" in line]) == 1
    # A lost pointer is found by the name of the place it stood.
    pointer.unlink()
    server = EmbeddedPostgres(pointer, settings=SMALL, system_home=folder / "home")
    with server:
        assert ask(server, "SELECT count(*) FROM kept") == 2


@needs_root
def test_data_that_became_unreachable_are_not_replaced_by_an_empty_database(
    folder: Path, cluster: Path
) -> None:
    data = folder / "later/data"
    with copy_of(cluster, data) as server:
        remember(server)
    data.parent.chmod(0o700)
    with pytest.raises(CannotStart, match="cannot reach"):
        EmbeddedPostgres(data, settings=SMALL, system_home=folder / "home").start()
    data.parent.chmod(0o755)
    with server:
        assert ask(server, "SELECT count(*) FROM kept") == 1000


@needs_root
def test_programs_in_a_closed_folder_are_copied_and_the_folder_stays_closed(folder: Path) -> None:
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    unused = shutil.ignore_patterns("include", "doc", "pg_*dump*")
    for name in ("embedded_postgres", "embedded_postgres.libs"):
        shutil.copytree(SITE_PACKAGES / name, closed / name, symlinks=True, ignore=unused)
    # As an installation under umask 077 leaves it.
    for path in closed.rglob("*"):
        path.chmod(stat.S_IMODE(path.stat().st_mode) & 0o700)
    with starter(folder / "data", python_path=f"{ROOT}:{closed}") as process:
        dsn, is_owner = hears(process)
        assert is_owner == "True"
        assert ask(dsn, "CREATE EXTENSION pg_trgm") is None
        process.communicate()
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700
    assert len(list((folder / "home").glob("postgresql-18.*/package/pginstall/bin/postgres"))) == 1


@needs_root
def test_where_no_user_can_be_made_nobody_runs_the_server(folder: Path) -> None:
    server = EmbeddedPostgres(folder / "data", settings=SMALL, system_user="not a name!")
    with server:
        assert ask(server, "SELECT 1") == 1
    assert server.data.owner() == "nobody"


@needs_root
def test_nobody_but_root_and_the_servers_user_gets_in(running: EmbeddedPostgres) -> None:
    def reply_to(uid: int) -> bytes:
        """Ask to be `postgres`, as a process of that user; give the kind of the reply."""
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.setgroups([])
            os.setresuid(uid, uid, uid)
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as client:
                client.connect(str(running.run / ".s.PGSQL.5432"))
                body = b"\0\3\0\0user\0postgres\0\0"
                client.sendall((len(body) + 4).to_bytes(4) + body)
                os.write(writing, client.recv(1))
            os._exit(0)
        os.close(writing)
        os.waitpid(child, 0)
        with os.fdopen(reading, "rb") as answer:
            return answer.read()

    nobody, ours = pwd.getpwnam("nobody").pw_uid, running.data.stat().st_uid
    assert reply_to(nobody) == b""
    # Even with the folder open, the server asks the kernel who is calling.
    running.run.chmod(0o711)
    (running.run / ".s.PGSQL.5432").chmod(0o777)
    assert reply_to(nobody) == b"E"
    assert (reply_to(ours), reply_to(0)) == (b"R", b"R")
    running.run.chmod(0o700)
    for name in ("lock", "log", "hba_file", "ident_file"):
        assert stat.S_IMODE((running.run / name).stat().st_mode) == 0o600


@needs_root
def test_root_runs_the_server_of_an_ordinary_user_as_that_user(folder: Path) -> None:
    python = "/usr/bin/python3.11"
    if not Path(python).exists():
        pytest.skip("an ordinary user needs an interpreter outside of root's home")
    uid = pwd.getpwnam("nobody").pw_uid
    home = folder / "theirs"
    home.mkdir()
    os.chown(home, uid, -1)
    python_path = f"{ROOT}:{SITE_PACKAGES}"
    server = EmbeddedPostgres(home / "data", settings=SMALL)
    for _ in range(2):
        with starter(server.data, python=python, python_path=python_path, uid=uid) as process:
            dsn, is_owner = hears(process)
            assert is_owner == "True"
            assert server.start() == dsn
            assert ask(server, "SELECT 1") == 1
            server.stop()
            process.communicate()
            assert process.returncode == 0
        # In between root owns it once, and must make no file the user cannot open again.
        shutil.rmtree(server.run)
        with server:
            assert server.is_owner
    assert {path.stat().st_uid for path in (home, *home.rglob("*"))} == {uid}
