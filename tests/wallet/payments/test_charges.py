"""Charges: once per order number, once per code, never more than the card has."""

import asyncio
import secrets

from api.services import Services
from identity.request_numbers import request_hash
from tests.makers import Holder, Shop, make_holder, make_shop
from wallet import invariants
from wallet.cards import cards
from wallet.codes.presentations import Presented, present
from wallet.codes.reasons import Reason
from wallet.codes.wire import Flag
from wallet.payments import charges
from wallet.payments.charges import Charge


async def _charge(
    services: Services, shop: Shop, presented: Presented, *, order_no: str, amount_fen: int
) -> tuple[Charge, bool]:
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


async def _show(services: Services, holder: Holder, *, slots_ahead: int = 0) -> Presented:
    now = services.clock()
    code = holder.phone.code_at(now, slots_ahead=slots_ahead)
    return await present(services.db, services.issuer, code, purpose=Flag.PAY, now=now)


async def _balance_fen(services: Services, holder: Holder) -> int:
    async with services.db.begin() as session:
        return await cards.balance_fen(session, holder.card_id)


async def test_fifty_equal_charges_at_once_charge_once(services: Services) -> None:
    holder, shop = await make_holder(services, balance_fen=10_000), await make_shop(services)
    presented = await _show(services, holder)
    told = await asyncio.gather(
        *(
            _charge(services, shop, presented, order_no="order0001", amount_fen=700)
            for _ in range(50)
        )
    )
    assert {charge.id for charge, _ in told} == {told[0][0].id}
    assert [is_new for _, is_new in told].count(True) == 1
    assert await _balance_fen(services, holder) == 9_300
    assert not [proof for proof in await invariants.prove(services.db) if proof.faults]


async def test_a_code_shown_at_two_tills_at_once_pays_once(services: Services) -> None:
    holder, shop = await make_holder(services, balance_fen=10_000), await make_shop(services)
    presented = await _show(services, holder)
    told = await asyncio.gather(
        *(
            _charge(services, shop, presented, order_no=secrets.token_hex(8), amount_fen=700)
            for _ in range(2)
        )
    )
    assert sorted(charge.reason for charge, _ in told) == [Reason.OK, Reason.REPLAYED]
    assert await _balance_fen(services, holder) == 9_300
