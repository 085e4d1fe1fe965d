"""Posting: every request has its own outcome, and hears it only when it is committed."""

import asyncio

import pytest
from asyncpg import UniqueViolationError

from identity.kernel import new_id
from identity.request_numbers import Kept
from tests.wallet.ledger.booking import (
    NOW,
    Book,
    Office,
    moving,
    open_book,
    posting,
    subject_of,
    told,
)
from wallet import invariants
from wallet.ledger import posting as posting_module
from wallet.ledger.plans import ACCOUNTS, Decision, NewJob, NewTransfer, Posted, Posting, Rows
from wallet.ledger.posting import InProgress, Overloaded, Poster, Unavailable
from wallet.ledger.transfers import InsufficientBalance, Move


async def _books_hold(office: Office) -> bool:
    """Say whether I1 to I4 hold: those that know nothing of what money moved for."""
    async with office.db.begin() as session:
        return not [one.name for one in invariants.INVARIANTS[:4] if await one.check(session)]


def _out(book: Book, number: str, amount_fen: int, *, purse: int = 1) -> Posting[str]:
    return moving(book, number, [Move(book.ids[purse], book.outside, amount_fen)])


async def test_a_posting_that_the_database_refuses_fails_alone(office: Office) -> None:
    book = await open_book(office, purses=1, each_fen=100)
    taken = subject_of(book, "number07")

    def twice(_: Rows) -> Decision[str]:
        moves = (Move(book.ids[1], book.outside, 1),)
        both = [NewTransfer(new_id(NOW), "test.move", taken, moves) for _ in range(2)]
        return Decision("twice", transfers=tuple(both))

    asked = [_out(book, f"number{index:02}", 1) for index in range(20)]
    asked[7] = posting(book, "number07", twice)
    results = await asyncio.gather(*(told(office.poster, one) for one in asked))
    assert isinstance(results.pop(7), UniqueViolationError)
    assert {type(result) for result in results} == {Posted}
    assert await book.balances_fen() == [-81, 81]
    assert await _books_hold(office)
    # What failed used no number: the same one can be asked again, properly.
    assert isinstance(await told(office.poster, _out(book, "number07", 1)), Posted)


async def test_a_fault_in_one_decision_is_its_own_callers_alone(office: Office) -> None:
    book = await open_book(office, purses=1, each_fen=10)

    def faulty(_: Rows) -> Decision[str]:
        raise ZeroDivisionError

    def unlocked(_: Rows) -> Decision[str]:
        moves = (Move(book.ids[1], 999_999, 1),)
        return Decision("", transfers=(NewTransfer(new_id(NOW), "t", book.owner_id, moves),))

    first, fault, stray, last = await asyncio.gather(
        told(office.poster, _out(book, "first001", 3)),
        told(office.poster, posting(book, "fault001", faulty)),
        told(office.poster, posting(book, "stray001", unlocked)),
        told(office.poster, _out(book, "last0001", 3)),
    )
    assert isinstance(fault, ZeroDivisionError)
    assert isinstance(stray, KeyError)
    assert isinstance(first, Posted)
    assert isinstance(last, Posted)
    assert await book.balances_fen() == [-4, 4]
    assert isinstance(await told(office.poster, _out(book, "fault001", 1)), Posted)


async def test_a_refused_number_stays_refused_when_there_is_money_again(
    office: Office,
) -> None:
    book = await open_book(office, purses=1, each_fen=10)
    refused = await told(office.poster, _out(book, "number01", 11))
    await office.poster.post(moving(book, "more0001", [Move(book.outside, book.ids[1], 90)]))
    repeated = await told(office.poster, _out(book, "number01", 11))
    assert isinstance(refused, InsufficientBalance)
    assert isinstance(repeated, InsufficientBalance)
    assert (refused.is_replayed, repeated.is_replayed) == (False, True)
    assert await book.balances_fen() == [-100, 100]


async def test_transfers_of_one_decision_stand_on_each_other_or_none_is_made(
    office: Office,
) -> None:
    book = await open_book(office, purses=2, each_fen=10)

    def through(amounts_fen: tuple[int, int], number: str) -> Posting[str]:
        hops = ((book.ids[1], book.ids[2]), (book.ids[2], book.outside))
        made = [
            NewTransfer(new_id(NOW), f"hop.{i}", subject_of(book, number), (Move(*hop, fen),))
            for i, (hop, fen) in enumerate(zip(hops, amounts_fen, strict=True))
        ]
        return posting(book, number, lambda _: Decision("", transfers=tuple(made)))

    assert isinstance(await told(office.poster, through((10, 20), "number01")), Posted)
    assert await book.balances_fen() == [0, 0, 0]
    await office.poster.post(moving(book, "more0001", [Move(book.outside, book.ids[1], 10)]))
    refused = await told(office.poster, through((10, 11), "number02"))
    assert isinstance(refused, InsufficientBalance)
    assert await book.balances_fen() == [-10, 10, 0]
    assert await _books_hold(office)


async def test_an_answer_that_was_kept_is_told_again(office: Office) -> None:
    book = await open_book(office, purses=1)
    asked = posting(book, "number01", lambda _: Decision("now", kept_answer={"said": "now"}))
    assert await told(office.poster, asked) == Posted("now")
    assert await told(office.poster, asked) == Kept(subject_of(book, "number01"), {"said": "now"})


async def test_a_job_is_there_once_its_posting_is(office: Office) -> None:
    book = await open_book(office, purses=1, each_fen=10)

    def decide(rows: Rows) -> Decision[None]:
        if rows.get(ACCOUNTS, book.ids[1]).balance_fen < 10:
            raise InsufficientBalance
        moves = (Move(book.ids[1], book.outside, 10),)
        moved = NewTransfer(new_id(NOW), "test.move", subject_of(book, "number01"), moves)
        return Decision(None, transfers=(moved,), jobs=(NewJob("test.job", {"id": "7"}),))

    for number in ("number01", "number02"):
        await told(office.poster, posting(book, number, decide))
    rows = await office.db.pool.fetch("SELECT task_name, args FROM procrastinate_jobs")
    assert [(row["task_name"], row["args"]) for row in rows] == [("test.job", '{"id": "7"}')]


async def test_a_row_held_too_long_is_said_and_the_number_is_free(office: Office) -> None:
    book = await open_book(office, purses=1, each_fen=10)
    async with office.db.pool.acquire() as other, other.transaction():
        await other.execute("SELECT FROM ledger_account WHERE id = $1 FOR UPDATE", book.ids[1])
        assert isinstance(await told(office.poster, _out(book, "number01", 1)), InProgress)
    assert isinstance(await told(office.poster, _out(book, "number01", 1)), Posted)
    assert await book.balances_fen() == [-9, 9]


async def test_too_much_waiting_is_refused_and_leaves_nothing(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    book = await open_book(office, purses=1, each_fen=10)
    monkeypatch.setattr(posting_module, "QUEUE_MAX", 4)
    results = await asyncio.gather(
        *(told(office.poster, _out(book, f"number{index}", 1)) for index in range(7))
    )
    assert [type(one) for one in results] == [Posted] * 4 + [Overloaded] * 3
    assert await book.balances_fen() == [-6, 6]
    assert isinstance(await told(office.poster, _out(book, "number6", 1)), Posted)


async def test_more_than_a_batch_is_posted_in_several(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    book = await open_book(office, purses=1, each_fen=10)
    monkeypatch.setattr(posting_module, "BATCH_MAX", 3)
    results = await asyncio.gather(
        *(told(office.poster, _out(book, f"number{index:02}", 1)) for index in range(14))
    )
    assert [type(one) for one in results].count(Posted) == 10
    assert await book.balances_fen() == [0, 0]
    assert await _books_hold(office)


async def test_a_caller_who_leaves_loses_nothing_and_doubles_nothing(office: Office) -> None:
    callers = 40
    book = await open_book(office, purses=1, each_fen=callers)
    for index in range(callers):
        asked = _out(book, f"number{index:02}", 1)
        beside = asyncio.create_task(told(office.poster, _out(book, f"number{index:02}", 1)))
        caller = asyncio.create_task(office.poster.post(asked))
        # Each leaves a little later than the one before: waiting, locked, decided, committed.
        for _ in range(index):
            await asyncio.sleep(0)
        caller.cancel()
        await asyncio.gather(caller, return_exceptions=True)
        assert isinstance(await beside, Posted | Kept)
        assert isinstance(await told(office.poster, asked), Kept)
    assert await book.balances_fen() == [0, 0]
    assert await _books_hold(office)


async def test_a_writer_that_stopped_takes_nothing_more(office: Office) -> None:
    book = await open_book(office, purses=1, each_fen=20)
    async with Poster(office.db) as stopped:
        pass
    assert isinstance(await told(stopped, _out(book, "too-late", 1)), Unavailable)
    assert isinstance(await told(office.poster, _out(book, "too-late", 1)), Posted)


async def test_whoever_waits_when_the_writer_stops_hears_that_nothing_is_known(
    office: Office,
) -> None:
    book = await open_book(office, purses=1, each_fen=20)
    asked = [_out(book, f"number{index:02}", 1) for index in range(20)]
    async with Poster(office.db) as stopping:
        waiting = [asyncio.create_task(told(stopping, one)) for one in asked]
        await asyncio.sleep(0.002)
    results = await asyncio.gather(*waiting)
    assert {type(result) for result in results} <= {Posted, Unavailable}
    again = await asyncio.gather(*(told(office.poster, one) for one in asked))
    assert {type(result) for result in again} <= {Posted, Kept}
    assert await book.balances_fen() == [0, 0]
    assert await _books_hold(office)
