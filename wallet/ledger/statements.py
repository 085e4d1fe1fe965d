"""The SQL that `posting` sends: one claim, one lock per table, one write, each for a whole batch.

Raw SQL, built once per shape from the mapped tables; names are ours, values are parameters.
"""

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from sqlalchemy import (
    TIMESTAMP,
    BigInteger,
    Boolean,
    Column,
    Date,
    Integer,
    LargeBinary,
    SmallInteger,
    Table,
    Text,
    Uuid,
)
from sqlalchemy.dialects.postgresql import JSONB

from wallet.ledger.plans import Lockable

CLAIM = """
INSERT INTO request_number
    (scope, owner_id, number, request_hash, subject_id, outcome, created_at)
SELECT u.scope, u.owner_id, u.number, u.request_hash, u.subject_id, NULL, u.created_at
FROM unnest($1::text[], $2::uuid[], $3::text[], $4::bytea[], $5::uuid[], $6::timestamptz[])
    AS u(scope, owner_id, number, request_hash, subject_id, created_at)
ORDER BY u.scope, u.owner_id, u.number
ON CONFLICT DO NOTHING
RETURNING scope, owner_id, number"""

KEPT = """
SELECT r.scope, r.owner_id, r.number, r.request_hash, r.subject_id, r.outcome
FROM unnest($1::text[], $2::uuid[], $3::text[]) AS u(scope, owner_id, number)
JOIN request_number r USING (scope, owner_id, number)"""

_KEEP_OUTCOME = """
UPDATE request_number r SET outcome = u.outcome::jsonb
FROM unnest({}::text[], {}::uuid[], {}::text[], {}::text[])
    AS u(scope, owner_id, number, outcome)
WHERE (r.scope, r.owner_id, r.number) = (u.scope, u.owner_id, u.number)"""

_FREE_NUMBER = """
DELETE FROM request_number r USING unnest({}::text[], {}::uuid[], {}::text[])
    AS u(scope, owner_id, number)
WHERE (r.scope, r.owner_id, r.number) = (u.scope, u.owner_id, u.number)"""

_DEFER = """
SELECT procrastinate_defer_jobs_v1(array_agg(
    ROW('default', u.name, 0, NULL, NULL, u.arguments::jsonb, u.at)::procrastinate_job_to_defer_v1))
FROM unnest({}::text[], {}::text[], {}::timestamptz[]) AS u(name, arguments, at)"""

_TYPE_NAMES = (
    (JSONB, "jsonb"),
    (SmallInteger, "smallint"),
    (BigInteger, "bigint"),
    (Integer, "integer"),
    (Text, "text"),
    (Uuid, "uuid"),
    (LargeBinary, "bytea"),
    (TIMESTAMP, "timestamptz"),
    (Date, "date"),
    (Boolean, "boolean"),
)


def type_name(column: Column[Any]) -> str:
    """Return PostgreSQL's name for a column's type."""
    for kind, name in _TYPE_NAMES:
        if isinstance(column.type, kind):
            return name
    raise AssertionError(f"posting cannot write {column}: {column.type!r}")


@cache
def lock(lockable: Lockable[Any]) -> str:
    """Return the statement that locks and reads rows in key order; $1 is the list of keys."""
    if lockable.reads:
        return lockable.reads
    key_type = type_name(lockable.table.c[lockable.key])
    return (
        f"SELECT {', '.join(lockable.fields)} FROM {lockable.table.name}"  # noqa: S608
        f" WHERE {lockable.key} = ANY($1::{key_type}[]) ORDER BY {lockable.key} FOR NO KEY UPDATE"
    )


class Write:
    """One statement that writes everything a batch decided, as parts with their parameters."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._parameters: list[Sequence[Any]] = []
        self._last = "SELECT 1"

    def _place(self, values: Sequence[Any]) -> str:
        self._parameters.append(values)
        return f"${len(self._parameters)}"

    def _unnest(self, table: Table, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
        """Return `unnest(…)` over the rows, column by column."""
        types = [type_name(table.c[name]) for name in columns]
        places = [
            # A list of JSON travels as text: the driver has no codec for arrays of jsonb.
            f"{self._place(values)}::{'text' if kind == 'jsonb' else kind}[]"
            for values, kind in zip(zip(*rows, strict=True), types, strict=True)
        ]
        return f"unnest({', '.join(places)}) AS u({', '.join(columns)})"

    def insert(self, table: Table, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Add rows to a table."""
        self._parts.append(
            f"INSERT INTO {table.name} ({', '.join(columns)})"  # noqa: S608
            f" SELECT {', '.join(_casts(table, columns))}"
            f" FROM {self._unnest(table, columns, rows)}"
        )

    def change(self, lockable: Lockable[Any], rows: Iterable[Any]) -> None:
        """Write locked rows back, or make those that were not there yet."""
        table, key = lockable.table, lockable.key
        if lockable.may_be_absent:
            fields = lockable.fields
            self.insert(table, fields, [[getattr(row, name) for name in fields] for row in rows])
            sets = ", ".join(f"{name} = EXCLUDED.{name}" for name in lockable.writes)
            self._parts[-1] += f" ON CONFLICT ({key}) DO UPDATE SET {sets}"
            return
        columns = (key, *lockable.writes)
        values = [[getattr(row, name) for name in columns] for row in rows]
        sets = ", ".join(
            f"{name} = {cast}"
            for name, cast in zip(lockable.writes, _casts(table, lockable.writes), strict=True)
        )
        self._parts.append(
            f"UPDATE {table.name} t SET {sets}"  # noqa: S608
            f" FROM {self._unnest(table, columns, values)} WHERE t.{key} = u.{key}"
        )

    def keep_outcomes(self, rows: Sequence[Sequence[Any]]) -> None:
        """Store what a request number repeats: (scope, owner, number, JSON text)."""
        self._parts.append(_KEEP_OUTCOME.format(*map(self._place, zip(*rows, strict=True))))

    def free_numbers(self, rows: Sequence[Sequence[Any]]) -> None:
        """Give request numbers back: (scope, owner, number)."""
        self._parts.append(_FREE_NUMBER.format(*map(self._place, zip(*rows, strict=True))))

    def defer(self, rows: Sequence[Sequence[Any]]) -> None:
        """Enqueue jobs: (name, JSON text of the arguments, not before)."""
        # Not a part: a part that only selects would not be run.
        self._last = _DEFER.format(*map(self._place, zip(*rows, strict=True)))

    def statement(self) -> tuple[str, list[Sequence[Any]]]:
        """Return the SQL and its parameters; empty where nothing is to be written."""
        if not self._parts:
            return "", []
        # Foreign keys between the parts hold: PostgreSQL checks them when the statement ends.
        parts = ", ".join(f"w{number} AS ({part})" for number, part in enumerate(self._parts))
        return f"WITH {parts} {self._last}", self._parameters


def _casts(table: Table, columns: Sequence[str]) -> list[str]:
    return [
        f"u.{name}::jsonb" if isinstance(table.c[name].type, JSONB) else f"u.{name}"
        for name in columns
    ]
