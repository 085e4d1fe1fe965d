"""From nothing to the newest schema, which is what the models say; and again, changing nothing."""

import asyncio

import asyncpg
import pytest

from api import migrations
from api.health import migration_head

SCHEMA = "wuxi"

SHAPE = """
SELECT c.relname, c.relkind::text, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE n.nspname = $1 ORDER BY 1, 2, 3"""


async def _upgrade(url: str, schema: str = SCHEMA) -> None:
    await asyncio.to_thread(migrations.upgrade, url, schema)


async def test_an_empty_database_reaches_the_newest_schema(empty_database_url: str) -> None:
    await _upgrade(empty_database_url)
    connection = await asyncpg.connect(empty_database_url)
    at = await connection.fetchval(f"SELECT version_num FROM {SCHEMA}.alembic_version")
    await connection.close()
    assert at == migration_head()


async def test_the_migrated_schema_is_what_the_models_say(empty_database_url: str) -> None:
    await _upgrade(empty_database_url)
    await asyncio.to_thread(migrations.check, empty_database_url, SCHEMA)


async def test_upgrading_again_changes_nothing(empty_database_url: str) -> None:
    await _upgrade(empty_database_url)
    connection = await asyncpg.connect(empty_database_url)
    before = await connection.fetch(SHAPE, SCHEMA)
    accounts = await connection.fetch(f"SELECT * FROM {SCHEMA}.ledger_account ORDER BY id")
    await _upgrade(empty_database_url)
    assert await connection.fetch(SHAPE, SCHEMA) == before
    again = await connection.fetch(f"SELECT * FROM {SCHEMA}.ledger_account ORDER BY id")
    await connection.close()
    assert again == accounts
    assert len(before) > 100


async def test_the_city_has_its_accounts_from_the_start(empty_database_url: str) -> None:
    await _upgrade(empty_database_url)
    connection = await asyncpg.connect(empty_database_url)
    rows = await connection.fetch(
        f"SELECT kind, floor_fen, balance_fen FROM {SCHEMA}.ledger_account ORDER BY kind"
    )
    await connection.close()
    from wallet.ledger.chart import CHART

    wanted = {kind.value: rule.floor_fen for kind, rule in CHART.items() if rule.owner == "city"}
    assert {row["kind"]: row["floor_fen"] for row in rows} == wanted
    assert all(row["balance_fen"] == 0 for row in rows)


async def test_the_first_schema_is_not_taken_back(empty_database_url: str) -> None:
    await _upgrade(empty_database_url)
    with pytest.raises(RuntimeError, match="drop the schema"):
        await asyncio.to_thread(migrations.downgrade, empty_database_url, SCHEMA, "base")


@pytest.mark.parametrize(
    ("table", "change"),
    [
        ("ledger_transfer", "SET kind = kind"),
        ("ledger_entry", "SET amount_fen = amount_fen"),
        ("identity_audit", "SET act = act"),
        ("codes_use", "SET used_by = used_by"),
    ],
)
async def test_records_are_guarded(empty_database_url: str, table: str, change: str) -> None:
    await _upgrade(empty_database_url)
    connection = await asyncpg.connect(empty_database_url)
    await connection.execute(f"SET search_path TO {SCHEMA}")
    # What is guarded is every row; one is made by hand, whatever else it would need.
    await connection.execute("SET session_replication_role = replica")
    await _insert(connection, table)
    await connection.execute("SET session_replication_role = origin")
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="never changed"):
        await connection.execute(f"UPDATE {table} {change}")
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="never changed"):
        await connection.execute(f"DELETE FROM {table}")
    await connection.close()


VALUE_OF_TYPE = {
    "uuid": "gen_random_uuid()",
    "text": "'charge'",
    "bytea": "'\\x00'::bytea",
    "bigint": "1",
    "integer": "1",
    "smallint": "1",
    "jsonb": "'{}'::jsonb",
    "timestamp with time zone": "now()",
}


async def _insert(connection: asyncpg.Connection, table: str) -> None:
    columns = await connection.fetch(
        "SELECT column_name, data_type FROM information_schema.columns"
        " WHERE table_schema = $1 AND table_name = $2",
        SCHEMA,
        table,
    )
    names = ", ".join(row["column_name"] for row in columns)
    values = ", ".join(VALUE_OF_TYPE[row["data_type"]] for row in columns)
    await connection.execute(f"INSERT INTO {table} ({names}) VALUES ({values})")
