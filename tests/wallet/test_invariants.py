"""Invariants: each holds of sound books, and finds the fault that it is there to find.

Every fault is planted by SQL behind the back of the code, in a transaction that is rolled back.
"""

from typing import NamedTuple

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from api.commands.making import make_recharge
from api.services import Services
from tests.conftest import SetClock
from tests.makers import make_gate, make_holder, make_pass_type, make_shop
from tests.wallet.recharge.paying_back import ask_back, provider_says
from tests.wallet.verbs import broken, buy, enter, give_back, show, take
from wallet import invariants
from wallet.cards import cards
from wallet.channels.channel import RefundState
from wallet.invariants import INVARIANTS

BEHIND_THE_BACK = "SET LOCAL session_replication_role = replica"
"""Neither triggers nor foreign keys are in the way of a fault then; checks still are."""


class Planted(NamedTuple):
    """A fault, and every invariant that it breaks."""

    breaks: str
    sql: tuple[str, ...]


def _without(table: str, constraint: str) -> str:
    return f"ALTER TABLE {table} DROP CONSTRAINT ck_{table}_{constraint}"


PRINCIPAL = "(SELECT id FROM ledger_account WHERE kind = 'card.principal' ORDER BY id LIMIT 1)"
SUSPENSE = "(SELECT id FROM ledger_account WHERE kind = 'suspense.unknown_in')"
CHARGE = "(SELECT id FROM payments_charge WHERE state = 'succeeded' LIMIT 1)"
TAKE = "(SELECT id FROM ledger_transfer WHERE kind = 'charge.take' LIMIT 1)"
SOLD = "(SELECT id FROM ledger_transfer WHERE kind = 'pass.sell' LIMIT 1)"
PAID_OUT = "(SELECT id FROM recharge_refund WHERE state = 'succeeded')"
FROM_NOWHERE = """
INSERT INTO ledger_transfer VALUES (gen_random_uuid(), 'charge.take', gen_random_uuid(), now())"""
NEW_ENTRY = (
    "INSERT INTO ledger_entry SELECT id, entry_count + 1, {transfer}, {fen}, balance_fen + {fen},"
    " now() FROM ledger_account WHERE id = {account}",
    "UPDATE ledger_account SET entry_count = entry_count + 1, balance_fen = balance_fen + {fen}"
    " WHERE id = {account}",
)


def _entry(transfer: str, account: str, fen: int) -> tuple[str, ...]:
    return tuple(sql.format(transfer=transfer, account=account, fen=fen) for sql in NEW_ENTRY)


PLANTED: dict[str, Planted] = {
    "a transfer gained a fen on one side": Planted("I1 I2 I10", _entry(TAKE, SUSPENSE, 1)),
    "a transfer has no entries": Planted("I1", (FROM_NOWHERE,)),
    "an entry of a transfer vanished": Planted(
        "I1 I3 I10",
        (f"DELETE FROM ledger_entry WHERE transfer_id = {TAKE} AND amount_fen > 0",),
    ),
    "a balance was raised": Planted(
        "I2 I3",
        (f"UPDATE ledger_account SET balance_fen = balance_fen + 1 WHERE id = {PRINCIPAL}",),
    ),
    "money was shifted between two balances": Planted(
        "I3 I15",
        (
            "UPDATE ledger_account SET balance_fen = balance_fen - 5"
            " WHERE kind = 'clearing.wechat_pay'",
            f"UPDATE ledger_account SET balance_fen = balance_fen + 5 WHERE id = {SUSPENSE}",
        ),
    ),
    "an account counts an entry too many": Planted(
        "I3", (f"UPDATE ledger_account SET entry_count = entry_count + 1 WHERE id = {PRINCIPAL}",)
    ),
    "entries have a gap": Planted(
        "I3",
        (
            "UPDATE ledger_entry SET number = number + 1 WHERE (account_id, number) ="
            f" (SELECT account_id, max(number) FROM ledger_entry WHERE account_id = {PRINCIPAL}"
            " GROUP BY account_id)",
        ),
    ),
    "an entry says another balance after it": Planted(
        "I3",
        (
            "UPDATE ledger_entry SET balance_after_fen = balance_after_fen + 1"
            f" WHERE account_id = {PRINCIPAL} AND number = 1",
        ),
    ),
    "a card was overdrawn for a moment": Planted(
        "I3 I4",
        (
            "UPDATE ledger_entry SET balance_after_fen = -1"
            f" WHERE account_id = {PRINCIPAL} AND amount_fen < 0",
        ),
    ),
    "a floor was raised above what a card went down to": Planted(
        "I4",
        (f"UPDATE ledger_account SET floor_fen = balance_fen WHERE id = {PRINCIPAL}",),
    ),
    "a charge says it gave back more than it did": Planted(
        "I7", ("UPDATE payments_charge SET refunded_fen = refunded_fen + 1",)
    ),
    "a charge gave back more than it took": Planted(
        "I7 I10",
        (
            _without("payments_charge", "refunded"),
            "UPDATE payments_charge SET refunded_fen = amount_fen + 1",
            "UPDATE payments_refund SET amount_fen ="
            " (SELECT refunded_fen FROM payments_charge c WHERE c.id = charge_id),"
            " refunded_fen = amount_fen + 1000000",
        ),
    ),
    "a declined charge gave money back": Planted(
        "I7 I10", ("UPDATE payments_charge SET state = 'declined', reason = 601",)
    ),
    "a recharge says it was refunded more than it was": Planted(
        "I8",
        ("UPDATE recharge_recharge SET refunded_fen = refunded_fen + 1 WHERE refunded_fen > 0",),
    ),
    "a recharge was refunded more than was paid": Planted(
        "I8 I10 I15",
        (
            _without("recharge_recharge", "refunded"),
            f"UPDATE recharge_refund SET amount_fen = amount_fen + 20000 WHERE id = {PAID_OUT}",
            "UPDATE recharge_recharge SET refunded_fen = refunded_fen + 20000"
            f" WHERE id = (SELECT recharge_id FROM recharge_refund WHERE id = {PAID_OUT})",
        ),
    ),
    "an unpaid recharge was refunded": Planted(
        "I8", ("UPDATE recharge_recharge SET state = 'closed' WHERE refunded_fen > 0",)
    ),
    "a charge moved another amount than it says": Planted(
        "I10", ("UPDATE payments_charge SET amount_fen = amount_fen + 1",)
    ),
    "a charge has no money": Planted(
        "I10",
        (
            "INSERT INTO payments_charge SELECT gen_random_uuid(), 'CH7', merchant_id, 'order7',"
            " card_id, state, reason, amount_fen, 0, NULL, NULL, now() FROM payments_charge",
        ),
    ),
    "money moved for a pass that is not there": Planted(
        "I10 entries", ("DELETE FROM passes_park_day", "DELETE FROM passes_pass")
    ),
    "a pass was sold for another price than was paid": Planted(
        "I10", ("UPDATE passes_pass SET price_fen = price_fen + 1",)
    ),
    "a refund of a charge moved nothing": Planted(
        "I1 I3 I10",
        (
            "DELETE FROM ledger_entry WHERE transfer_id IN"
            " (SELECT id FROM ledger_transfer WHERE kind = 'charge.refund')",
        ),
    ),
    "a recharge's money is booked as another recharge's": Planted(
        "I10",
        (
            "UPDATE ledger_transfer SET business_id = gen_random_uuid()"
            " WHERE id = (SELECT id FROM ledger_transfer WHERE kind = 'recharge.credit' LIMIT 1)",
        ),
    ),
    "entries can be changed": Planted(
        "I13", ("ALTER TABLE ledger_entry DISABLE TRIGGER ledger_entry_appended_only",)
    ),
    "transfers are guarded only for replicas": Planted(
        "I13", ("ALTER TABLE ledger_transfer ENABLE REPLICA TRIGGER ledger_transfer_appended_only",)
    ),
    "the audit has no guard": Planted(
        "I13", ("DROP TRIGGER identity_audit_appended_only ON identity_audit",)
    ),
    "uses of codes have no guard": Planted(
        "I13", ("DROP TRIGGER codes_use_appended_only ON codes_use",)
    ),
    "a recharge was credited without a proof": Planted(
        "I14",
        (
            _without("channels_attempt", "paid"),
            "UPDATE channels_attempt SET state = 'sent' WHERE order_id ="
            " (SELECT recharge_id FROM recharge_refund WHERE state = 'processing')",
        ),
    ),
    "a proven payment was never credited": Planted(
        "I14",
        ("UPDATE channels_attempt SET state = 'paid', channel_txn_no = '42' WHERE state = 'sent'",),
    ),
    "a payment was proven that is not in the clearing": Planted(
        "I15", ("UPDATE channels_attempt SET amount_fen = amount_fen + 1 WHERE state = 'paid'",)
    ),
    "a payment was booked under no number of the provider": Planted(
        "I15",
        (
            "DELETE FROM request_number WHERE scope = 'channel.payment' AND number ="
            " (SELECT min(number) FROM request_number WHERE scope = 'channel.payment')",
        ),
    ),
    "a refund under way is not kept for it": Planted(
        "I8 I10 I16",
        ("UPDATE recharge_refund SET amount_fen = amount_fen + 1 WHERE state = 'processing'",),
    ),
    "a refund is called paid out while its money waits": Planted(
        "I10 I15 I16",
        ("UPDATE recharge_refund SET state = 'succeeded' WHERE state = 'processing'",),
    ),
    "a refund that failed is called under way": Planted(
        "I8 I10 I16", ("UPDATE recharge_refund SET state = 'processing' WHERE state = 'failed'",)
    ),
    "a lost card can pay": Planted(
        "I17", ("UPDATE ledger_account SET blocked = 0 WHERE blocked = 402",)
    ),
    "a good card is blocked": Planted(
        "I17", (f"UPDATE ledger_account SET blocked = 402 WHERE id = {PRINCIPAL}",)
    ),
    "a closed card can pay": Planted(
        "I17", ("UPDATE cards_card SET state = 'closed' WHERE state = 'lost'",)
    ),
    "a closed card has money": Planted(
        "I17",
        (
            "UPDATE cards_card SET state = 'closed' WHERE state = 'active'",
            "UPDATE ledger_account SET blocked = 404 WHERE kind = 'card.principal' AND blocked = 0",
        ),
    ),
    "a card has no account": Planted(
        "I17",
        (
            "DELETE FROM ledger_account WHERE kind = 'card.principal' AND balance_fen = 0"
            " AND entry_count = 0",
        ),
    ),
    "a use is forgotten by its credential": Planted(
        "codes", ("UPDATE codes_credential SET last_slot = -1",)
    ),
    "a use has vanished": Planted("codes", ("DELETE FROM codes_use",)),
    "a credential of a use was never issued": Planted(
        "codes", ("DELETE FROM codes_credential WHERE last_slot >= 0",)
    ),
    "a later slot was used than the credential says": Planted(
        "codes", ("UPDATE codes_use SET slot = slot + 100 WHERE used_by = 'admission'",)
    ),
    "an entry was not counted": Planted("entries", ("UPDATE passes_park_day SET entries = 0",)),
    "a day counts more entries than there were": Planted(
        "entries", ("UPDATE passes_park_day SET entries = entries + 1",)
    ),
    "an admission was counted on another day": Planted(
        "entries", ("UPDATE passes_park_day SET used_on = used_on + 1",)
    ),
    "an admission that stands is not counted at all": Planted(
        "entries", ("DELETE FROM passes_park_day",)
    ),
    "a voided admission is still counted": Planted(
        "entries", ("UPDATE admission_admission SET state = 'voided'",)
    ),
}


REFUNDS: tuple[tuple[int, RefundState], ...] = (
    (400, "succeeded"),
    (500, "processing"),
    (600, "failed"),
)
"""Recharges of so much, of each of which a fifth or so was asked back, and what came of it."""


@pytest.fixture
async def city(services: Services, clock: SetClock) -> Services:
    """Return a city in which everything that money does has happened once."""
    holder, shop, gate = (
        await make_holder(services, balance_fen=10_000),
        await make_shop(services),
        await make_gate(services),
    )
    charge, _ = await take(services, shop, await show(services, holder), amount_fen=700)
    await give_back(services, shop, holder, charge.id, amount_fen=200)
    await buy(services, holder, await make_pass_type(services, [gate.park.id]))
    clock.go(seconds=15)
    await enter(services, gate, holder)
    await make_recharge(services, holder.citizen_id, holder.card_id, amount_fen=300, is_paid=False)
    for amount_fen, said in REFUNDS:
        recharge_id, _ = await make_recharge(
            services, holder.citizen_id, holder.card_id, amount_fen=amount_fen
        )
        refund_id, _ = await ask_back(services, holder.card_id, recharge_id, amount_fen=100)
        await provider_says(services, refund_id, said)
    lost = await make_holder(services)
    async with services.db.begin() as session:
        await cards.report_loss(session, lost.citizen_id, lost.card_id, now=clock())
    return services


async def _broken_by(services: Services, statements: tuple[str, ...]) -> set[str]:
    """Return the invariants that a fault breaks, and leave no trace of it."""
    async with AsyncSession(services.db.engine) as session:
        for sql in (BEHIND_THE_BACK, *statements):
            await session.execute(text(sql))
        found = {one.name for one in INVARIANTS if await one.check(session)}
        await session.rollback()
    return found


async def test_every_invariant_finds_the_faults_it_is_there_to_find(city: Services) -> None:
    assert not await broken(city)
    found = {name: await _broken_by(city, fault.sql) for name, fault in PLANTED.items()}
    assert found == {name: set(fault.breaks.split()) for name, fault in PLANTED.items()}
    assert not await broken(city)


def test_a_fault_is_planted_for_every_invariant() -> None:
    names = [one.name for one in INVARIANTS]
    assert {name for fault in PLANTED.values() for name in fault.breaks.split()} == set(names)
    assert len(names) == len(set(names))


async def test_a_proof_says_where_and_by_how_much(city: Services) -> None:
    async with city.db.begin() as session:
        await session.execute(text(BEHIND_THE_BACK))
        await session.execute(
            text(f"UPDATE ledger_account SET balance_fen = balance_fen + 3 WHERE id = {PRINCIPAL}")
        )
        account_id = await session.scalar(text(f"SELECT {PRINCIPAL}"))
    seen: list[invariants.Proof] = []
    proofs = await invariants.prove(city.db, progress=seen.append)
    assert seen == proofs
    assert [proof.invariant for proof in proofs] == list(INVARIANTS)
    faults = {proof.invariant.name: proof.faults for proof in proofs if proof.faults}
    assert faults == {
        "I2": [invariants.Fault("all accounts", 3)],
        "I3": [invariants.Fault(f"account {account_id}", 3)],
    }


async def test_of_many_faults_the_first_twenty_are_told(city: Services) -> None:
    async with city.db.begin() as session:
        await session.execute(text(BEHIND_THE_BACK))
        for _ in range(30):
            await session.execute(text(FROM_NOWHERE))
    (fault,) = [proof for proof in await invariants.prove(city.db) if proof.faults]
    assert (fault.invariant.name, len(fault.faults)) == ("I1", invariants.FAULTS_MAX)
