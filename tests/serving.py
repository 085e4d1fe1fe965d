"""The application as a server: real HTTP on loopback, running simulators, the real clock."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
import uvicorn

from api.app import create_app
from api.clock import utc_now
from api.services import Services, open_services
from api.settings import Settings, read_settings
from api.worker import make_app
from identity.sealing import make_development_ring
from tests.documented import check_documented
from tests.simulators.running import Simulators


class Live(NamedTuple):
    """A running server, and a client of it."""

    settings: Settings
    services: Services
    http: httpx.AsyncClient
    simulators: Simulators


class _Inside(uvicorn.Server):
    """A server inside a test: signals are pytest's."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield


def environment_of(
    simulators: Simulators, *, database_url: str, schema: str, folder: Path, port: int
) -> dict[str, str]:
    """Return the environment of a server on this port, with a key ring made today."""
    ring = folder / "key-ring.json"
    if not ring.exists():
        ring.touch(mode=0o600)
        ring.write_bytes(make_development_ring(now=utc_now()))
    return {
        **simulators.env,
        "YUANKA_ENVIRONMENT": "development",
        "YUANKA_DATABASE_URL": database_url,
        "YUANKA_SCHEMA": schema,
        "YUANKA_KEY_RING_FILE": str(ring),
        "YUANKA_PORT": str(port),
    }


@asynccontextmanager
async def serving(environment: dict[str, str], simulators: Simulators) -> AsyncIterator[Live]:
    """Serve in this loop, on the port that the environment names, until the block ends."""
    settings = read_settings(environment)
    with socket.create_server(("127.0.0.1", settings.port)) as bound:
        async with open_services(settings, utc_now) as services:

            @asynccontextmanager
            async def opened() -> AsyncIterator[Services]:
                yield services

            app = create_app(opened, utc_now, has_page=False)
            config = uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                lifespan="on",
                ws="none",
                # Longer than any test, or a client would meet a connection just being closed.
                timeout_keep_alive=600,
                timeout_graceful_shutdown=1,
            )
            server = _Inside(config)
            task = asyncio.create_task(server.serve(sockets=[bound]))
            try:
                while not server.started:  # noqa: ASYNC110  # it has no event to wait for
                    await asyncio.sleep(0.005)
                async with client_of(settings.port) as http:
                    yield Live(settings, services, http, simulators)
            finally:
                server.should_exit = True
                await task


@asynccontextmanager
async def client_of(port: int) -> AsyncIterator[httpx.AsyncClient]:
    """Open a client that holds every answer against the documentation."""
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{port}",
        trust_env=False,
        timeout=20,
        event_hooks={"response": [check_documented]},
    ) as http:
        yield http


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def work(services: Services, *due: str) -> None:
    """Run every waiting job and, of those by the clock, the ones named."""
    app = make_app(services)
    async with app.open_async():
        for name in due:
            await app.tasks[name].defer_async(timestamp=0)
        await app.run_worker_async(
            wait=False, install_signal_handlers=False, listen_notify=False, concurrency=1
        )
