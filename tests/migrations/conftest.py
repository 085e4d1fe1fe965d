"""Databases that nothing was migrated in yet."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import asyncpg
import pytest

from identity.kernel import new_id
from tests.conftest import url_of


@pytest.fixture
async def empty_database_url(server_url: str) -> AsyncIterator[str]:
    """Return the address of a database of this test's own, with nothing in it."""
    name = f"empty_{new_id(datetime.now(UTC)).hex}"
    connection = await asyncpg.connect(server_url)
    await connection.execute(f"CREATE DATABASE {name}")
    yield url_of(server_url, name)
    await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await connection.close()
