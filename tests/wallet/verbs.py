"""What people do at tills and gates, asked of the wallet as the routes ask it."""

import asyncio
import secrets
from uuid import UUID

from sqlalchemy import select

from api.commands.seeding import bind_phone
from api.services import Services
from identity.kernel import Database
from identity.request_numbers import request_hash
from tests.makers import GateAt, Holder, Shop
from wallet import invariants
from wallet.admission import admissions, parks
from wallet.admission.admissions import Admission, Direction
from wallet.cards import cards, media
from wallet.codes.credentials import NOT_USED, IssuedCredential
from wallet.codes.presentations import Presented, present, present_with_passes
from wallet.codes.reasons import Reason
from wallet.codes.wire import Flag
from wallet.ledger.accounts import Account
from wallet.passes import sales
from wallet.passes.pass_types import PassType
from wallet.passes.passes import Pass
from wallet.payments import charges, refunds
from wallet.payments.charges import Charge
from wallet.payments.refunds import ChargeRefund

WAITING = """
SELECT pid FROM pg_stat_activity
WHERE datname = current_database() AND wait_event_type = 'Lock'"""


async def with_another_phone(services: Services, holder: Holder) -> Holder:
    """Return the holder with a new phone, bound now, and credentials for the windows from now."""
    phone = await bind_phone(services, holder.card_id, services.clock())
    return holder._replace(phone=phone)


async def show(services: Services, holder: Holder, *, slots_ahead: int = 0) -> Presented:
    """Show the code of this slot at a till."""
    now = services.clock()
    code = holder.phone.code_at(now, slots_ahead=slots_ahead)
    return await present(services.db, services.issuer, code, purpose=Flag.PAY, now=now)


async def show_at_gate(services: Services, holder: Holder, *, slots_ahead: int = 0) -> Presented:
    """Show the code of this slot at a gate."""
    now = services.clock()
    code = holder.phone.code_at(now, slots_ahead=slots_ahead)
    return await present_with_passes(services.db, services.issuer, code, now=now)


async def verified_codes(services: Services, holder: Holder, *, count: int) -> list[Presented]:
    """Return codes of one card that are good at once: each of a credential of its own."""
    async with services.db.begin() as session:
        medium = await media.active(session, holder.card_id)
        head = b"CITY" + medium.handle + bytes([medium.gen])
        cids = [head + window.to_bytes(4, "big") for window in range(count)]
        session.add_all(
            IssuedCredential(
                cid=cid,
                medium_id=medium.id,
                anchor=secrets.token_bytes(20),
                body=b"",
                signature=b"",
                last_slot=NOT_USED,
                issued_at=services.clock(),
            )
            for cid in cids
        )
    return [Presented(Reason.OK, cid, 7, holder.card_id, holder.principal_id) for cid in cids]


async def take(
    services: Services,
    shop: Shop,
    presented: Presented,
    *,
    amount_fen: int,
    order_no: str | None = None,
) -> tuple[Charge, bool]:
    """Charge the card behind a code."""
    order_no = order_no or secrets.token_hex(8)
    return await charges.charge(
        services.db,
        services.poster,
        presented,
        merchant_id=shop.merchant_id,
        payable_id=shop.payable_id,
        order_no=order_no,
        request_hash=request_hash(order_no, amount_fen),
        amount_fen=amount_fen,
        description=None,
        terminal_no=None,
        now=services.clock(),
    )


async def give_back(
    services: Services,
    shop: Shop,
    holder: Holder,
    charge_id: UUID,
    *,
    amount_fen: int,
    refund_no: str | None = None,
) -> tuple[ChargeRefund, bool]:
    """Refund part of a charge."""
    refund_no = refund_no or secrets.token_hex(8)
    return await refunds.refund(
        services.db,
        services.poster,
        merchant_id=shop.merchant_id,
        charge_id=charge_id,
        payable_id=shop.payable_id,
        principal_id=holder.principal_id,
        refund_no=refund_no,
        request_hash=request_hash(refund_no, charge_id, amount_fen),
        amount_fen=amount_fen,
        reason="退款",
        now=services.clock(),
    )


async def buy(
    services: Services,
    holder: Holder,
    pass_type: tuple[PassType, int],
    *,
    key: str | None = None,
) -> tuple[Pass, bool]:
    """Buy a pass from the card's balance."""
    sold, deferred_id = pass_type
    return await sales.buy_from_balance(
        services.db,
        services.poster,
        citizen_id=holder.citizen_id,
        idempotency_key=key or secrets.token_hex(8),
        request_hash=request_hash("pass", sold.id),
        card_id=holder.card_id,
        principal_id=holder.principal_id,
        deferred_id=deferred_id,
        pass_type=sold,
        now=services.clock(),
    )


async def scan(
    services: Services,
    gate: GateAt,
    presented: Presented,
    *,
    scan_id: str | None = None,
    direction: Direction = "in",
) -> Admission:
    """Ask to be let in, or out."""
    now, scan_id = services.clock(), scan_id or secrets.token_hex(8)
    admission, _ = await admissions.admit(
        services.db,
        services.poster,
        presented,
        gate_id=gate.gate_id,
        park_id=gate.park.id,
        is_open=parks.is_open(gate.park, now),
        scan_id=scan_id,
        request_hash=request_hash(scan_id, direction),
        direction=direction,
        lane=None,
        scanned_at=now,
        now=now,
    )
    return admission


async def enter(services: Services, gate: GateAt, holder: Holder) -> Admission:
    """Show the code of this slot at a gate, and ask to be let in."""
    return await scan(services, gate, await show_at_gate(services, holder))


async def balance_fen(services: Services, holder: Holder) -> int:
    """Return what is on a holder's card."""
    async with services.db.begin() as session:
        return await cards.balance_fen(session, holder.card_id)


async def account_fen(services: Services, account_id: int) -> int:
    """Return the balance of an account."""
    async with services.db.begin() as session:
        return (
            await session.scalars(select(Account.balance_fen).where(Account.id == account_id))
        ).one()


async def waiting_for_rows(db: Database, *, count: int) -> list[int]:
    """Wait until so many connections wait for a lock; return their backends' process ids."""
    while len(rows := await db.pool.fetch(WAITING)) < count:  # noqa: ASYNC110  # the server tells nobody
        await asyncio.sleep(0.005)
    return [row["pid"] for row in rows]


async def broken(services: Services) -> dict[str, list[invariants.Fault]]:
    """Return the invariants that do not hold, with their faults: none, when all is well."""
    proofs = await invariants.prove(services.db)
    return {proof.invariant.name: proof.faults for proof in proofs if proof.faults}
