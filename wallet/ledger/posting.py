"""The batch that all money goes through: claim, lock, decide, write (raw driver: the hot path).

Requests of one process are gathered while the previous batch commits, so no waiting is added, and
go through one transaction of four steps, each one statement for the whole batch. Every request has
its own outcome: one refusal never touches its neighbours. An outcome is told only after COMMIT.
docs/money.md, "Posting", has the reasons.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import Sequence
from functools import cache
from typing import Any, Self, TypeVar, cast
from uuid import UUID

import asyncpg
import asyncpg.exceptions as sql_errors
import msgspec
import structlog
from sqlalchemy import Table
from sqlalchemy.dialects.postgresql import JSONB

from identity.kernel import Database, Refusal, Said
from identity.request_numbers import Kept, read_kept
from wallet.ledger import statements
from wallet.ledger.plans import (
    ACCOUNTS,
    Decision,
    Lockable,
    LockedAccount,
    NewTransfer,
    Posted,
    Posting,
    Rows,
)
from wallet.ledger.transfers import Entry, Side, Transfer, apply_moves

Answer = TypeVar("Answer")
ClaimKey = tuple[str, UUID, str]

TRANSFERS, ENTRIES = cast("Table", Transfer.__table__), cast("Table", Entry.__table__)

BATCH_MAX = 256
QUEUE_MAX = 4_096

log = structlog.get_logger()


class Overloaded(Refusal):
    """More is waiting than can be posted in reasonable time."""

    code, status, retryable = "overloaded", 503, True
    title = Said("系统繁忙", "The system is busy")
    next_step = Said("请稍后用同一请求号重试。", "Try again shortly, with the same request number.")


class Unavailable(Refusal):
    """The database went away; whether the request happened is not known."""

    code, status, retryable = "unavailable", 503, True
    title = Said("服务暂不可用，结果未知", "Unavailable for a moment; the outcome is not known")
    next_step = Said(
        "请用同一请求号重试，不会重复执行。",
        "Try again with the same request number: it will not happen twice.",
    )


class InProgress(Refusal):
    """The same number, or a row it needs, is held by another request for too long."""

    code, status, retryable = "in-progress", 409, True
    title = Said("同一请求正在处理", "The same request is in progress")
    next_step = Said("请稍候用同一请求号重试。", "Wait a moment and repeat with the same number.")


class _Waiting:
    """A posting in the queue and the caller who waits for it."""

    __slots__ = ("future", "key", "posting")

    def __init__(self, posting: Posting[Any], future: asyncio.Future[Any]) -> None:
        self.posting, self.future = posting, future
        self.key: ClaimKey = posting.claim[:3]

    def resolve(self, result: Posted[Any] | Kept) -> None:
        if not self.future.done():
            self.future.set_result(result)

    def fail(self, problem: BaseException) -> None:
        if not self.future.done():
            self.future.set_exception(problem)


class _Batch:
    """What the decisions of a batch add up to, until it is written."""

    def __init__(self, tables: dict[Lockable[Any], dict[Any, Any]]) -> None:
        self.tables = tables
        self.rows = Rows(tables)
        self.inserts: dict[Table, list[Sequence[Any]]] = defaultdict(list)
        self.changed: dict[Lockable[Any], dict[Any, None]] = defaultdict(dict)
        self.jobs: list[tuple[Any, ...]] = []
        self.outcomes: list[tuple[Any, ...]] = []
        self.freed: list[ClaimKey] = []
        self.told: list[tuple[_Waiting, Posted[Any] | Exception]] = []

    def decide(self, waiting: _Waiting) -> None:
        """Decide one posting on the rows as its predecessors left them; all of it or nothing."""
        try:
            decision = waiting.posting.decide(self.rows)
            accounts = self._moved(decision.transfers)
        except Refusal as refusal:
            self.outcomes.append((*waiting.key, _json({"refusal": refusal.stored()})))
            self.told.append((waiting, refusal))
        except Exception as fault:  # noqa: BLE001  # one posting's fault must not fail its neighbours
            self.freed.append(waiting.key)
            self.told.append((waiting, fault))
        else:
            self._take(waiting, decision, accounts)

    def _moved(self, transfers: Sequence[NewTransfer]) -> list[tuple[NewTransfer, list[Side]]]:
        """Return each transfer with its sides, each on the balances that the one before left."""
        accounts, after_fen = self.tables[ACCOUNTS], dict[int, int]()
        moved = []
        for transfer in transfers:
            ids = {account_id for move in transfer.moves for account_id in move[:2]}
            before_fen = {i: after_fen.get(i, accounts[i].balance_fen) for i in ids}
            sides = apply_moves(before_fen, {i: accounts[i].floor_fen for i in ids}, transfer.moves)
            after_fen.update((side.account_id, side.balance_after_fen) for side in sides)
            moved.append((transfer, sides))
        return moved

    def _take(
        self,
        waiting: _Waiting,
        decision: Decision[Any],
        moved: list[tuple[NewTransfer, list[Side]]],
    ) -> None:
        now, accounts = waiting.posting.now, self.tables[ACCOUNTS]
        for transfer, sides in moved:
            self.inserts[TRANSFERS].append((transfer.id, transfer.kind, transfer.business_id, now))
            for account_id, amount_fen, after_fen in sides:
                old = accounts[account_id]
                number = old.entry_count + 1
                accounts[account_id] = LockedAccount(
                    account_id, after_fen, old.floor_fen, old.blocked, number
                )
                self.changed[ACCOUNTS][account_id] = None
                self.inserts[ENTRIES].append(
                    (account_id, number, transfer.id, amount_fen, after_fen, now)
                )
        for row in decision.rows:
            table = cast("Table", row.__table__)
            self.inserts[table].append(
                [
                    _json(row.__dict__[name]) if is_json else row.__dict__[name]
                    for name, is_json in _columns(table)
                ]
            )
        for change in decision.changes:
            key = getattr(change.row, change.lockable.key)
            self.tables[change.lockable][key] = change.row
            self.changed[change.lockable][key] = None
        self.jobs += [(job.name, _json(job.arguments), job.at) for job in decision.jobs]
        if decision.kept_answer is not None:
            self.outcomes.append((*waiting.key, _json({"answer": decision.kept_answer})))
        if not decision.uses_number:
            self.freed.append(waiting.key)
        self.told.append((waiting, Posted(decision.answer)))

    async def write(self, connection: asyncpg.Connection) -> None:
        """Send everything as one statement."""
        write = statements.Write()
        for table, rows in self.inserts.items():
            write.insert(table, [name for name, _ in _columns(table)], rows)
        for lockable, keys in self.changed.items():
            write.change(lockable, [self.tables[lockable][key] for key in keys])
        if self.outcomes:
            write.keep_outcomes(self.outcomes)
        if self.freed:
            write.free_numbers(self.freed)
        if self.jobs:
            write.defer(self.jobs)
        sql, parameters = write.statement()
        if sql:
            await connection.execute(sql, *parameters)


class Poster:
    """The writer of one process. Callers await `post`; one task does the rest.

    Args:
        db: the issuer's database; one connection of its pool is kept for writing.
    """

    def __init__(self, db: Database) -> None:
        self._db = db
        self._queue: deque[_Waiting] = deque()
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Start writing."""
        self._task = asyncio.create_task(self._run(), name="poster")
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop; whoever still waits is told that the outcome is not known."""
        assert self._task
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._task = None
        while self._queue:
            self._queue.popleft().fail(Unavailable())

    async def post(self, posting: Posting[Answer]) -> Posted[Answer] | Kept:
        """Post, and return once it is committed: its own answer, or what the number's first left.

        Raises:
            RequestNumberReused: the number was used for something else.
            Refusal: the one that `decide` raised, now or the first time.
            Overloaded: nothing happened, too much is waiting.
            InProgress: nothing happened, another request holds the number or a row.
            Unavailable: it is not known whether it happened.
        """
        if self._task is None:
            # Stopped: nobody would ever take it from the queue.
            raise Unavailable
        if len(self._queue) >= QUEUE_MAX:
            raise Overloaded
        waiting = _Waiting(posting, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        self._woken.set()
        result: Posted[Answer] | Kept = await waiting.future
        return result

    async def _run(self) -> None:
        while True:
            await self._woken.wait()
            # One turn of the loop, so that callers who are ready now share this batch.
            await asyncio.sleep(0)
            batch = [self._queue.popleft() for _ in range(min(BATCH_MAX, len(self._queue)))]
            if not self._queue:
                self._woken.clear()
            if batch:
                await self._post_or_split(batch)

    async def _post_or_split(self, batch: list[_Waiting]) -> None:
        """Post a batch; if the database refuses it, halve it until only the bad one fails."""
        try:
            again = await self._post(batch)
        except Exception as problem:  # the edge of this task: callers wait for it
            if len(batch) == 1:
                log.warning("posting_failed", problem=type(problem).__name__, exc_info=problem)
                batch[0].fail(_as_refusal(problem))
                return
            # In halves: one bad posting among many is found in few steps, and the rest stays fast.
            middle = len(batch) // 2
            await self._post_or_split(batch[:middle])
            await self._post_or_split(batch[middle:])
            return
        except asyncio.CancelledError:
            for waiting in batch:
                waiting.fail(Unavailable())
            raise
        self._queue.extend(again)
        if again:
            self._woken.set()

    async def _post(self, batch: list[_Waiting]) -> list[_Waiting]:
        """Post a batch in one transaction; return those whose number was given back meanwhile."""
        async with self._db.pool.acquire() as connection:
            async with connection.transaction():
                winners, losers = await _claim(connection, batch)
                decided = _Batch(await _lock(connection, winners))
                for waiting in winners:
                    decided.decide(waiting)
                await decided.write(connection)
            for waiting, told in decided.told:
                waiting.fail(told) if isinstance(told, Exception) else waiting.resolve(told)
            return await _tell_kept(connection, losers) if losers else []


async def _claim(
    connection: asyncpg.Connection, batch: list[_Waiting]
) -> tuple[list[_Waiting], list[_Waiting]]:
    """Take the request numbers; return whose number is new, and whose was taken before."""
    first: dict[ClaimKey, _Waiting] = {}
    for waiting in batch:
        first.setdefault(waiting.key, waiting)
    rows = [(*waiting.posting.claim, waiting.posting.now) for waiting in first.values()]
    taken = {
        tuple(row)
        for row in await connection.fetch(statements.CLAIM, *map(list, zip(*rows, strict=True)))
    }
    winners = [waiting for key, waiting in first.items() if key in taken]
    won = set(map(id, winners))
    return winners, [waiting for waiting in batch if id(waiting) not in won]


async def _lock(
    connection: asyncpg.Connection, winners: list[_Waiting]
) -> dict[Lockable[Any], dict[Any, Any]]:
    """Lock and read every row that the batch needs, table by table in rank order."""
    keys: dict[Lockable[Any], set[Any]] = defaultdict(set)
    for waiting in winners:
        for lockable, key in waiting.posting.locks:
            keys[lockable].add(key)
    tables: dict[Lockable[Any], dict[Any, Any]] = {ACCOUNTS: {}}
    for lockable in sorted(keys, key=lambda lockable: lockable.rank):
        found = await connection.fetch(statements.lock(lockable), list(keys[lockable]))
        tables[lockable] = {row[0]: lockable.row(*row) for row in found}
    return tables


async def _tell_kept(connection: asyncpg.Connection, losers: list[_Waiting]) -> list[_Waiting]:
    """Tell each late-comer what its number's first request left; return those it left nothing."""
    keys = map(list, zip(*(waiting.key for waiting in losers), strict=True))
    kept = {tuple(row[:3]): row for row in await connection.fetch(statements.KEPT, *keys)}
    again = []
    for waiting in losers:
        row = kept.get(waiting.key)
        if row is None:
            again.append(waiting)
            continue
        outcome = msgspec.json.decode(row["outcome"]) if row["outcome"] else None
        try:
            waiting.resolve(
                read_kept(waiting.posting.claim, row["request_hash"], row["subject_id"], outcome)
            )
        except Refusal as refusal:
            waiting.fail(refusal)
    return again


def _as_refusal(problem: Exception) -> Exception:
    """Return what the caller is told; a rule that the database had to enforce is our fault."""
    held = (
        sql_errors.LockNotAvailableError,
        sql_errors.QueryCanceledError,
        sql_errors.DeadlockDetectedError,
    )
    if isinstance(problem, held):
        return InProgress()
    lost = (
        sql_errors.PostgresConnectionError,
        sql_errors.OperatorInterventionError,
        sql_errors.CannotConnectNowError,
        sql_errors.InterfaceError,
        OSError,
        TimeoutError,
    )
    return Unavailable() if isinstance(problem, lost) else problem


@cache
def _columns(table: Table) -> tuple[tuple[str, bool], ...]:
    """Return the columns to insert, and whether each holds JSON."""
    return tuple(
        (column.name, isinstance(column.type, JSONB))
        for column in table.columns
        # A number that the database gives itself (identity) is left to it.
        if column.identity is None
    )


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
