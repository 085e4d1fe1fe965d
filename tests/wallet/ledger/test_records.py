"""Records are appended: whatever the code above does, the database changes and deletes none."""

import pytest
from asyncpg import InsufficientPrivilegeError

from api.services import Services
from tests.makers import make_holder, make_shop
from tests.wallet.verbs import show, take

RECORDS = {
    "ledger_transfer": "posted_at = now()",
    "ledger_entry": "amount_fen = amount_fen + 1",
    "identity_audit": "at = now()",
    "codes_use": "used_at = now()",
}


async def test_no_record_can_be_changed_deleted_or_swept_away(services: Services) -> None:
    holder, shop = await make_holder(services, balance_fen=500), await make_shop(services)
    await take(services, shop, await show(services, holder), amount_fen=5)
    for table, change in RECORDS.items():
        rows = await services.db.pool.fetchval(f"SELECT count(*) FROM {table}")
        assert rows, f"{table} has nothing to protect yet"
        for sql in (f"UPDATE {table} SET {change}", f"DELETE FROM {table}"):
            with pytest.raises(InsufficientPrivilegeError):
                await services.db.pool.execute(sql)
        with pytest.raises(InsufficientPrivilegeError):
            await services.db.pool.execute(f"TRUNCATE {table} CASCADE")
        assert await services.db.pool.fetchval(f"SELECT count(*) FROM {table}") == rows
