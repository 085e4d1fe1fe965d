"""Two writers on one database, and writers that lose it: once only, and nothing told too early."""

import asyncio
import secrets
from collections import Counter
from collections.abc import AsyncIterator
from uuid import UUID

import pytest

from api.services import Services
from identity.kernel import Database
from identity.request_numbers import Kept, request_hash
from tests.conftest import SCHEMA
from tests.makers import make_holder, make_shop
from tests.wallet.ledger.booking import Book, Office, moving, open_book, told
from tests.wallet.ledger.wire import Cut, Wire, laid
from tests.wallet.verbs import balance_fen, broken, verified_codes, waiting_for_rows
from wallet import invariants
from wallet.ledger.plans import Posted, Posting
from wallet.ledger.posting import Poster, Unavailable
from wallet.ledger.transfers import InsufficientBalance, Move
from wallet.payments import charges


@pytest.fixture
async def other_poster(database_url: str) -> AsyncIterator[Poster]:
    """Return the writer of another process on the same database."""
    db = await Database.open(database_url, schema=SCHEMA)
    async with Poster(db) as poster:
        yield poster
    await db.close()


@pytest.fixture
async def wire(database_url: str) -> AsyncIterator[Wire]:
    """Return a wire to this test's database."""
    async with laid(database_url) as opened:
        yield opened


@pytest.fixture
async def wired(wire: Wire) -> AsyncIterator[Poster]:
    """Return a writer at the end of that wire."""
    db = await Database.open(wire.url, schema=SCHEMA)
    async with Poster(db) as poster:
        yield poster
    await db.close()


async def _books_hold(office: Office) -> bool:
    async with office.db.begin() as session:
        return not [one.name for one in invariants.INVARIANTS[:4] if await one.check(session)]


def _out(book: Book, number: str, amount_fen: int = 1) -> Posting[str]:
    return moving(book, number, [Move(book.ids[1], book.outside, amount_fen)])


async def test_two_writers_of_the_same_numbers_post_each_once(
    office: Office, other_poster: Poster
) -> None:
    book = await open_book(office, purses=3, each_fen=1_000)
    numbers = [f"number{index:03}" for index in range(200)]
    ways = [(1, 2), (2, 3), (3, 1), (2, 1), (1, 3), (3, 2)]

    async def ask(poster: Poster, index: int) -> object:
        # Not all at once, so that the two writers' batches overlap in ever new ways.
        await asyncio.sleep(secrets.randbelow(100) / 1_000)
        debit, credit = ways[index % len(ways)]
        moves = [Move(book.ids[debit], book.ids[credit], 1 + index % 7)]
        return await told(poster, moving(book, numbers[index], moves))

    both = (office.poster, other_poster)
    results = await asyncio.gather(*(ask(one, i) for i in range(len(numbers)) for one in both))
    assert Counter(map(type, results)) == {Posted: 200, Kept: 200}
    for here, there in zip(results[::2], results[1::2], strict=True):
        assert {type(here), type(there)} == {Posted, Kept}
    assert await book.times_moved(*numbers) == 200
    assert sum(await book.balances_fen()) == 0
    assert await _books_hold(office)


async def test_two_writers_never_take_more_than_there_is(
    office: Office, other_poster: Poster
) -> None:
    book = await open_book(office, purses=1, each_fen=30)

    async def ask(index: int) -> object:
        await asyncio.sleep(secrets.randbelow(30) / 1_000)
        return await told((office.poster, other_poster)[index % 2], _out(book, f"number{index}"))

    results = await asyncio.gather(*(ask(index) for index in range(100)))
    assert Counter(map(type, results)) == {Posted: 30, InsufficientBalance: 70}
    assert await book.balances_fen() == [0, 0]
    assert await _books_hold(office)


async def test_equal_charges_at_two_servers_at_once_charge_once(
    services: Services, other_poster: Poster
) -> None:
    holder, shop = await make_holder(services, balance_fen=10_000), await make_shop(services)
    codes = await verified_codes(services, holder, count=10)

    async def ask(poster: Poster, index: int) -> tuple[UUID, bool]:
        charge, is_new = await charges.charge(
            services.db,
            poster,
            codes[index],
            merchant_id=shop.merchant_id,
            payable_id=shop.payable_id,
            order_no=f"order{index:04}",
            request_hash=request_hash(index),
            amount_fen=100,
            description=None,
            terminal_no=None,
            now=services.clock(),
        )
        return charge.id, is_new

    both = (services.poster, other_poster)
    results = await asyncio.gather(
        *(ask(one, index) for _ in range(3) for index in range(len(codes)) for one in both)
    )
    assert Counter(is_new for _, is_new in results) == {True: 10, False: 50}
    assert len({charge_id for charge_id, _ in results}) == 10
    assert await balance_fen(services, holder) == 9_000
    assert not await broken(services)


@pytest.mark.parametrize("callers", [1, 20])
async def test_a_writer_whose_connection_is_ended_tells_nothing_that_is_not_so(
    office: Office, other_poster: Poster, callers: int
) -> None:
    book = await open_book(office, purses=1, each_fen=callers)
    asked = [_out(book, f"number{index:02}") for index in range(callers)]
    async with office.db.pool.acquire() as other, other.transaction():
        await other.execute("SELECT FROM ledger_account WHERE id = $1 FOR UPDATE", book.ids[1])
        waiting = [asyncio.create_task(told(other_poster, one)) for one in asked]
        (pid,) = await waiting_for_rows(office.db, count=1)
        await other.execute("SELECT pg_terminate_backend($1)", pid)
        if callers == 1:
            assert isinstance(await waiting[0], Unavailable)
            assert await book.balances_fen() == [-1, 1]
    results = await asyncio.gather(*waiting)
    # Of many, each is posted again by itself, since nobody was told anything yet.
    assert {type(result) for result in results} == {Unavailable if callers == 1 else Posted}
    again = await asyncio.gather(*(told(other_poster, one) for one in asked))
    assert {type(result) for result in again} == {Posted if callers == 1 else Kept}
    assert await book.balances_fen() == [0, 0]
    assert await _books_hold(office)


@pytest.mark.parametrize("cut", ["before the commit", "after the commit"])
@pytest.mark.parametrize("callers", [1, 20])
async def test_a_commit_that_nobody_heard_of_is_found_by_the_retry(
    office: Office, wire: Wire, wired: Poster, cut: Cut, callers: int
) -> None:
    book = await open_book(office, purses=1, each_fen=callers + 5)
    assert isinstance(await told(wired, _out(book, "warm0001", 5)), Posted)
    asked = [_out(book, f"number{index:02}") for index in range(callers)]
    wire.cut = cut
    first = await asyncio.gather(*(told(wired, one) for one in asked))
    is_done = cut == "after the commit"
    if callers == 1:
        assert {type(result) for result in first} == {Unavailable}
        assert await book.balances_fen() == ([0, 0] if is_done else [-1, 1])
    else:
        # Posted again one by one: what was committed is found kept, the rest is done now.
        assert {type(result) for result in first} == {Kept if is_done else Posted}
    again = await asyncio.gather(*(told(wired, one) for one in asked))
    is_first_effect = callers == 1 and not is_done
    assert {type(result) for result in again} == {Posted if is_first_effect else Kept}
    assert await book.balances_fen() == [0, 0]
    assert await _books_hold(office)


async def test_nobody_is_told_before_the_commit(office: Office, other_poster: Poster) -> None:
    book = await open_book(office, purses=1, each_fen=1)
    # A check at the very end of the transaction that waits for us, as a slow disk would.
    async with office.db.pool.acquire() as other:
        await other.execute(
            """
            CREATE FUNCTION city.wait_for_us() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN PERFORM pg_advisory_xact_lock(7); RETURN NULL; END $$;
            CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON ledger_transfer
            DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION city.wait_for_us()"""
        )
        async with other.transaction():
            await other.execute("SELECT pg_advisory_xact_lock(7)")
            waiting = asyncio.create_task(told(other_poster, _out(book, "number01")))
            await waiting_for_rows(office.db, count=1)
            assert not waiting.done()
            assert await book.balances_fen() == [-1, 1]
    assert isinstance(await waiting, Posted)
    assert await book.balances_fen() == [0, 0]
