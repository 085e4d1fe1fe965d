"""Is this process well: `/livez`, `/readyz`, `/metrics`, on the management address only.

The management address listens in the same loop as the API, so a stuck loop answers neither.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import uvicorn
from alembic.config import Config
from alembic.script import ScriptDirectory
from litestar import Litestar, Response, get
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from api.services import Services

PROBE_SECONDS = 0.5
ROOT = Path(__file__).parent.parent


def management_app(services: Services) -> Litestar:
    """Return the application of the management address."""
    head = migration_head()

    @get("/livez", include_in_schema=False, sync_to_thread=False)
    def livez() -> dict[str, str]:
        return {"state": "alive"}

    @get("/readyz", include_in_schema=False)
    async def readyz() -> Response[dict[str, str]]:
        problem = await _problem(services, head)
        state = {"state": "ready"} if problem is None else {"state": "not-ready", "why": problem}
        return Response(state, status_code=200 if problem is None else 503)

    @get("/metrics", include_in_schema=False, sync_to_thread=False)
    def metrics() -> Response[bytes]:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return Litestar([livez, readyz, metrics], openapi_config=None, logging_config=None)


async def _problem(services: Services, head: str) -> str | None:
    """Return why requests should go elsewhere, or None."""
    try:
        async with asyncio.timeout(PROBE_SECONDS), services.db.begin() as session:
            # A write probe: a server that has become read-only takes no money.
            await session.execute(text("CREATE TEMP TABLE probe (at timestamptz) ON COMMIT DROP"))
            at = await session.scalar(text("SELECT version_num FROM alembic_version"))
    except (OSError, TimeoutError, SQLAlchemyError):
        return "database"
    return None if at == head else "migrations"


def migration_head() -> str:
    """Return the newest migration of this program."""
    config = Config(toml_file=str(ROOT / "pyproject.toml"))
    head = ScriptDirectory.from_config(config).get_current_head()
    assert head
    return head


class _Quiet(uvicorn.Server):
    """A server inside another one: signals are the outer one's."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield


@asynccontextmanager
async def listening(services: Services) -> AsyncIterator[None]:
    """Serve the management address while the block runs, in this very loop.

    Every worker process listens on the same port; the system gives each probe to one of them.
    """
    settings = services.settings
    with socket.socket() as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind((settings.host, settings.management_port))
        config = uvicorn.Config(
            management_app(services), log_config=None, access_log=False, lifespan="on", ws="none"
        )
        server = _Quiet(config)
        task = asyncio.create_task(server.serve(sockets=[bound]), name="management")
        try:
            yield
        finally:
            server.should_exit = True
            await task
