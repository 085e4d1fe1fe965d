"""Makers: a citizen, a card with money, a merchant, a gate, made by the verbs of the product."""

import secrets
from typing import NamedTuple
from uuid import UUID

import httpx

from api.clock import Clock
from api.commands.access import OperatorAccess
from api.commands.callers import Citizen as Caller
from api.commands.callers import Machine
from api.commands.machines import register_key
from api.commands.making import make_recharge
from api.commands.phones import Phone
from api.commands.seeding import bind_phone, decided_case
from api.services import Services
from identity import access_tokens, tokens
from identity.devices import devices
from identity.merchants import merchants
from identity.passwords import new_totp_secret
from identity.people import sign_ins
from identity.providers.provider import ProviderPerson
from identity.staff import operators
from wallet.admission import parks
from wallet.admission.parks import MINUTES_OF_A_DAY, Park
from wallet.cards import cards
from wallet.ledger.accounts import account_id, new_account
from wallet.ledger.chart import Kind
from wallet.passes import pass_types
from wallet.passes.pass_types import PassType


class Holder(NamedTuple):
    """A verified citizen with a card, its account and a phone."""

    citizen_id: UUID
    card_id: UUID
    principal_id: int
    phone: Phone


class Shop(NamedTuple):
    """A merchant with its account and signing key."""

    merchant_id: UUID
    payable_id: int
    keyid: str
    private_key_pem: str

    def machine(self, client: httpx.AsyncClient, clock: Clock) -> Machine:
        """Return the merchant's server."""
        return Machine(client, self.keyid, self.private_key_pem, clock)


class GateAt(NamedTuple):
    """A gate at a park, with its signing key."""

    gate_id: UUID
    park: Park
    keyid: str
    private_key_pem: str

    def machine(self, client: httpx.AsyncClient, clock: Clock) -> Machine:
        """Return the gate."""
        return Machine(client, self.keyid, self.private_key_pem, clock)


async def make_citizen(services: Services, *, is_verified: bool = True) -> UUID:
    """Return a citizen who signed in with WeChat, and passed the identity check."""
    now = services.clock()
    person = ProviderPerson("wechat", "wx-test", f"open-{secrets.token_hex(8)}", None)
    async with services.db.begin() as session:
        citizen_id, _ = await sign_ins.sign_in(session, person, now=now)
        if is_verified:
            session.add(decided_case(services, citizen_id, now))
    return citizen_id


async def make_holder(services: Services, *, balance_fen: int = 0) -> Holder:
    """Return a citizen with a card, a bound phone with credentials, and money on the card."""
    now = services.clock()
    citizen_id = await make_citizen(services)
    async with services.db.begin() as session:
        card = await cards.issue(session, citizen_id, card_type="standard", now=now)
        await session.flush()
        principal_id = await account_id(session, Kind.CARD_PRINCIPAL, card.id)
    phone = await bind_phone(services, card.id, now)
    if balance_fen:
        await make_recharge(services, citizen_id, card.id, amount_fen=balance_fen)
    return Holder(citizen_id, card.id, principal_id, phone)


async def make_shop(services: Services) -> Shop:
    """Return a merchant that may charge cards."""
    now = services.clock()
    async with services.db.begin() as session:
        merchant = merchants.add(session, name="茶社", kind="shop", now=now)
        session.add(new_account(Kind.MERCHANT_PAYABLE, merchant.id))
        await session.flush()
        keyid, pem = register_key(session, "merchant", merchant.id, now)
        payable_id = await account_id(session, Kind.MERCHANT_PAYABLE, merchant.id)
    return Shop(merchant.id, payable_id, keyid, pem)


async def make_gate(services: Services, *, is_closed: bool = False) -> GateAt:
    """Return a gate at a park of its own, which never closes or never opens."""
    now = services.clock()
    async with services.db.begin() as session:
        park = parks.add(
            session,
            name="蠡园",
            name_en="Liyuan",
            opens_minute=0,
            closes_minute=0 if is_closed else MINUTES_OF_A_DAY,
            now=now,
        )
        gate = devices.add(session, name="东门", site_id=park.id, now=now)
        await session.flush()
        keyid, pem = register_key(session, "gate", gate.id, now)
    return GateAt(gate.id, park, keyid, pem)


async def make_pass_type(
    services: Services,
    park_ids: list[UUID],
    *,
    price_fen: int = 1_000,
    entries: int = 20,
    valid_days: int = 365,
) -> tuple[PassType, int]:
    """Return a pass type on sale, and the account that its unearned money waits in."""
    now = services.clock()
    async with services.db.begin() as session:
        made = pass_types.add(
            session,
            name="年票",
            name_en="Pass",
            price_fen=price_fen,
            valid_days=valid_days,
            park_ids=park_ids,
            entries_per_park_and_day=entries,
            group_bit=0,
            now=now,
        )
        await session.flush()
        return made, await account_id(session, Kind.PASS_DEFERRED, made.id)


async def make_caller(services: Services, client: httpx.AsyncClient, holder: Holder) -> Caller:
    """Return a signed-in caller for a holder, with their card and phone."""
    caller = await make_session(services, client, holder.citizen_id)
    caller.card_id, caller.phone = str(holder.card_id), holder.phone
    return caller


async def make_session(services: Services, client: httpx.AsyncClient, citizen_id: UUID) -> Caller:
    """Return a signed-in caller for a citizen."""
    now = services.clock()
    async with services.db.begin() as session:
        sid, refresh_token = await tokens.open_family(session, citizen_id, now=now)
    caller = Caller(client, services.clock)
    caller.access_token = access_tokens.issue(
        services.token_keys,
        audience="citizen",
        subject=citizen_id,
        session_id=sid,
        now=now,
        lifetime_seconds=600,
    )
    caller.refresh_token = refresh_token
    return caller


async def make_operator(services: Services) -> OperatorAccess:
    """Return a person in the back office, as what they sign in with."""
    who = OperatorAccess(
        f"operator-{secrets.token_hex(4)}", secrets.token_urlsafe(12), new_totp_secret()
    )
    async with services.db.begin() as session:
        await operators.add(
            session,
            login=who.login,
            password=who.password,
            totp_secret=who.totp_secret,
            ring=services.ring,
            now=services.clock(),
        )
    return who


async def make_customer(
    services: Services, http: httpx.AsyncClient, *, provider: str = "wechat"
) -> Caller:
    """Return a person who signed in at a provider and has a card and a phone, all over HTTP."""
    caller = Caller(http, services.clock)
    signed_in = await caller.sign_in(provider, f"customer-{secrets.token_hex(6)}")
    async with services.db.begin() as session:
        session.add(decided_case(services, UUID(signed_in["citizen"]["id"]), services.clock()))
    await caller.get_card()
    await caller.bind_phone()
    return caller
