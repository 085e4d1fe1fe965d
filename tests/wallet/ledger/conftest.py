from collections.abc import AsyncIterator

import pytest

from identity.kernel import Database
from tests.conftest import SCHEMA
from tests.wallet.ledger.booking import Office
from wallet.ledger.posting import Poster


@pytest.fixture
async def office(database_url: str) -> AsyncIterator[Office]:
    """Return a database and its writer, and nothing else of a process."""
    db = await Database.open(database_url, schema=SCHEMA)
    async with Poster(db) as poster:
        yield Office(db, poster)
    await db.close()
