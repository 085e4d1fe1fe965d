"""A batch does what its requests would do one after the other: held against a plain model.

The model knows nothing of batches, SQL or locks. It replays the requests in the order in which
they were decided, and says what each caller must be told and what each account must hold.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from identity.kernel import Refusal, StateConflict, new_id
from identity.request_numbers import Kept, RequestNumberReused
from tests.wallet.ledger.booking import NOW, Book, Office, open_book, posting, subject_of, told
from wallet import invariants
from wallet.ledger.plans import ACCOUNTS, Decision, NewTransfer, Posted, Posting, Rows
from wallet.ledger.transfers import InsufficientBalance, Move

PURSES = 3


class Ask(NamedTuple):
    """One request; `ending` is what its decision does."""

    number: str
    ending: str
    transfers: tuple[tuple[Move, ...], ...]
    """Of account positions, not ids: 0 is the outside world."""


Told = tuple[Any, ...]


def _moves_something(moves: tuple[Move, ...]) -> bool:
    net = dict.fromkeys(range(PURSES + 1), 0)
    for debit, credit, amount_fen in moves:
        net[debit] -= amount_fen
        net[credit] += amount_fen
    return any(net.values())


positions = st.permutations(range(PURSES + 1))
single_moves = st.builds(lambda at, fen: Move(at[0], at[1], fen), positions, st.integers(1, 60))
transfers = st.lists(single_moves, min_size=1, max_size=3).map(tuple).filter(_moves_something)
asks = st.builds(
    Ask,
    number=st.sampled_from([f"number{digit}" for digit in range(6)]),
    ending=st.sampled_from(["moves"] * 6 + ["refuses", "frees", "faults"]),
    transfers=st.lists(transfers, min_size=1, max_size=2).map(tuple),
)
batches = st.lists(st.lists(asks, min_size=1, max_size=8), min_size=1, max_size=4)


class Model:
    """What must have happened, with dicts."""

    def __init__(self) -> None:
        self.balances_fen = [0] * (PURSES + 1)
        self.kept: dict[str, tuple[Ask, Told]] = {}

    def decide(self, ask: Ask) -> Told:
        """Return what the one whose request is decided is told."""
        assert ask.number not in self.kept, "a number that is used up is never decided again"
        if ask.ending == "frees":
            return ("posted", "freed")
        if ask.ending == "faults":
            return ("fault",)
        outcome = self._moved(ask) if ask.ending == "moves" else ("refused", StateConflict)
        self.kept[ask.number] = (ask, outcome)
        return outcome

    def _moved(self, ask: Ask) -> Told:
        after = list(self.balances_fen)
        for moves in ask.transfers:
            before = list(after)
            for debit, credit, amount_fen in moves:
                after[debit] -= amount_fen
                after[credit] += amount_fen
            if any(after[i] < 0 and after[i] < before[i] for i in range(1, PURSES + 1)):
                return ("refused", InsufficientBalance)
        self.balances_fen = after
        return ("posted", "moved")

    def repeat(self, ask: Ask) -> Told:
        """Return what somebody is told whose number was used up before."""
        first, outcome = self.kept[ask.number]
        if first != ask:
            return ("refused", RequestNumberReused)
        return ("kept",) if outcome[0] == "posted" else (*outcome, "replayed")


def _posting(book: Book, ask: Ask, index: int, decided: list[int]) -> Posting[Any]:
    def decide(rows: Rows) -> Decision[str]:
        decided.append(index)
        assert {rows.get(ACCOUNTS, one).id for one in book.ids} == set(book.ids)
        if ask.ending == "refuses":
            raise StateConflict(state="test")
        if ask.ending == "faults":
            raise ZeroDivisionError
        if ask.ending == "frees":
            return Decision("freed", uses_number=False)
        subject_id = subject_of(book, ask.number)
        made = [
            NewTransfer(
                new_id(NOW),
                f"test.{place}",
                subject_id,
                tuple(Move(book.ids[m.debit_id], book.ids[m.credit_id], m.amount_fen) for m in ms),
            )
            for place, ms in enumerate(ask.transfers)
        ]
        return Decision("moved", transfers=tuple(made))

    return posting(book, ask.number, decide, ask)


def _plainly(book: Book, ask: Ask, result: object) -> Told:
    if isinstance(result, Posted):
        return ("posted", result.answer)
    if isinstance(result, Kept):
        assert result.subject_id == subject_of(book, ask.number)
        return ("kept",)
    if isinstance(result, Refusal):
        return ("refused", type(result), *(["replayed"] if result.is_replayed else []))
    assert isinstance(result, ZeroDivisionError), result
    return ("fault",)


async def _post(office: Office, book: Book, batch: Sequence[Ask], model: Model) -> None:
    decided: list[int] = []
    results = await asyncio.gather(
        *(
            told(office.poster, _posting(book, ask, index, decided))
            for index, ask in enumerate(batch)
        )
    )
    assert len(set(decided)) == len(decided), "nothing is decided twice"
    expected = {index: model.decide(batch[index]) for index in decided}
    for index, ask in enumerate(batch):
        if index not in expected:
            expected[index] = model.repeat(ask)
        assert _plainly(book, ask, results[index]) == expected[index], (index, batch)


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(asked=batches)
async def test_batches_do_what_one_request_after_the_other_does(
    office: Office, asked: list[list[Ask]]
) -> None:
    book, model = await open_book(office, purses=PURSES), Model()
    for batch in asked:
        await _post(office, book, batch, model)
        assert await book.balances_fen() == model.balances_fen
    async with office.db.begin() as session:
        for invariant in invariants.INVARIANTS[:4]:
            assert not await invariant.check(session), invariant.name
