"""Is this process well: `/livez`, `/readyz`, `/metrics`, on the management address only.

The management address listens in the same loop as the API, so a stuck loop answers neither.
"""

import asyncio
from pathlib import Path

from alembic.config import Config
from alembic.script import ScriptDirectory
from litestar import Litestar, Response, get
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from sqlalchemy import text

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
    except (OSError, TimeoutError):
        return "database"
    return None if at == head else "migrations"


def migration_head() -> str:
    """Return the newest migration of this program."""
    config = Config(toml_file=str(ROOT / "pyproject.toml"))
    head = ScriptDirectory.from_config(config).get_current_head()
    assert head
    return head
