"""Bare postings for the tests of the ledger: accounts with money, and a claim per number."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import select

from identity.kernel import Database, new_id
from identity.request_numbers import Claim, Kept, request_hash
from tests.conftest import SetClock
from wallet.ledger.accounts import Account, new_account
from wallet.ledger.chart import Kind
from wallet.ledger.plans import ACCOUNTS, Decision, NewTransfer, Posted, Posting, Rows
from wallet.ledger.posting import Poster
from wallet.ledger.transfers import Move, Transfer

NOW = SetClock().now
SCOPE = "test.move"


class Office(NamedTuple):
    """What booking needs of a process."""

    db: Database
    poster: Poster


class Book:
    """One owner's accounts: the outside world, which has no floor, and purses that have one."""

    def __init__(self, db: Database, owner_id: UUID, ids: list[int]) -> None:
        self.db, self.owner_id, self.ids = db, owner_id, ids

    @property
    def outside(self) -> int:
        """Return the account that money comes from."""
        return self.ids[0]

    async def balances_fen(self) -> list[int]:
        """Return all balances, the outside world's first."""
        async with self.db.begin() as session:
            rows = await session.execute(
                select(Account.id, Account.balance_fen).where(Account.id.in_(self.ids))
            )
            found = {row.id: row.balance_fen for row in rows}
        return [found[account_id] for account_id in self.ids]

    async def times_moved(self, *numbers: str) -> int:
        """Return how many transfers were made under these numbers."""
        ids = [subject_of(self, number) for number in numbers]
        async with self.db.begin() as session:
            found = await session.scalars(select(Transfer).where(Transfer.business_id.in_(ids)))
            return len(list(found))


async def open_book(office: Office, *, purses: int, each_fen: int = 0) -> Book:
    """Return a book of its own whose purses hold as much each."""
    owners = [new_id(NOW) for _ in range(purses + 1)]
    kinds = [Kind.CLEARING_ALIPAY, *[Kind.MERCHANT_PAYABLE] * purses]
    async with office.db.begin() as session:
        rows = [new_account(kind, owner) for kind, owner in zip(kinds, owners, strict=True)]
        for row in rows:
            session.add(row)
            await session.flush()
        book = Book(office.db, owners[0], [row.id for row in rows])
    if each_fen:
        moves = [Move(book.outside, purse, each_fen) for purse in book.ids[1:]]
        await office.poster.post(moving(book, "opening", moves))
    return book


def subject_of(book: Book, number: str) -> UUID:
    """Return the business row that a number of a book would make: always the same."""
    return UUID(bytes=request_hash(book.owner_id, number)[:16])


def posting(
    book: Book, number: str, decide: Callable[[Rows], Decision[Any]], *content: object
) -> Posting[Any]:
    """Return a posting that locks the whole book."""
    claim = Claim(SCOPE, book.owner_id, number, request_hash(*content), subject_of(book, number))
    return Posting(claim, tuple((ACCOUNTS, one) for one in book.ids), decide, NOW)


def moving(book: Book, number: str, moves: Sequence[Move], *, kind: str = SCOPE) -> Posting[str]:
    """Return a posting of one transfer."""

    def decide(_rows: Rows) -> Decision[str]:
        transfer = NewTransfer(new_id(NOW), kind, subject_of(book, number), tuple(moves))
        return Decision(number, transfers=(transfer,))

    return posting(book, number, decide, moves)


async def told(poster: Poster, asked: Posting[Any]) -> Posted[Any] | Kept | Exception:
    """Return what a caller is told, the refusals too."""
    try:
        return await poster.post(asked)
    except Exception as problem:  # noqa: BLE001  # the test looks at whatever it is
        return problem
