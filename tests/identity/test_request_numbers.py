"""A request happens once: its number, what it asked, and what every repeat is told."""

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID

import pytest

from identity.kernel import Database, NotFound, Refusal, StateConflict, new_id
from identity.people.real_names import RealNameRequired
from identity.request_numbers import (
    TOMBSTONE,
    Claim,
    Kept,
    RequestNumberReused,
    bury,
    claim_once,
    find_kept,
    keep_answer,
    keep_refusal,
    kept_if_refused,
    read_kept,
    request_hash,
    subject_of,
)
from identity.tokens import TokenRefused
from tests.conftest import SCHEMA, SetClock
from wallet.ledger.posting import Overloaded
from wallet.ledger.transfers import InsufficientBalance

NOW = SetClock().now
OWNER = new_id(NOW)


@pytest.fixture
async def db(database_url: str) -> AsyncIterator[Database]:
    opened = await Database.open(database_url, schema=SCHEMA)
    yield opened
    await opened.close()


def _claim(number: str = "number01", *, content: object = "content") -> Claim:
    return Claim("test.verb", OWNER, number, request_hash(content), new_id(NOW))


async def _ask(db: Database, claim: Claim) -> Kept | None:
    async with db.begin() as session:
        return await claim_once(session, claim, now=NOW)


async def _told(db: Database, claim: Claim) -> Kept | Refusal | None:
    try:
        return await _ask(db, claim)
    except Refusal as refusal:
        return refusal


async def _bury(db: Database, number: str) -> UUID | None:
    async with db.begin() as session:
        return await bury(
            session,
            scope="test.verb",
            owner_id=OWNER,
            number=number,
            subject_id=new_id(NOW),
            refusal=StateConflict(state="cancelled"),
            now=NOW,
        )


async def test_a_number_is_taken_once_and_tells_what_it_stands_for(db: Database) -> None:
    first = _claim()
    assert await _ask(db, first) is None
    assert await _ask(db, _claim()) == Kept(first.subject_id, None)
    async with db.begin() as session:
        assert await find_kept(session, _claim()) == Kept(first.subject_id, None)
        assert await find_kept(session, _claim("number02")) is None
        assert await subject_of(session, *_claim()[:3]) == first.subject_id
        assert await subject_of(session, *_claim("number02")[:3]) is None


async def test_of_many_at_once_one_takes_the_number(db: Database) -> None:
    claims = [_claim() for _ in range(40)]
    told = await asyncio.gather(*(_ask(db, claim) for claim in claims))
    assert told.count(None) == 1
    winner = claims[told.index(None)]
    assert {kept.subject_id for kept in told if kept} == {winner.subject_id}


async def test_other_content_under_the_same_number_is_refused(db: Database) -> None:
    await _ask(db, _claim())
    told = await _told(db, _claim(content="other"))
    assert isinstance(told, RequestNumberReused)
    assert (told.status, told.is_replayed, told.facts) == (422, False, {"number": "number01"})
    # And it changed nothing for whoever repeats the first request.
    assert isinstance(await _told(db, _claim()), Kept)


async def test_numbers_of_others_are_other_numbers(db: Database) -> None:
    first = _claim()
    others = (
        first._replace(scope="test.other"),
        first._replace(owner_id=new_id(NOW)),
        first._replace(number="number02"),
    )
    for claim in (first, *others):
        assert await _ask(db, claim) is None


async def test_a_number_whose_transaction_was_undone_is_free(db: Database) -> None:
    async def claim_and_fail() -> None:
        async with db.begin() as session:
            await claim_once(session, _claim(), now=NOW)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await claim_and_fail()
    assert await _ask(db, _claim()) is None


async def test_an_answer_and_a_refusal_repeat_themselves(db: Database) -> None:
    async with db.begin() as session:
        answered, refused = _claim("answered"), _claim("refused1")
        for claim in (answered, refused):
            await claim_once(session, claim, now=NOW)
        await keep_answer(session, answered, {"card_no": "7"})
        await keep_refusal(session, refused, InsufficientBalance(missing_fen=5))
    assert await _ask(db, _claim("answered")) == Kept(answered.subject_id, {"card_no": "7"})
    told = await _told(db, _claim("refused1"))
    assert isinstance(told, InsufficientBalance)
    assert (told.facts, told.is_replayed) == ({"missing_fen": 5}, True)
    # Other content is told so, and nothing of the refusal.
    other = await _told(db, _claim("refused1", content="other"))
    assert isinstance(other, RequestNumberReused)


async def test_a_buried_number_refuses_whatever_is_asked_and_stays_buried(
    db: Database,
) -> None:
    assert await _bury(db, "number01") is None
    for content in ("content", "other"):
        told = await _told(db, _claim(content=content))
        assert isinstance(told, StateConflict)
        assert (told.facts, told.is_replayed) == ({"state": "cancelled"}, True)
    assert await _bury(db, "number01") is not None


async def test_a_used_number_cannot_be_buried(db: Database) -> None:
    claim = _claim()
    await _ask(db, claim)
    assert await _bury(db, "number01") == claim.subject_id
    assert await _ask(db, _claim()) == Kept(claim.subject_id, None)


async def test_of_a_request_and_its_burial_at_once_exactly_one_wins(db: Database) -> None:
    numbers = [f"number{index:02}" for index in range(30)]
    claims = {number: _claim(number) for number in numbers}
    asked = asyncio.gather(*(_told(db, claims[number]) for number in numbers))
    buried = asyncio.gather(*(_bury(db, number) for number in reversed(numbers)))
    told, subjects = await asked, dict(zip(reversed(numbers), await buried, strict=True))
    for number, one in zip(numbers, told, strict=True):
        if one is None:
            assert subjects[number] == claims[number].subject_id
        else:
            assert isinstance(one, StateConflict)
            assert subjects[number] is None


async def test_a_refusal_by_state_or_money_uses_the_number_and_others_do_not(
    db: Database,
) -> None:
    async def claim_and_refuse(refusal: Refusal) -> None:
        claim = _claim(refusal.code)
        async with kept_if_refused(db, claim, now=NOW), db.begin() as session:
            await claim_once(session, claim, now=NOW)
            raise refusal

    kept: tuple[Refusal, ...] = (
        StateConflict(state="x"),
        InsufficientBalance(missing_fen=1),
        RequestNumberReused(number="another"),
    )
    for refusal in (*kept, NotFound(), RealNameRequired(), TokenRefused(), Overloaded()):
        with pytest.raises(type(refusal)):
            await claim_and_refuse(refusal)
        told = await _told(db, _claim(refusal.code))
        assert (told is not None) == (refusal in kept), refusal.status
        if refusal in kept:
            assert type(told) is type(refusal)
            assert isinstance(told, Refusal)
            assert (told.facts, told.is_replayed) == (refusal.facts, True)


async def test_what_succeeds_is_not_kept_as_a_refusal_and_a_repeat_is_not_kept_anew(
    db: Database,
) -> None:
    claim = _claim()
    async with kept_if_refused(db, claim, now=NOW):
        await _ask(db, claim)
    assert await _ask(db, _claim()) == Kept(claim.subject_id, None)
    replayed = Refusal.replayed(StateConflict(state="x").stored())
    with pytest.raises(StateConflict):
        async with kept_if_refused(db, _claim("number02"), now=NOW):
            raise replayed
    assert await _ask(db, _claim("number02")) is None


async def test_a_fault_leaves_the_number_free(db: Database) -> None:
    with pytest.raises(ZeroDivisionError):
        async with kept_if_refused(db, _claim(), now=NOW):
            raise ZeroDivisionError
    assert await _ask(db, _claim()) is None


def test_the_hash_is_of_the_content_and_not_of_its_order() -> None:
    assert request_hash({"a": 1, "b": 2}) == request_hash({"b": 2, "a": 1})
    hashes = {request_hash("ab", "c"), request_hash("a", "bc"), request_hash("abc"), TOMBSTONE}
    assert len(hashes) == 4


def test_a_refusal_is_told_before_other_content_only_of_a_buried_number() -> None:
    claim, kept = _claim(), {"refusal": StateConflict(state="x").stored()}
    with pytest.raises(StateConflict):
        read_kept(claim, TOMBSTONE, claim.subject_id, kept)
    with pytest.raises(RequestNumberReused):
        read_kept(claim, request_hash("other"), claim.subject_id, kept)
