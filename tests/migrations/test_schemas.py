"""One issuer is one schema: two in one database know nothing of each other, and none is named."""

import ast
import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest
from sqlalchemy import text

from api import migrations
from identity.kernel import Database, defer, new_id
from tests.conftest import SetClock
from tests.house.sources import PRODUCT, ROOT, name_of, python_files, tree_of
from wallet import invariants
from wallet.admission import parks

UNUSUAL = ("order", "user", "a", "x" * 63)
"""Words of SQL, and the longest and shortest names: all that Settings allows is a schema."""


@asynccontextmanager
async def _opened(url: str, schema: str) -> AsyncIterator[Database]:
    db = await Database.open(url, schema=schema, connections_max=2)
    try:
        yield db
    finally:
        await db.close()


async def _count(db: Database, table: str) -> int:
    async with db.begin() as session:
        return int(await session.scalar(text(f"SELECT count(*) FROM {table}")) or 0)


async def _upgrade(url: str, *schemas: str) -> None:
    for schema in schemas:
        await asyncio.to_thread(migrations.upgrade, url, schema)


async def test_two_issuers_in_one_database_are_independent(
    empty_database_url: str, clock: SetClock
) -> None:
    await _upgrade(empty_database_url, "wuxi", "suzhou")
    async with (
        _opened(empty_database_url, "wuxi") as wuxi,
        _opened(empty_database_url, "suzhou") as suzhou,
    ):
        async with wuxi.begin() as session:
            parks.add(
                session,
                name="锡惠公园",
                name_en="Xihui Park",
                opens_minute=0,
                closes_minute=1440,
                now=clock(),
            )
            await defer(session, "tests:nothing", subject_id=str(new_id(clock())))
        counts = [
            (await _count(db, "admission_park"), await _count(db, "procrastinate_jobs"))
            for db in (wuxi, suzhou)
        ]
        assert counts == [(1, 1), (0, 0)]
        for db in (wuxi, suzhou):
            assert await _count(db, "ledger_account") == 4
            assert not any(proof.faults for proof in await invariants.prove(db))


async def test_each_issuer_has_tables_of_its_own(empty_database_url: str) -> None:
    await _upgrade(empty_database_url, "wuxi", "suzhou")
    connection = await asyncpg.connect(empty_database_url)
    rows = await connection.fetch(
        "SELECT table_schema, table_name FROM information_schema.tables"
        " WHERE table_schema IN ('wuxi', 'suzhou', 'public')"
    )
    await connection.close()
    tables: dict[str, set[str]] = {"wuxi": set(), "suzhou": set()}
    for row in rows:
        tables[row["table_schema"]].add(row["table_name"])
    assert tables["wuxi"] == tables["suzhou"]
    wanted = {"alembic_version", "ledger_account", "procrastinate_jobs", "request_number"}
    assert wanted <= tables["wuxi"]


async def test_models_are_compared_with_the_right_schema(empty_database_url: str) -> None:
    await _upgrade(empty_database_url, "wuxi", "suzhou")
    for schema in ("wuxi", "suzhou"):
        await asyncio.to_thread(migrations.check, empty_database_url, schema)


async def test_one_issuers_migration_leaves_the_other_alone(empty_database_url: str) -> None:
    await _upgrade(empty_database_url, "wuxi")
    connection = await asyncpg.connect(empty_database_url)
    await connection.execute("DROP TABLE wuxi.request_number")
    await connection.close()
    await _upgrade(empty_database_url, "suzhou")
    async with _opened(empty_database_url, "suzhou") as suzhou:
        assert await _count(suzhou, "request_number") == 0


@pytest.mark.parametrize("schema", UNUSUAL)
async def test_any_name_that_the_settings_allow_is_a_schema(
    empty_database_url: str, schema: str, clock: SetClock
) -> None:
    await _upgrade(empty_database_url, schema)
    await asyncio.to_thread(migrations.check, empty_database_url, schema)
    async with _opened(empty_database_url, schema) as db:
        async with db.begin() as session:
            await defer(session, "tests:nothing", subject_id=str(new_id(clock())))
        assert await _count(db, "procrastinate_jobs") == 1
        assert await db.pool.fetchval("SELECT current_schema()") == schema


QUALIFIED = re.compile(
    r"(?<!DISTINCT )\b(?:FROM|JOIN|INTO|UPDATE|TABLE|REFERENCES|FUNCTION)\s+(?:ONLY\s+)?"
    r'"?[a-z_]+"?\."?[a-z_]+"?'
)


def _strings(tree: ast.AST) -> list[str]:
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]


def test_no_statement_names_a_schema() -> None:
    # Only SQL is looked at: a sentence of a docstring has no `FROM a.b` in upper case.
    found = [
        f"{name_of(path)}: {match[0]}"
        for path in python_files(*PRODUCT, "alembic")
        for string in _strings(tree_of(path))
        for match in QUALIFIED.finditer(string)
    ]
    assert found == []


def test_no_model_or_migration_names_a_schema() -> None:
    found = [
        f"{name_of(path)}:{node.value.lineno}"
        for path in python_files("identity", "wallet", "alembic")
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.keyword) and node.arg in {"schema", "source_schema"}
        if name_of(path) != "alembic/env.py"
    ]
    assert found == []
    assert (ROOT / "alembic" / "env.py").read_text().count("SCHEMA") == 1
