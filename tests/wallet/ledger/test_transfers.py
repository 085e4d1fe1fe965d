"""The laws of moving money, on values alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wallet.ledger.transfers import InsufficientBalance, Move, Side, apply_moves

ACCOUNTS = (1, 2, 3, 4)
floors = st.fixed_dictionaries({account: st.none() | st.integers(-500, 0) for account in ACCOUNTS})
pairs = st.permutations(ACCOUNTS).map(lambda order: (order[0], order[1]))
moves = st.lists(
    st.builds(lambda pair, fen: Move(pair[0], pair[1], fen), pairs, st.integers(1, 700)),
    min_size=1,
    max_size=6,
).filter(lambda wanted: any(_net(wanted).values()))
"""Moves that do something together; that cancelling ones are a mistake has a test of its own."""
Drawn = tuple[dict[int, int], dict[int, int | None]]
"""Balances and floors."""


@st.composite
def books(draw: st.DrawFn) -> Drawn:
    """Draw floors, and balances that are not below them."""
    drawn: dict[int, int | None] = draw(floors)
    above = {account: draw(st.integers(0, 1_000)) for account in ACCOUNTS}
    return {a: above[a] + (drawn[a] or 0) for a in ACCOUNTS}, drawn


def _net(wanted: list[Move]) -> dict[int, int]:
    """Return what moves change, account by account, added up in the plainest way."""
    return {
        account: sum(m.amount_fen for m in wanted if m.credit_id == account)
        - sum(m.amount_fen for m in wanted if m.debit_id == account)
        for account in ACCOUNTS
    }


def _applied(book: Drawn, wanted: list[Move]) -> list[Side] | None:
    try:
        return apply_moves(*book, wanted)
    except InsufficientBalance:
        return None


@given(books(), moves)
def test_money_is_neither_made_nor_lost(book: Drawn, wanted: list[Move]) -> None:
    sides = _applied(book, wanted)
    if sides is None:
        return
    net = {account: change for account, change in _net(wanted).items() if change}
    assert sum(side.amount_fen for side in sides) == 0
    assert {side.account_id: side.amount_fen for side in sides} == net
    assert all(
        side.balance_after_fen == book[0][side.account_id] + side.amount_fen for side in sides
    )


@given(books(), moves)
def test_it_is_refused_if_and_only_if_a_payer_would_end_below_its_floor(
    book: Drawn, wanted: list[Move]
) -> None:
    balances, limits = book
    too_low = [
        account
        for account, change in _net(wanted).items()
        if change < 0 and (floor := limits[account]) is not None
        if balances[account] + change < floor
    ]
    assert (_applied(book, wanted) is None) == bool(too_low)


@given(books(), moves)
def test_the_order_of_moves_does_not_matter(book: Drawn, wanted: list[Move]) -> None:
    there, back = _applied(book, wanted), _applied(book, wanted[::-1])
    assert (there is None) == (back is None)
    assert sorted(there or []) == sorted(back or [])


@given(books(), moves)
def test_what_was_taken_can_always_be_given_back(book: Drawn, wanted: list[Move]) -> None:
    sides = _applied(book, wanted)
    if sides is None:
        return
    after = book[0] | {side.account_id: side.balance_after_fen for side in sides}
    returned = [Move(move.credit_id, move.debit_id, move.amount_fen) for move in wanted]
    back = _applied((after, book[1]), returned)
    assert back is not None
    assert {side.account_id: side.balance_after_fen for side in back} == {
        side.account_id: book[0][side.account_id] for side in sides
    }


@given(pairs, st.integers(1, 10**12), st.integers(-(10**12), -1))
def test_money_may_come_to_an_account_below_its_floor(
    pair: tuple[int, int], amount_fen: int, below_fen: int
) -> None:
    payer, poor = pair
    sides = apply_moves(
        {payer: amount_fen, poor: below_fen}, {payer: 0, poor: 0}, [Move(payer, poor, amount_fen)]
    )
    assert Side(poor, amount_fen, below_fen + amount_fen) in sides


@pytest.mark.parametrize(
    "wanted",
    [
        [Move(1, 2, 0)],
        [Move(1, 2, -5)],
        [Move(1, 1, 5)],
        [Move(1, 2, 5), Move(2, 1, 5)],
        [],
    ],
)
def test_a_transfer_that_moves_nothing_is_a_mistake(wanted: list[Move]) -> None:
    with pytest.raises(AssertionError):
        apply_moves({1: 100, 2: 100}, {1: 0, 2: 0}, wanted)
