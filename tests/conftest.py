"""A real PostgreSQL for every test: one server per run, one database per test, copied at once.

The server is the embedded one, or the one that YUANKA_DATABASE_URL names. It is started by the
process that runs pytest; xdist's workers are told where it is.
"""

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import httpx
import pytest
import structlog
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from api import migrations
from api.app import create_app
from api.embedded_postgres import EmbeddedPostgres
from api.logs import configure_logs
from api.services import Services, open_services
from api.settings import Alipay, Settings, WeChat, WeChatPay
from identity.kernel import new_id
from identity.sealing import make_development_ring
from tests.documented import check_documented
from tests.papers import Papers, draw_papers
from tests.serving import Live, environment_of, free_port, serving
from tests.simulators.running import Simulators, start_simulators

SCHEMA = "city"
TEMPLATE = "yuanka_template"
AUTHORITY = "city.test:8000"
SERVER_KEY = pytest.StashKey[EmbeddedPostgres]()
FOLDER_KEY = pytest.StashKey[Path]()
URL_KEY = pytest.StashKey[str]()


def pytest_configure(config: pytest.Config) -> None:
    """Start the server once, in the process that the person started."""
    # As in production, for the default prints a fault with all its locals and takes seconds.
    configure_logs()
    structlog.configure(cache_logger_on_first_use=False)
    if hasattr(config, "workerinput"):
        config.stash[URL_KEY] = config.workerinput["server_url"]
        return
    if config.option.collectonly or config.option.help:
        return
    given = os.environ.get("YUANKA_DATABASE_URL")
    if given is None:
        # Not pytest's own folder, which a server that must not run as root cannot enter.
        folder = Path(tempfile.mkdtemp(prefix="yuanka-tests-"))
        folder.chmod(0o755)
        # A test that wants a crash starts a server of its own; here nothing has to outlive one.
        quick = {"max_connections": "200", "fsync": "off", "full_page_writes": "off"}
        server = EmbeddedPostgres(folder / "postgres", settings=quick)
        config.stash[SERVER_KEY], config.stash[FOLDER_KEY] = server, folder
        given = server.start()
    config.stash[URL_KEY] = given


def pytest_configure_node(node: object) -> None:
    """Tell a worker of xdist where the server is."""
    node.workerinput["server_url"] = node.config.stash[URL_KEY]  # type: ignore[attr-defined]  # xdist has no types


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the server and remove what it wrote."""
    server = config.stash.get(SERVER_KEY, None)
    if server:
        server.stop()
        shutil.rmtree(config.stash[FOLDER_KEY], ignore_errors=True)


def url_of(server_url: str, database: str) -> str:
    """Return the address of another database on the same server."""
    head, _, tail = server_url.partition("?")
    base = head.rsplit("/", 1)[0] + f"/{database}"
    return f"{base}?{tail}" if tail else base


@pytest.fixture(scope="session")
def server_url(pytestconfig: pytest.Config) -> str:
    """Return the address of the server's own database."""
    return pytestconfig.stash[URL_KEY]


@pytest.fixture(scope="session")
def template(server_url: str, worker_id: str) -> str:
    """Return the name of a migrated database that is copied for every test."""
    import asyncio

    name = f"{TEMPLATE}_{worker_id}"

    async def recreate() -> None:
        connection = await asyncpg.connect(server_url)
        await connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        await connection.execute(f"CREATE DATABASE {name}")
        await connection.close()

    asyncio.run(recreate())
    migrations.upgrade(url_of(server_url, name), SCHEMA)
    return name


@pytest.fixture
async def database_url(server_url: str, template: str) -> AsyncIterator[str]:
    """Return the address of this test's own migrated database."""
    name = f"test_{new_id(datetime.now(UTC)).hex}"
    connection = await asyncpg.connect(server_url)
    await connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    yield url_of(server_url, name)
    await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await connection.close()


class SetClock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 22, 3, 30, 2, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def go(self, **span: float) -> None:
        """Move on, as in `clock.go(seconds=15)`."""
        self.now += timedelta(**span)


@pytest.fixture
def clock() -> SetClock:
    """Return a clock of this test, at 11:30:02 on a Sunday in Wuxi."""
    return SetClock()


class ProviderKeys:
    """Key files for channels that a test never calls."""

    def __init__(self, folder: Path) -> None:
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.private, self.public = folder / "private.pem", folder / "public.pem"
        self.private.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        self.public.write_bytes(
            key.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        )


@pytest.fixture(scope="session")
def provider_keys(tmp_path_factory: pytest.TempPathFactory) -> ProviderKeys:
    """Return key files that are good for nothing but to be read."""
    return ProviderKeys(tmp_path_factory.mktemp("provider-keys"))


@pytest.fixture(scope="session")
def key_ring_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a development key ring that is valid whenever a test takes place."""
    path = tmp_path_factory.mktemp("keys") / "key-ring.json"
    path.touch(mode=0o600)
    path.write_bytes(make_development_ring(now=SetClock().now))
    return path


@pytest.fixture
def settings(database_url: str, key_ring_file: Path, provider_keys: ProviderKeys) -> Settings:
    """Return settings of a process whose providers do not answer."""
    nobody = "http://127.0.0.1:9"
    return Settings(
        environment="development",
        database_url=database_url,
        schema=SCHEMA,
        key_ring_file=key_ring_file,
        authority=AUTHORITY,
        wechat=WeChat(base_url=nobody, app_id="wx-test", app_secret="not-a-secret"),
        wechat_pay=WeChatPay(
            base_url=nobody,
            mch_id="1900000001",
            mch_serial="5157F09EFDC096DE15EBE81A47057A7232F1B8E1",
            mch_key_file=provider_keys.private,
            api_v3_key="0" * 32,
            public_key_id="PUB_KEY_ID_0116",
            public_key_file=provider_keys.public,
        ),
        alipay=Alipay(
            gateway_url=f"{nobody}/gateway.do",
            app_id="2021000000000001",
            app_key_file=provider_keys.private,
            public_key_file=provider_keys.public,
            seller_id="2088000000000001",
            aes_key="AAAAAAAAAAAAAAAAAAAAAA==",
        ),
    )


@pytest.fixture
async def services(settings: Settings, clock: SetClock) -> AsyncIterator[Services]:
    """Return what a process holds, on this test's database."""
    async with open_services(settings, clock) as opened:
        yield opened


@pytest.fixture
async def client(services: Services, clock: SetClock) -> AsyncIterator[httpx.AsyncClient]:
    """Return an HTTP client of the application, in process."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[Services]:
        yield services

    app = create_app(opened, clock, has_page=True)
    async with app.lifespan():
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)  # type: ignore[arg-type]  # Litestar's ASGI types are its own
        async with httpx.AsyncClient(
            transport=transport,
            base_url=f"http://{AUTHORITY}",
            event_hooks={"response": [check_documented]},
        ) as opened_client:
            yield opened_client


@pytest.fixture(scope="session")
def simulators(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulators]:
    """Run the providers' simulators, fifty times as fast as the providers."""
    with start_simulators(tmp_path_factory.mktemp("simulators"), time_scale=0.02) as running:
        yield running


@pytest.fixture(scope="session")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    """Return the papers of one made-up adult."""
    return draw_papers(tmp_path_factory.mktemp("papers"))


@pytest.fixture
async def live(
    database_url: str, simulators: Simulators, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Live]:
    """Serve the application on this test's database, with the simulators as its providers."""
    environment = environment_of(
        simulators,
        database_url=database_url,
        schema=SCHEMA,
        folder=tmp_path_factory.mktemp("live"),
        port=free_port(),
    )
    async with serving(environment, simulators) as running:
        yield running


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Run async tests on asyncio alone: the database driver knows no other loop."""
    return "asyncio"
