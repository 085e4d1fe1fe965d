"""What a verb hands to `posting`: its claim, the rows it locks, its pure decision, its rows.

One shape for every verb that moves money (database.md, decision 2). A decision sees only rows
that are locked, decides on values, and says what is to be written; it never awaits anything.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any, Generic, TypeVar
from uuid import UUID

import msgspec
from sqlalchemy import Table

from identity.kernel import Base
from identity.request_numbers import Claim
from wallet.ledger.accounts import Account
from wallet.ledger.transfers import Move

Row = TypeVar("Row", bound=msgspec.Struct)
Answer = TypeVar("Answer")


class Lockable(Generic[Row]):
    """A table of which a posting locks, reads and changes rows by their key.

    Args:
        table: the mapped class.
        row: a frozen Struct whose fields are columns of the table; the first one is the key.
        writes: the fields that a decision may change.
        rank: tables are locked in this order, so that two postings never wait in a circle.
        may_be_absent: a row that is not there yet is made by the first change to it.
        reads: for a row that shows columns of other tables too, the statement that reads and locks
            it; $1 is the list of keys, and the fields come in their order.
    """

    def __init__(
        self,
        table: type[Base],
        row: type[Row],
        *,
        writes: tuple[str, ...],
        rank: int,
        may_be_absent: bool = False,
        reads: str | None = None,
    ) -> None:
        assert isinstance(table.__table__, Table)
        self.table = table.__table__
        self.row, self.writes, self.rank, self.may_be_absent = row, writes, rank, may_be_absent
        self.fields, self.reads = row.__struct_fields__, reads
        self.key = self.fields[0]


Lock = tuple[Lockable[Any], Any]
"""A row that a decision needs: its table and its key."""


class LockedAccount(msgspec.Struct, frozen=True):
    """An account as a decision sees it."""

    id: int
    balance_fen: int
    floor_fen: int | None
    blocked: int
    entry_count: int


ACCOUNTS = Lockable(Account, LockedAccount, writes=("balance_fen", "entry_count"), rank=90)
"""Last, since accounts are what most postings share."""


class Rows:
    """The locked rows of a batch, as the postings decided before this one left them."""

    def __init__(self, tables: dict[Lockable[Any], dict[Any, Any]]) -> None:
        self._tables = tables

    def get(self, lockable: Lockable[Row], key: object) -> Row:
        """Return a row that must be there."""
        row: Row = self._tables[lockable][key]
        return row

    def find(self, lockable: Lockable[Row], key: object) -> Row | None:
        """Return a row, or None where there is none yet."""
        row: Row | None = self._tables[lockable].get(key)
        return row


class NewTransfer(msgspec.Struct, frozen=True):
    """Money that a decision wants moved; `kind` and `business_id` name the event (I10)."""

    id: UUID
    kind: str
    business_id: UUID
    moves: tuple[Move, ...]


class Change(msgspec.Struct, frozen=True):
    """A locked row as it is to be from now on."""

    lockable: Lockable[Any]
    row: Any


class NewJob(msgspec.Struct, frozen=True):
    """A job to be done once this posting is committed."""

    name: str
    arguments: dict[str, str]
    at: datetime | None = None


class Decision(msgspec.Struct, Generic[Answer], frozen=True):
    """What one posting decided."""

    answer: Answer
    transfers: tuple[NewTransfer, ...] = ()
    rows: tuple[Base, ...] = ()
    changes: tuple[Change, ...] = ()
    jobs: tuple[NewJob, ...] = ()
    kept_answer: dict[str, Any] | None = None
    """What a retry is told, where the rows alone cannot tell it later."""
    uses_number: bool = True
    """False: nothing is written and the request number stays free (answers 7xx)."""


class Posting(msgspec.Struct, Generic[Answer], frozen=True):
    """One request's business, complete before the transaction opens."""

    claim: Claim
    locks: tuple[Lock, ...]
    decide: Callable[[Rows], Decision[Answer]]
    now: datetime


class Posted(msgspec.Struct, Generic[Answer], frozen=True):
    """The posting was decided and committed."""

    answer: Answer
