"""A city to load (压测城市): its own PostgreSQL, a real server process, cards with money.

Everything lies in a folder of its own that is removed at the end. The providers do not answer,
and are not asked: what they would have proven is given (api/commands/making.py).
"""

import asyncio
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import NamedTuple

import asyncpg
import httpx
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from api import migrations
from api.clock import utc_now
from api.commands import seeding
from api.commands.access import write_private
from api.commands.making import make_recharge
from api.commands.phones import Phone
from api.commands.progress import Progress
from api.embedded_ground import Account, tied
from api.embedded_postgres import CannotStart, EmbeddedPostgres
from api.services import Services, open_services
from api.settings import Settings, read_settings
from identity.people import sign_ins
from identity.providers.provider import ProviderPerson
from identity.sealing import make_development_ring
from wallet.cards import cards
from wallet.passes import pass_types
from wallet.passes.pass_types import PassType

DATABASE, PGBENCH_DATABASE, SCHEMA = "yuanka", "pgbench", "city"
BALANCE_FEN = 20_000
AT_ONCE = 8
START_SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 15.0
CARD_SECONDS_MAX = 0.5
NOBODY = "http://127.0.0.1:9"


class Ground(NamedTuple):
    """A database server with an empty, migrated city, and the settings to reach it."""

    folder: Path
    environment: dict[str, str]
    settings: Settings
    server: EmbeddedPostgres

    @property
    def postgres_pid(self) -> int:
        """Return the postmaster's process id."""
        return int((self.server.data / "postmaster.pid").read_text().split()[0])


@contextmanager
def prepared_ground(*, workers: int) -> Iterator[Ground]:
    """Start a database server of our own and migrate a city; all of it is gone afterwards."""
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="yuanka-bench-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        folder.chmod(0o755)  # The database server must not run as root, and enters as another.
        with Progress("starting PostgreSQL"):
            server = EmbeddedPostgres(
                folder / "postgres", settings={"pg_stat_statements.track_utility": "off"}
            )
            stack.enter_context(server)
            asyncio.run(_create_databases(server.dsn()))
        environment = _environment(folder, server.dsn(DATABASE), workers)
        settings = read_settings(environment)
        with Progress("migrating"):
            migrations.upgrade(settings.database_url, settings.schema)
        yield Ground(folder, environment, settings, server)


async def _create_databases(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute("CREATE EXTENSION pg_stat_statements")
    for name in (DATABASE, PGBENCH_DATABASE):
        await connection.execute(f"CREATE DATABASE {name}")
    await connection.close()


def _environment(folder: Path, database_url: str, workers: int) -> dict[str, str]:
    """Return the environment of the server process, and write the files that it names."""
    ring_file, private, public = (
        folder / name for name in ("key-ring.json", "private.pem", "public.pem")
    )
    write_private(ring_file, make_development_ring(now=utc_now()))
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = serialization.Encoding.PEM
    write_private(
        private,
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )
    public.write_bytes(
        key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return {
        "LC_ALL": "C.UTF-8",
        "YUANKA_ENVIRONMENT": "development",
        "YUANKA_DATABASE_URL": database_url,
        "YUANKA_SCHEMA": SCHEMA,
        "YUANKA_KEY_RING_FILE": str(ring_file),
        "YUANKA_PORT": str(_free_port()),
        "YUANKA_MANAGEMENT_PORT": str(_free_port()),
        "YUANKA_WORKERS": str(workers),
        "WECHAT_BASE_URL": NOBODY,
        "WECHAT_APP_ID": "wx-bench",
        "WECHAT_APP_SECRET": "not-a-secret",
        "WECHAT_PAY_BASE_URL": NOBODY,
        "WECHAT_PAY_MCH_ID": "1900000001",
        "WECHAT_PAY_MCH_SERIAL": "5157F09EFDC096DE15EBE81A47057A7232F1B8E1",
        "WECHAT_PAY_MCH_KEY_FILE": str(private),
        "WECHAT_PAY_API_V3_KEY": "0" * 32,
        "WECHAT_PAY_PUBLIC_KEY_ID": "PUB_KEY_ID_0116",
        "WECHAT_PAY_PUBLIC_KEY_FILE": str(public),
        "ALIPAY_GATEWAY_URL": f"{NOBODY}/gateway.do",
        "ALIPAY_APP_ID": "2021000000000001",
        "ALIPAY_APP_KEY_FILE": str(private),
        "ALIPAY_PUBLIC_KEY_FILE": str(public),
        "ALIPAY_SELLER_ID": "2088000000000001",
        "ALIPAY_AES_KEY": "AAAAAAAAAAAAAAAAAAAAAA==",
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@contextmanager
def running_server(ground: Ground) -> Iterator[int]:
    """Run `yuanka serve` until the block ends; give its process id once it is ready."""
    log = ground.folder / "serve.log"
    command = [sys.executable, "-m", "api.cli", "serve"]
    with log.open("wb") as errors:
        process = subprocess.Popen(  # noqa: S603  # our own command
            # Tied to us: kill -9 of the bench leaves no server behind.
            tied(command, Account("ourselves", os.geteuid(), os.getegid()), signal.SIGTERM),
            stdin=subprocess.DEVNULL,
            stdout=errors,
            stderr=errors,
            env=ground.environment,
            start_new_session=True,  # Ctrl-C is for us; we stop it when we have finished.
        )
    try:
        with Progress("starting the API"):
            _await_ready(process, ground)
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await_ready(process: subprocess.Popen[bytes], ground: Ground) -> None:
    url = f"http://{ground.settings.host}:{ground.settings.management_port}/readyz"
    began = monotonic()
    while monotonic() - began < START_SECONDS_MAX and process.poll() is None:
        try:
            if httpx.get(url, trust_env=False).is_success:
                return
        except httpx.TransportError:
            sleep(0.1)
    said = (ground.folder / "serve.log").read_text(errors="replace")[-2_000:]
    raise CannotStart(f"the API is not ready after {monotonic() - began:.0f} s:\n{said}")


async def seed(settings: Settings) -> seeding.City:
    """Make merchants, gates and parks."""
    made: list[seeding.City] = []
    async with open_services(settings, utc_now) as services:
        await seeding.seed_city(services, made.append, now=utc_now())
    return made[0]


async def make_phones(settings: Settings, count: int, *, has_pass: bool, title: str) -> list[Phone]:
    """Make that many cards with a phone and money, and with a pass for the first gate's park."""
    waiting, done = asyncio.Semaphore(AT_ONCE), 0
    async with open_services(settings, utc_now) as services:
        async with services.db.begin() as session:
            on_sale = await pass_types.on_sale(session)
        cheapest = min(on_sale, key=lambda one: one.price_fen) if has_pass else None

        async def one(progress: Progress) -> Phone:
            nonlocal done
            async with waiting:
                phone = await _make_phone(services, cheapest)
            done += 1
            progress.at(done, count)
            return phone

        with Progress(title) as progress:
            async with asyncio.timeout(START_SECONDS_MAX + count * CARD_SECONDS_MAX):
                return await asyncio.gather(*(one(progress) for _ in range(count)))


async def _make_phone(services: Services, pass_type: PassType | None) -> Phone:
    now = services.clock()
    person = ProviderPerson("wechat", "wx-bench", f"open-{secrets.token_hex(8)}", None)
    async with services.db.begin() as session:
        citizen_id, _ = await sign_ins.sign_in(session, person, now=now)
        session.add(seeding.decided_case(services, citizen_id, now))
    async with services.db.begin() as session:
        card = await cards.issue(session, citizen_id, card_type="standard", now=now)
    await make_recharge(services, citizen_id, card.id, amount_fen=BALANCE_FEN)
    if pass_type:
        await seeding.buy_pass(services, citizen_id, card.id, pass_type)
    return await seeding.bind_phone(services, card.id, services.clock())
