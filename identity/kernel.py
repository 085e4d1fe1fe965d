"""What identity and wallet both stand on: tables, ids, days, refusals, the database, jobs.

No business word lives here, and nothing of ours is imported.
"""

import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import date, datetime, timedelta, timezone
from typing import Any, ClassVar, Generic, NamedTuple, Self, TypeVar
from uuid import UUID

import asyncpg
from sqlalchemy import TIMESTAMP, BigInteger, Date, LargeBinary, MetaData, Text, Uuid, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import DeclarativeBase, MappedAsDataclass

Key = TypeVar("Key")
Value = TypeVar("Value")

SHANGHAI = timezone(timedelta(hours=8), "Asia/Shanghai")
"""Business days are days of this zone. A fixed offset: China has kept no summer time since 1991."""

CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

LOCK_TIMEOUT_MS = 2_000
"""How long a statement waits for another's lock before the caller is told to come again."""

STATEMENT_TIMEOUT_MS = 10_000


class Base(MappedAsDataclass, DeclarativeBase, kw_only=True):
    """Every table. A verb passes every value: columns have no defaults."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        int: BigInteger,
        str: Text,
        bytes: LargeBinary,
        UUID: Uuid,
        date: Date,
        datetime: TIMESTAMP(timezone=True),
        dict[str, Any]: JSONB,
        list[str]: JSONB,
    }


class Said(NamedTuple):
    """One sentence in both languages."""

    zh: str
    en: str


class Refusal(Exception):
    """An expected no. One class per refusal, beside the verb that says it.

    A refusal carries a code for machines, a sentence for people, and what they can do next.
    Facts become members of the problem document: ids and amounts, never personal data.
    """

    code: ClassVar[str]
    status: ClassVar[int]
    title: ClassVar[Said]
    next_step: ClassVar[Said]
    retryable: ClassVar[bool] = False
    by_code: ClassVar[dict[str, type["Refusal"]]] = {}

    def __init_subclass__(cls) -> None:
        """Enter the refusal in the one list that docs and stored refusals are read from."""
        super().__init_subclass__()
        assert cls.code not in Refusal.by_code, f"two refusals are called {cls.code}"
        Refusal.by_code[cls.code] = cls

    def __init__(self, **facts: str | int | list[str]) -> None:
        super().__init__(self.code)
        self.facts = facts
        self.is_replayed = False

    def stored(self) -> dict[str, Any]:
        """Return what a request number keeps of this refusal."""
        return {"code": self.code, "facts": self.facts}

    @staticmethod
    def replayed(stored: dict[str, Any]) -> "Refusal":
        """Return the refusal that a request number kept, marked as a repeat."""
        refusal = Refusal.by_code[stored["code"]](**stored["facts"])
        refusal.is_replayed = True
        return refusal


class NotFound(Refusal):
    """There is no such thing, or it is not the caller's: the two look alike on purpose."""

    code, status = "not-found", 404
    title = Said("没有找到", "Not found")
    next_step = Said(
        "请检查编号，或返回列表重新选择。", "Check the id, or choose again in the list."
    )


class StateConflict(Refusal):
    """The thing is in a state that does not allow this move (ledger.md C.5)."""

    code, status = "state-conflict", 409
    title = Said("当前状态不允许此操作", "The current state does not allow this")
    next_step = Said("请刷新后查看最新状态。", "Refresh and look at the current state.")


def new_id(now: datetime) -> UUID:
    """Return a UUIDv7 (RFC 9562) made at `now`: 48 bits of milliseconds, 74 random bits."""
    milliseconds = int(now.timestamp() * 1000)
    random_bits = secrets.randbits(74)
    return UUID(
        int=(milliseconds << 80)
        | (0x7 << 76)
        | ((random_bits >> 62) << 64)
        | (0b10 << 62)
        | (random_bits & ((1 << 62) - 1))
    )


def number_of(prefix: str, row_id: UUID) -> str:
    """Return the number people see for a row: prefix and its id as 26 Crockford characters.

    Letters and digits only, at most 32: legal as an order number at WeChat, Alipay and UnionPay.
    """
    return prefix + "".join(CROCKFORD[(row_id.int >> shift) & 31] for shift in range(125, -1, -5))


def business_date(now: datetime) -> date:
    """Return the business date (Asia/Shanghai) that `now` falls on."""
    return now.astimezone(SHANGHAI).date()


def start_of(day: date) -> datetime:
    """Return the instant at which a business date begins."""
    return datetime(day.year, day.month, day.day, tzinfo=SHANGHAI)


class Database:
    """The two ways to one issuer's schema: sessions for most, a raw pool for the hot paths.

    Nothing names the schema: the search path of every connection does (database.md, decision 4).
    """

    def __init__(self, engine: AsyncEngine, pool: asyncpg.Pool, dsn: str, settings: dict[str, str]):
        self.engine, self.pool, self.dsn, self.settings = engine, pool, dsn, settings
        self._sessions = async_sessionmaker(engine, expire_on_commit=False)

    @classmethod
    async def open(cls, dsn: str, *, schema: str, connections_max: int = 10) -> Self:
        """Connect to `dsn` (postgresql://…) with every connection inside `schema`."""
        settings = {
            "search_path": schema,
            "lock_timeout": str(LOCK_TIMEOUT_MS),
            "statement_timeout": str(STATEMENT_TIMEOUT_MS),
            "idle_in_transaction_session_timeout": str(STATEMENT_TIMEOUT_MS),
            "timezone": "UTC",
        }
        engine = create_async_engine(
            dsn.replace("postgresql://", "postgresql+asyncpg://", 1),
            pool_size=connections_max,
            max_overflow=0,
            pool_timeout=5,
            connect_args={"server_settings": settings},
        )
        pool = await _pool(
            dsn,
            min_size=1,
            max_size=connections_max,
            server_settings=settings,
            # A dead link must not hold the one writer of a process for ever.
            command_timeout=STATEMENT_TIMEOUT_MS / 1000 + 2,
            # The hot paths leave nothing behind on a connection, so it goes back as it is: the
            # driver's own reset would be one more round trip for every use.
            reset=_leave_as_it_is,
        )
        return cls(engine, pool, dsn, settings)

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncSession]:
        """Open a transaction; it commits at the end of the block, or leaves nothing behind."""
        async with self._sessions.begin() as session:
            yield session

    async def close(self) -> None:
        """Give every connection back."""
        await self.pool.close()
        await self.engine.dispose()


class CannotReach(Exception):
    """No database answers where the settings say; the text says what to look at."""


async def _pool(dsn: str, **options: Any) -> asyncpg.Pool:
    try:
        pool: asyncpg.Pool = await asyncpg.create_pool(dsn, **options)
    except (OSError, asyncpg.exceptions.PostgresConnectionError) as problem:
        raise CannotReach(
            f"no database answers ({problem.__class__.__name__});"
            " is the demo running, or is YUANKA_DATABASE_URL wrong?"
        ) from problem
    return pool


async def _leave_as_it_is(_: asyncpg.Connection) -> None:
    """Return a connection to the pool without a word."""


class TimedCache(Generic[Key, Value]):
    """What this process read at most `seconds` ago; absent things are not remembered.

    A flood of made-up keys so costs reads but pushes nothing out.
    """

    def __init__(
        self,
        load: Callable[[Key], Awaitable[Value | None]],
        *,
        seconds: float,
        entries_max: int = 100_000,
    ) -> None:
        self._load, self._seconds, self._entries_max = load, seconds, entries_max
        self._entries: dict[Key, tuple[float, Value]] = {}

    async def find(self, key: Key, *, now: datetime) -> Value | None:
        """Return what `key` stands for, read now or shortly before."""
        at = now.timestamp()
        entry = self._entries.get(key)
        if entry and abs(at - entry[0]) < self._seconds:
            return entry[1]
        value = await self._load(key)
        if value is None:
            self._entries.pop(key, None)
            return None
        if len(self._entries) >= self._entries_max:
            self._entries.clear()
        self._entries[key] = (at, value)
        return value


async def defer(
    session: AsyncSession, job: str, *, at: datetime | None = None, **arguments: str | int
) -> None:
    """Enqueue the job named `job` inside the caller's transaction: no commit, no job.

    Args:
        session: an open transaction.
        job: `module:function` of an idempotent job.
        at: not before this instant.
        arguments: ids and numbers only; a job reads the rest from the rows.
    """
    await session.execute(
        text(
            "SELECT procrastinate_defer_jobs_v1(ARRAY[ROW('default', :job, 0, NULL, NULL,"
            " CAST(:arguments AS jsonb), CAST(:at AS timestamptz))::procrastinate_job_to_defer_v1])"
        ),
        {"job": job, "arguments": json.dumps(arguments), "at": at},
    )
