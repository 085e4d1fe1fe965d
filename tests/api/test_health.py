"""The management address: alive, ready or why not, and numbers for the watcher."""

from collections.abc import AsyncIterator

import asyncpg
import httpx
import pytest
from sqlalchemy import text

from api.health import management_app
from api.services import Services


@pytest.fixture
async def management(services: Services) -> AsyncIterator[httpx.AsyncClient]:
    """Return a client of the management address."""
    transport = httpx.ASGITransport(app=management_app(services))  # type: ignore[arg-type]  # Litestar's ASGI types are its own
    async with httpx.AsyncClient(transport=transport, base_url="http://management") as opened:
        yield opened


async def test_a_migrated_process_is_alive_and_ready(management: httpx.AsyncClient) -> None:
    assert (await management.get("/livez")).json() == {"state": "alive"}
    ready = await management.get("/readyz")
    assert (ready.status_code, ready.json()) == (200, {"state": "ready"})


async def test_a_program_older_or_newer_than_its_schema_is_not_ready(
    management: httpx.AsyncClient, services: Services
) -> None:
    async with services.db.begin() as session:
        await session.execute(text("UPDATE alembic_version SET version_num = 'another'"))
    answer = await management.get("/readyz")
    assert answer.status_code == 503
    assert answer.json() == {"state": "not-ready", "why": "migrations"}
    assert (await management.get("/livez")).status_code == 200


async def test_a_database_that_takes_no_writes_is_none(
    management: httpx.AsyncClient, services: Services
) -> None:
    async with services.db.begin() as session:
        name = await session.scalar(text("SELECT current_database()"))
        await session.execute(text(f"ALTER DATABASE {name} SET default_transaction_read_only = on"))
    await services.db.engine.dispose()
    answer = await management.get("/readyz")
    assert (answer.status_code, answer.json()["why"]) == (503, "database")


async def test_a_database_that_is_away_makes_it_not_ready_until_it_is_back(
    management: httpx.AsyncClient, services: Services, server_url: str
) -> None:
    async with services.db.begin() as session:
        name = await session.scalar(text("SELECT current_database()"))
    server = await asyncpg.connect(server_url)
    await server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    await server.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name
    )
    for _ in range(3):
        away = await management.get("/readyz")
        assert (away.status_code, away.json()["why"]) == (503, "database")
    assert (await management.get("/livez")).status_code == 200
    await server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    assert (await management.get("/readyz")).status_code == 200
    await server.close()


async def test_metrics_are_in_the_watchers_form(management: httpx.AsyncClient) -> None:
    answer = await management.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    assert b"python_info" in answer.content
