"""`yuanka demo`: a whole city on one machine, from an empty folder (示范).

Starts the embedded database, the providers' simulators, the API and the worker; seeds once; runs
the main job; then stays up until Ctrl-C. Everything it makes lies in `var/demo`.
"""

import argparse
import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import NamedTuple

import httpx
import msgspec

from api import migrations
from api.clock import utc_now
from api.commands import seeding
from api.commands.access import Access, SimulatorAccess, read_access, write_private
from api.commands.progress import Progress
from api.commands.seeding import City
from api.commands.tour import take_tour
from api.embedded_ground import Account, tied
from api.embedded_postgres import CannotStart, EmbeddedPostgres
from api.services import open_services, trust_document
from api.settings import (
    DEMO_FOLDER,
    DEMO_SETTINGS,
    Settings,
    given_database_url,
    given_port,
    read_env_file,
    read_settings,
)
from identity.sealing import make_development_ring

SCHEMA = "wuxi"
START_SECONDS = 60
STOP_SECONDS = 15
OK = 200


class Child(NamedTuple):
    """A process of the demo."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    says = "start everything, run the main job, stay up until Ctrl-C"
    parser = subparsers.add_parser("demo", help=says, description=says)
    parser.add_argument("--once", action="store_true", help="stop after the tour")
    parser.set_defaults(run=run_demo)


def run_demo(arguments: argparse.Namespace) -> int:
    """Run the demo; exit 0 if every step of the tour held."""
    # `kill` ends the children as Ctrl-C does; and a shell that starts us in the background may
    # have switched Ctrl-C off.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.default_int_handler)
    with ExitStack() as stack:
        access, children = _start(stack)
        code = asyncio.run(take_tour(access))
        if arguments.once or code:
            return code
        _say_where(access)
        try:
            return _watch(children)
        except KeyboardInterrupt:
            print("\nstopping")
    return code


def _watch(children: list[Child]) -> int:
    """Wait while everything runs; return 1 as soon as something does not."""
    while True:
        for child in children:
            if child.process.poll() is not None:
                print(f"{child.name} ended: see {child.log}", file=sys.stderr)
                return 1
        sleep(1)


def _start(stack: ExitStack) -> tuple[Access, list[Child]]:
    """Start every process; they stop in the opposite order when the stack unwinds."""
    port = given_port()
    for taken in range(port, port + 3):
        _refuse_taken(taken)
    folder = DEMO_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    database_url = given_database_url()
    if database_url is None:
        server = EmbeddedPostgres(folder / "postgres", progress=_say)
        database_url = stack.enter_context(server).dsn()
    ring_file = folder / "key-ring.json"
    if not ring_file.exists():
        write_private(ring_file, make_development_ring(now=utc_now()))
    children = [stack.enter_context(_simulators(folder, port + 2))]
    _write_settings(folder, port, database_url, ring_file)
    settings = read_settings(read_env_file(DEMO_SETTINGS))
    with Progress("migrating"):
        migrations.upgrade(settings.database_url, settings.schema)
    access = asyncio.run(_seed(settings, folder))
    children += [stack.enter_context(_running(command)) for command in ("serve", "work")]
    _await_ready(access)
    return access, children


async def _seed(settings: Settings, folder: Path) -> Access:
    """Seed the city once; write what a newcomer needs to reach it."""
    path, control = folder / "access.json", _control(settings)

    def keep(city: City) -> None:
        write_private(path, msgspec.json.format(msgspec.json.encode(_access(settings, city))))

    async with open_services(settings, utc_now) as services:
        if path.exists() and await seeding.is_seeded(services):
            known = read_access(path)
            keep(City(known.merchants, known.gates, known.operators))
        else:
            await seeding.seed_city(services, keep, now=utc_now())
        trust = trust_document(services.ring, settings.issuer)
        (folder / "trust.json").write_bytes(msgspec.json.format(msgspec.json.encode(trust)))
        if await seeding.count_citizens(services) < seeding.CITIZENS:
            with Progress("seeding citizens") as progress:
                await seeding.seed_citizens(services, control, progress=progress.at)
    return read_access(path)


def _access(settings: Settings, city: City) -> Access:
    return Access(
        api=f"http://{settings.signed_authority}",
        management=f"http://{settings.host}:{settings.management_port}",
        merchants=city.merchants,
        gates=city.gates,
        operators=city.operators,
        simulators=SimulatorAccess(_control(settings)),
    )


def _write_settings(folder: Path, port: int, database_url: str, ring_file: Path) -> None:
    """Write the settings that every process of the demo reads, and `yuanka prove` beside it."""
    settings = {
        "YUANKA_ENVIRONMENT": "development",
        "YUANKA_DATABASE_URL": database_url,
        "YUANKA_SCHEMA": SCHEMA,
        "YUANKA_KEY_RING_FILE": str(ring_file.absolute()),
        "YUANKA_PORT": str(port),
        "YUANKA_MANAGEMENT_PORT": str(port + 1),
        "YUANKA_PROVIDERS_FILE": str((folder / "simulators" / "providers.env").absolute()),
    }
    lines = "".join(f"{name}={value}\n" for name, value in settings.items())
    write_private(DEMO_SETTINGS, lines.encode())


@contextmanager
def _simulators(folder: Path, port: int) -> Iterator[Child]:
    command = [sys.executable, "-m", "simulators", "--port", str(port)]
    command += ["--dir", str(folder / "simulators")]
    log = folder / "simulators.log"
    with _child(command, log, stdout=subprocess.PIPE) as process:
        assert process.stdout
        line = process.stdout.readline().decode()
        if not line.startswith("simulators ready"):
            raise CannotStart(f"the simulators did not start: see {log}")
        yield Child("the simulators", process, log)


@contextmanager
def _running(command: str) -> Iterator[Child]:
    log = DEMO_FOLDER / f"{command}.log"
    with _child([sys.executable, "-m", "api.cli", command], log) as process:
        yield Child(f"yuanka {command}", process, log)


@contextmanager
def _child(
    command: list[str], log: Path, *, stdout: int | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process of ours until the block ends; it is asked to stop, then made to."""
    with log.open("ab") as errors:
        process = subprocess.Popen(  # noqa: S603  # our own commands
            # Tied to us: kill -9 of the demo leaves nothing behind that holds a port.
            tied(command, Account("ourselves", os.geteuid(), os.getegid()), signal.SIGTERM),
            stdin=subprocess.DEVNULL,
            stdout=errors if stdout is None else stdout,
            stderr=errors,
            # Ctrl-C reaches the demo alone, which stops its children in order.
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await_ready(access: Access) -> None:
    with Progress("starting the API"):
        began = monotonic()
        while monotonic() - began < START_SECONDS:
            try:
                answer = httpx.get(f"{access.management}/readyz", trust_env=False)
            except httpx.TransportError:
                sleep(0.1)
                continue
            if answer.status_code == OK:
                return
            sleep(0.1)
    raise CannotStart(f"the API is not ready after {START_SECONDS} s: see {DEMO_FOLDER}/serve.log")


def _control(settings: Settings) -> str:
    return f"http://{settings.host}:{settings.port + 2}/_ctl"


def _refuse_taken(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as taken:
            raise CannotStart(
                f"port {port} is taken; free it, or set YUANKA_PORT to another (it takes three)"
            ) from taken


def _say(line: str) -> None:
    print(line, flush=True)


def _say_where(access: Access) -> None:
    """Print where everything is, and how to sign in."""
    print(f"""
API              {access.api}
documentation    {access.api}/schema/docs
OpenAPI          {access.api}/schema/openapi.json
management       {access.management}/readyz
simulators       {access.simulators.control}
who may do what  {DEMO_FOLDER}/access.json
citizens         sign in with code sim:citizen001 … sim:citizen{seeding.CITIZENS} (wechat)""")
    for operator in access.operators:
        print(f"operator         {operator.login} / {operator.password} / {operator.totp_secret}")
    print("\nCtrl-C stops everything; `yuanka tour` and `yuanka prove` work meanwhile.", flush=True)
