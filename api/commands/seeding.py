"""The demo's city (示范数据): parks, gates, merchants, operators, and citizens with a history.

Everything is made by the verbs that production uses; only the identity check of the seeded
citizens is entered as decided long ago, since drawing and checking 600 pictures takes a minute.
"""

import asyncio
import secrets
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

import httpx
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from api.commands.access import GateAccess, MerchantAccess, OperatorAccess
from api.commands.machines import register_key
from api.commands.phones import Phone, Signed
from api.services import Services
from identity.devices import devices
from identity.devices.devices import Gate
from identity.kernel import new_id
from identity.merchants import merchants
from identity.merchants.merchants import Merchant, MerchantKind
from identity.passwords import new_totp_secret
from identity.people import id_numbers, sign_ins
from identity.people.citizens import Citizen
from identity.people.real_names import RealNameCase
from identity.request_numbers import request_hash
from identity.sealing import blind_index, seal
from identity.staff import operators
from wallet import fulfilment
from wallet.admission import admissions, parks
from wallet.cards import cards, media
from wallet.codes import credentials
from wallet.codes.presentations import present, present_with_passes
from wallet.codes.wire import Flag
from wallet.ledger.accounts import account_id, new_account
from wallet.ledger.chart import Kind
from wallet.passes import pass_types, sales
from wallet.passes.pass_types import PassType
from wallet.payments import charges, refunds
from wallet.recharge import recharges

CITIZENS = 200
AT_ONCE = 8
FAMILY_NAMES = "王李张刘陈杨黄赵吴周徐孙马朱胡"
GIVEN_NAMES = "伟芳娜敏静丽强磊军洋勇艳杰娟涛明超霞平刚"


SHOPS: tuple[tuple[str, MerchantKind], ...] = (
    ("惠山茶社", "shop"),
    ("蠡湖书店", "shop"),
    ("太湖宾馆", "hotel"),
)


class City(NamedTuple):
    """What a newcomer may use of the seeded city."""

    merchants: list[MerchantAccess]
    gates: list[GateAccess]
    operators: list[OperatorAccess]


class _Places(NamedTuple):
    """Rows that the history refers to."""

    merchant_ids: list[UUID]
    gates: list[tuple[UUID, parks.Park]]
    pass_types: list[PassType]


async def seed_city(services: Services, keep: Callable[[City], None], *, now: datetime) -> None:
    """Make parks, pass types, merchants, gates and operators.

    `keep` writes the keys down before the rows are committed: rows without keys would be a city
    that nobody can use, keys without rows are simply made again.
    """
    async with services.db.begin() as session:
        made_parks = [
            parks.add(
                session, name=name, name_en=name_en, opens_minute=0, closes_minute=closes, now=now
            )
            for name, name_en, closes in (
                ("锡惠公园", "Xihui Park", parks.MINUTES_OF_A_DAY),
                ("蠡园", "Liyuan Garden", parks.MINUTES_OF_A_DAY),
                ("梅园", "Plum Garden", parks.MINUTES_OF_A_DAY),
                ("鼋头渚（闭园维护）", "Turtle Head Isle (closed)", 0),
            )
        ]
        park_ids = [park.id for park in made_parks]
        for name, name_en, price_fen, ids, bit in (
            ("园林年票", "Garden pass", 12_000, park_ids, 0),
            ("锡惠年票", "Xihui pass", 4_000, park_ids[:1], 2),
        ):
            pass_types.add(
                session,
                name=name,
                name_en=name_en,
                price_fen=price_fen,
                valid_days=365,
                park_ids=ids,
                entries_per_park_and_day=20,
                group_bit=bit,
                now=now,
            )
        shops = [merchants.add(session, name=name, kind=kind, now=now) for name, kind in SHOPS]
        for shop in shops:
            session.add(new_account(Kind.MERCHANT_PAYABLE, shop.id))
        gates = [
            devices.add(session, name=f"{park.name}东门", site_id=park.id, now=now)
            for park in made_parks
        ]
        await session.flush()
        city = City(
            [
                MerchantAccess(
                    shop.name, shop.kind, *register_key(session, "merchant", shop.id, now)
                )
                for shop in shops
            ],
            [
                GateAccess(gate.name, park.name, *register_key(session, "gate", gate.id, now))
                for gate, park in zip(gates, made_parks, strict=True)
            ],
            [await _operator(services, session, login, now) for login in ("alice", "bob")],
        )
        keep(city)


async def is_seeded(services: Services) -> bool:
    """Say whether the city is there."""
    async with services.db.begin() as session:
        return bool(await parks.all_parks(session))


async def _places(services: Services) -> _Places:
    async with services.db.begin() as session:
        parks_by_id = {park.id: park for park in await parks.all_parks(session)}
        gates = await session.scalars(select(Gate).order_by(Gate.created_at, Gate.id))
        return _Places(
            list(await session.scalars(select(Merchant.id))),
            [
                (gate.id, parks_by_id[gate.site_id])
                for gate in gates
                if parks_by_id[gate.site_id].closes_minute
            ],
            await pass_types.on_sale(session),
        )


async def _operator(
    services: Services, session: AsyncSession, login: str, now: datetime
) -> OperatorAccess:
    access = OperatorAccess(login, secrets.token_urlsafe(12), new_totp_secret())
    await operators.add(
        session,
        login=login,
        password=access.password,
        totp_secret=access.totp_secret,
        ring=services.ring,
        now=now,
    )
    return access


async def seed_citizens(
    services: Services,
    control_url: str,
    *,
    progress: Callable[[int, int], None],
) -> None:
    """Make the citizens, with money really paid at the provider, spending, passes and visits."""
    waiting, places = asyncio.Semaphore(AT_ONCE), await _places(services)
    done = 0

    async def one(number: int, control: httpx.AsyncClient) -> None:
        nonlocal done
        async with waiting:
            await _seed_citizen(services, control, places, number)
        done += 1
        progress(done, CITIZENS)

    async with httpx.AsyncClient(base_url=control_url, trust_env=False) as control:
        await asyncio.gather(*(one(number, control) for number in range(1, CITIZENS + 1)))


async def count_citizens(services: Services) -> int:
    """Return how many citizens there are."""
    async with services.db.begin() as session:
        return await session.scalar(select(func.count()).select_from(Citizen)) or 0


async def _seed_citizen(
    services: Services, control: httpx.AsyncClient, places: _Places, number: int
) -> None:
    rng, now = secrets.SystemRandom(), services.clock()
    person = await services.sign_in_providers["wechat"].person_of(f"sim:citizen{number:03d}")
    async with services.db.begin() as session:
        citizen_id, is_new = await sign_ins.sign_in(session, person, now=now)
        if is_new:
            session.add(decided_case(services, citizen_id, now))
        elif await cards.list_own(session, citizen_id):
            return  # Seeded by an earlier run that was interrupted later on.
    async with services.db.begin() as session:
        card = await cards.issue(session, citizen_id, card_type="standard", now=now)
    phone = await bind_phone(services, card.id, now)
    for _ in range(rng.randint(1, 2)):
        await _recharge(services, control, citizen_id, card.id, rng.randrange(100, 501) * 100)
    await buy_pass(services, citizen_id, card.id, rng.choice(places.pass_types))
    merchant_id = rng.choice(places.merchant_ids)
    paid = await _charge(services, phone, merchant_id, rng.randrange(500, 8000))
    if paid and number % 5 == 0:
        await _refund(services, merchant_id, paid, paid.amount_fen // 2)
    gate_id, park = rng.choice(places.gates)
    await _enter(services, phone, gate_id, park)


async def bind_phone(services: Services, card_id: UUID, now: datetime) -> Phone:
    """Bind a phone to a card and sign its first credentials, as the routes do."""
    number = services.issuer.number
    async with services.db.begin() as session:
        medium = await media.active(session, card_id, for_update=True)
        device_id = secrets.token_hex(16)
        await media.bind_phone(session, medium, device_id=device_id, model="demo", now=now)
        suite = credentials.signing_suite(services.ring, now)
        key = credentials.phone_key(services.ring, medium, issuer=number, suite=suite)
        phone = Phone(issuer=number, suite=suite, card=medium.handle, gen=medium.gen, key=key)
        wanted = phone.draw(now, windows=2)
        issued = await credentials.issue(
            session, medium, wanted, issuer=number, ring=services.ring, now=now
        )
    for one in issued:
        phone.keep(int.from_bytes(one.cid[13:], "big"), Signed(one.body, one.signature))
    return phone


def decided_case(services: Services, citizen_id: UUID, now: datetime) -> RealNameCase:
    """Return an identity check that passed long ago; its pictures are deleted by now."""
    rng = secrets.SystemRandom()
    name = rng.choice(FAMILY_NAMES) + "".join(rng.choices(GIVEN_NAMES, k=2))
    birth_on = (now - timedelta(days=rng.randrange(20 * 365, 80 * 365))).date()
    number = id_numbers.make(
        region_code="320299", birth_on=birth_on, sequence=rng.randrange(1, 999)
    )
    case_id, decided_at, table = new_id(now), now - timedelta(days=60), RealNameCase.__tablename__
    return RealNameCase(
        id=case_id,
        citizen_id=citizen_id,
        state="passed",
        reasons=[],
        name_sealed=seal(services.ring, name.encode(), table=table, column="name", row_id=case_id),
        number_sealed=seal(
            services.ring, number.encode(), table=table, column="number", row_id=case_id
        ),
        number_index=blind_index(services.ring, "id_number", number),
        name_masked=id_numbers.mask_name(name),
        number_masked=id_numbers.mask_id_number(number),
        created_at=decided_at,
        decided_at=decided_at,
        decided_by=None,
    )


async def _recharge(
    services: Services,
    control: httpx.AsyncClient,
    citizen_id: UUID,
    card_id: UUID,
    amount_fen: int,
) -> None:
    now = services.clock()
    opened, _ = await recharges.open_recharge(
        services.db,
        services.cashier.channels,
        citizen_id=citizen_id,
        idempotency_key=secrets.token_hex(16),
        request_hash=request_hash("seed"),
        card_id=card_id,
        amount_fen=amount_fen,
        channel="wechat_pay",
        now=now,
    )
    answer = await control.post("pay", json={"out_trade_no": opened.attempt.out_trade_no})
    answer.raise_for_status()
    await fulfilment.ask(services.cashier, opened.attempt, now=services.clock())


async def buy_pass(
    services: Services, citizen_id: UUID, card_id: UUID, pass_type: PassType
) -> None:
    """Buy a pass for the card's money, if that suffices."""
    async with services.db.begin() as session:
        principal_id = await account_id(session, Kind.CARD_PRINCIPAL, card_id)
        deferred_id = await account_id(session, Kind.PASS_DEFERRED, pass_type.id)
        balance_fen = await cards.balance_fen(session, card_id)
    if balance_fen < pass_type.price_fen:
        return
    await sales.buy_from_balance(
        services.db,
        services.poster,
        citizen_id=citizen_id,
        idempotency_key=secrets.token_hex(16),
        request_hash=request_hash("seed"),
        card_id=card_id,
        principal_id=principal_id,
        deferred_id=deferred_id,
        pass_type=pass_type,
        now=services.clock(),
    )


async def _charge(
    services: Services, phone: Phone, merchant_id: UUID, amount_fen: int
) -> charges.Charge | None:
    now = services.clock()
    presented = await present(
        services.db, services.issuer, phone.code_at(now), purpose=Flag.PAY, now=now
    )
    till = await services.tills.find(merchant_id, now=now)
    assert till
    charge, _ = await charges.charge(
        services.db,
        services.poster,
        presented,
        merchant_id=merchant_id,
        payable_id=till.payable_id,
        order_no=secrets.token_hex(8),
        request_hash=request_hash("seed"),
        amount_fen=amount_fen,
        description="茶点",
        terminal_no=None,
        now=now,
    )
    return charge if charge.state == "succeeded" else None


async def _refund(
    services: Services, merchant_id: UUID, charge: charges.Charge, amount_fen: int
) -> None:
    now = services.clock()
    assert charge.card_id
    async with services.db.begin() as session:
        principal_id = await account_id(session, Kind.CARD_PRINCIPAL, charge.card_id)
        payable_id = await account_id(session, Kind.MERCHANT_PAYABLE, merchant_id)
    await refunds.refund(
        services.db,
        services.poster,
        merchant_id=merchant_id,
        charge_id=charge.id,
        payable_id=payable_id,
        principal_id=principal_id,
        refund_no=secrets.token_hex(8),
        request_hash=request_hash("seed"),
        amount_fen=amount_fen,
        reason="退货",
        now=now,
    )


async def _enter(services: Services, phone: Phone, gate_id: UUID, park: parks.Park) -> None:
    now = services.clock()
    presented = await present_with_passes(
        services.db, services.issuer, phone.code_at(now, slots_ahead=1), now=now
    )
    admission, _ = await admissions.admit(
        services.db,
        services.poster,
        presented,
        gate_id=gate_id,
        park_id=park.id,
        is_open=parks.is_open(park, now),
        scan_id=secrets.token_hex(16),
        request_hash=request_hash("seed"),
        direction="in",
        lane=None,
        scanned_at=now,
        now=now,
    )
    if admission.state == "authorised":
        async with services.db.begin() as session:
            await admissions.report(session, gate_id, admission.id, "passed", at=now)
