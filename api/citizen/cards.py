"""A citizen's cards: issue, phone, credentials, loss, reissue, closure, movements, visits."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

import msgspec
from litestar import Response, Router, delete, get, post, put
from litestar.di import NamedDependency
from sqlalchemy.ext.asyncio import AsyncSession

from api.auth import CitizenPrincipal, require_step_up
from api.citizen.passes import PassView
from api.problems import refuses
from api.replies import (
    AnyRequest,
    Cursor,
    CursorRefused,
    IdempotencyKey,
    Limit,
    Page,
    b64,
    made,
    number_of_entry,
    page_of,
    read_cursor,
    unb64,
)
from api.services import Services
from identity.audit import Actor, record
from identity.kernel import NotFound, StateConflict
from identity.people.real_names import RealNameRequired
from identity.people.step_ups import StepUpRequired
from identity.request_numbers import (
    Claim,
    RequestNumberReused,
    claim_once,
    keep_answer,
    kept_if_refused,
    request_hash,
)
from wallet import fulfilment
from wallet.admission import admissions
from wallet.cards import cards, media
from wallet.cards.cards import Card, CardExists, CardNotActive, TakeBackTooLate
from wallet.cards.media import TooManyPhones
from wallet.codes import credentials
from wallet.codes.credentials import (
    CredentialExists,
    IssuerKeyMissing,
    PhoneNotBound,
    Wanted,
    WindowNotOffered,
)
from wallet.ledger import accounts, histories
from wallet.ledger.chart import Kind
from wallet.passes import passes
from wallet.recharge import closures, refunds
from wallet.recharge.closures import NeedsCounter, RechargeOpen
from wallet.recharge.refunds import Purse

STATEMENT_TITLES = {
    "recharge.credit": "充值",
    "recharge.refund_ask": "充值退款",
    "charge.take": "消费",
    "charge.refund": "商户退款",
    "pass.sell": "购买年票",
}
"""What a movement is called; the kind beside it is the stable name."""

Bytes16 = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{22}\Z", description="16 字节")]


class CardRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which kind of card."""

    card_type: Literal["standard"]


class CardView(msgspec.Struct, frozen=True):
    """A card as its holder sees it; balance = principal + held + bonus, available without held."""

    id: UUID
    card_no: str
    state: Literal["active", "lost", "closing", "closed"]
    balance_fen: int
    held_fen: int
    bonus_fen: int
    available_fen: int
    passes: list[PassView]


class PhoneBindingRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The phone that is to show codes; `device_id` is its own lasting random id."""

    device_id: Annotated[str, msgspec.Meta(min_length=8, max_length=64)]
    model: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]


class PhoneBindingView(msgspec.Struct, frozen=True):
    """What a phone needs to make codes; the key comes once, to the phone that takes over."""

    gen: int
    device_key: str | None
    issuer: int
    suite: int
    server_time_at: datetime
    card_handle: str


class WantedCredential(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One window, with the anchor of the chain that the phone drew for it."""

    nbf: Annotated[int, msgspec.Meta(ge=1_700_000_000, le=4_294_967_295)]
    slen: Annotated[int, msgspec.Meta(ge=1, le=60)]
    nsl: Annotated[int, msgspec.Meta(ge=1, le=6000)]
    anchor: Bytes16


class CredentialsRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The windows a phone wants to be able to show codes in."""

    credentials: Annotated[list[WantedCredential], msgspec.Meta(min_length=1, max_length=16)]


class CredentialView(msgspec.Struct, frozen=True):
    """A signed credential: bytes 0…44 and 45…108 of its codes."""

    nbf: int
    body: str
    sig: str


class CredentialsView(msgspec.Struct, frozen=True):
    """The windows that were signed; those the phone may not hold yet are left out."""

    items: list[CredentialView]
    next_at: datetime


class EntryView(msgspec.Struct, frozen=True):
    """One movement of the card's money."""

    id: str
    at: datetime
    kind: str
    title: str
    amount_fen: int
    balance_after_fen: int
    related_no: UUID


class VisitView(msgspec.Struct, frozen=True):
    """One time a gate was asked to let this card in."""

    id: UUID
    at: datetime
    park_id: UUID
    direction: Literal["in", "out"]
    state: str
    reason: int


class Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An empty object."""


CARD_REFUSALS = (NotFound, StateConflict)


@post("/cards", responses=refuses(RealNameRequired, CardExists))
async def create_card(
    data: CardRequest,
    services: NamedDependency[Services],
    principal: NamedDependency[CitizenPrincipal],
    request: AnyRequest,
) -> CardView:
    """Issue a card to a verified person."""
    async with services.db.begin() as session:
        card = await cards.issue(
            session, principal.citizen_id, card_type=data.card_type, now=request.state.now
        )
        await session.flush()
        return await card_view(session, card)


@get("/cards")
async def list_cards(
    services: NamedDependency[Services], principal: NamedDependency[CitizenPrincipal]
) -> Page[CardView]:
    """List the person's cards."""
    async with services.db.begin() as session:
        found = await cards.list_own(session, principal.citizen_id)
        return Page([await card_view(session, card) for card in found], None)


@get("/cards/{card_id:uuid}", responses=refuses(NotFound))
async def show_card(
    card_id: UUID,
    services: NamedDependency[Services],
    principal: NamedDependency[CitizenPrincipal],
) -> CardView:
    """Show one card."""
    async with services.db.begin() as session:
        return await card_view(session, await cards.get_own(session, principal.citizen_id, card_id))


@put(
    "/cards/{card_id:uuid}/phone",
    responses=refuses(NotFound, CardNotActive, StepUpRequired, TooManyPhones, IssuerKeyMissing),
)
async def bind_phone(
    card_id: UUID,
    data: PhoneBindingRequest,
    services: NamedDependency[Services],
    principal: NamedDependency[CitizenPrincipal],
    request: AnyRequest,
) -> PhoneBindingView:
    """Bind this phone to the card; taking it over from another phone needs a step-up."""
    now = request.state.now
    async with services.db.begin() as session:
        await _active(session, principal, card_id)
        another = media.is_another_phone(await media.active(session, card_id), data.device_id)
    if another:
        await require_step_up(services, principal, request)
    async with services.db.begin() as session:
        await _active(session, principal, card_id)
        medium = await media.active(session, card_id, for_update=True)
        is_new = await media.bind_phone(
            session, medium, device_id=data.device_id, model=data.model, now=now
        )
        if is_new:
            actor = Actor("citizen", principal.citizen_id)
            record(session, actor, "card.bind_phone", card_id, now=now, gen=medium.gen)
    suite = credentials.signing_suite(services.ring, now)
    number = services.issuer.number
    key = credentials.phone_key(services.ring, medium, issuer=number, suite=suite)
    return PhoneBindingView(
        gen=medium.gen,
        device_key=b64(key) if is_new else None,
        issuer=number,
        suite=suite,
        server_time_at=now,
        card_handle=b64(medium.handle),
    )


@post(
    "/cards/{card_id:uuid}/credentials",
    responses=refuses(
        NotFound,
        CardNotActive,
        PhoneNotBound,
        WindowNotOffered,
        CredentialExists,
        IssuerKeyMissing,
    ),
)
async def create_credentials(
    card_id: UUID,
    data: CredentialsRequest,
    services: NamedDependency[Services],
    principal: NamedDependency[CitizenPrincipal],
    request: AnyRequest,
) -> CredentialsView:
    """Sign the anchors of a phone's chains, so that it can show codes without a network."""
    now = request.state.now
    wanted = [Wanted(one.nbf, one.slen, one.nsl, unb64(one.anchor)) for one in data.credentials]
    async with services.db.begin() as session:
        await _active(session, principal, card_id)
        issued = await credentials.issue(
            session,
            await media.active(session, card_id),
            wanted,
            issuer=services.issuer.number,
            ring=services.ring,
            now=now,
        )
    items = [
        CredentialView(int.from_bytes(one.cid[13:17], "big"), b64(one.body), b64(one.signature))
        for one in issued
    ]
    return CredentialsView(items, credentials.next_window(now))


@post("/cards/{card_id:uuid}/loss", status_code=200, responses=refuses(*CARD_REFUSALS))
async def report_loss(
    card_id: UUID,
    data: Nothing,  # noqa: ARG001  # an empty object, so that members can be added later
    services: NamedDependency[Services],
    principal: NamedDependency[CitizenPrincipal],
    request: AnyRequest,
) -> CardView:
    """Report the card lost: it is refused everywhere from now on."""
    async with services.db.begin() as session:
        card = await cards.report_loss(
            session, principal.citizen_id, card_id, now=request.state.now
        )
        return await card_view(session, card)


@delete(
    "/cards/{card_id:uuid}/loss",
    status_code=200,
    responses=refuses(*CARD_REFUSALS, StepUpRequired, TakeBackTooLate),
)
async def take_back_loss(
    card_id: UUID,
    services: NamedDependency[Services],
    principal: NamedDependency[CitizenPrincipal],
    request: AnyRequest,
) -> CardView:
    """Take a loss report back; needs a step-up."""
    await require_step_up(services, principal, request)
    async with services.db.begin() as session:
        card = await cards.take_back_loss(
            session, principal.citizen_id, card_id, now=request.state.now
        )
        return await card_view(session, card)


@post(
    "/cards/{card_id:uuid}/reissue",
    responses=refuses(*CARD_REFUSALS, StepUpRequired, RequestNumberReused),
)
async def reissue_card(
    card_id: UUID,
    data: Nothing,  # noqa: ARG001  # an empty object, so that members can be added later
    idempotency_key: IdempotencyKey,
    services: NamedDependency[Services],
    principal: NamedDependency[CitizenPrincipal],
    request: AnyRequest,
) -> Response[CardView]:
    """Give the card a new number and handle; balance and passes stay. Needs a step-up."""
    now = request.state.now
    claim = Claim(
        "citizen.reissue",
        principal.citizen_id,
        idempotency_key,
        request_hash("reissue", card_id),
        card_id,
    )
    await require_step_up(services, principal, request)
    async with kept_if_refused(services.db, claim, now=now), services.db.begin() as session:
        kept = await claim_once(session, claim, now=now)
        if kept:
            return made(msgspec.convert(kept.answer, CardView), is_new=False)
        card = await cards.reissue(session, principal.citizen_id, card_id, now=now)
        await session.flush()
        view = await card_view(session, card)
        await keep_answer(session, claim, msgspec.to_builtins(view))
        return made(view, is_new=True)


@post(
    "/cards/{card_id:uuid}/closure",
    responses=refuses(
        *CARD_REFUSALS, StepUpRequired, RechargeOpen, NeedsCounter, RequestNumberReused
    ),
)
async def close_card(
    card_id: UUID,
    data: Nothing,  # noqa: ARG001  # an empty object, so that members can be added later
    idempotency_key: IdempotencyKey,
    services: NamedDependency[Services],
    principal: NamedDependency[CitizenPrincipal],
    request: AnyRequest,
) -> Response[CardView]:
    """Close the card: every fen goes back to where it came from. Needs a step-up.

    The card is `closing` until the provider has paid everything out, then `closed`.
    """
    now = request.state.now
    claim = Claim(
        "citizen.closure",
        principal.citizen_id,
        idempotency_key,
        request_hash("closure", card_id),
        card_id,
    )
    await require_step_up(services, principal, request)
    async with kept_if_refused(services.db, claim, now=now), services.db.begin() as session:
        kept = await claim_once(session, claim, now=now)
        if kept is None:
            await closures.begin(session, principal.citizen_id, card_id, now=now)
    async with services.db.begin() as session:
        purse = await purse_of(session, card_id)
        await closures.pay_out(services.poster, session, purse, now=now)
        waiting = await refunds.unfinished_of_card(session, card_id)
    # Sent at once so that most people see the end of it; a job sends again what stays open.
    for refund in waiting:
        await fulfilment.try_refund(services.cashier, refund.id, now=now)
    await closures.finish(services.db, card_id, now=now)
    async with services.db.begin() as session:
        card = await cards.get_own(session, principal.citizen_id, card_id)
        return made(await card_view(session, card), is_new=kept is None)


@get("/cards/{card_id:uuid}/entries", responses=refuses(NotFound, CursorRefused))
async def list_entries(
    card_id: UUID,
    services: NamedDependency[Services],
    principal: NamedDependency[CitizenPrincipal],
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[EntryView]:
    """List what moved the card's money, newest first."""
    before = read_cursor(cursor, number_of_entry)
    async with services.db.begin() as session:
        await cards.get_own(session, principal.citizen_id, card_id)
        lines = await histories.of_card(session, card_id, before=before, limit=limit + 1)
    views = [
        EntryView(
            id=f"{card_id.hex}-{line.number}",
            at=line.posted_at,
            kind=line.kind,
            title=STATEMENT_TITLES.get(line.kind, "其他"),
            amount_fen=line.amount_fen,
            balance_after_fen=line.balance_after_fen,
            related_no=line.business_id,
        )
        for line in lines
    ]
    return page_of(lines, views, limit, key="number")


@get("/cards/{card_id:uuid}/visits", responses=refuses(NotFound, CursorRefused))
async def list_visits(
    card_id: UUID,
    services: NamedDependency[Services],
    principal: NamedDependency[CitizenPrincipal],
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[VisitView]:
    """List the gates that were asked to let this card in, newest first."""
    before = read_cursor(cursor, UUID)
    async with services.db.begin() as session:
        await cards.get_own(session, principal.citizen_id, card_id)
        rows = await admissions.visits_of_card(session, card_id, before=before, limit=limit + 1)
    views = [
        VisitView(row.id, row.decided_at, row.park_id, row.direction, row.state, row.reason)
        for row in rows
    ]
    return page_of(rows, views, limit, key="id")


async def card_view(session: AsyncSession, card: Card) -> CardView:
    """Return a card as its holder sees it."""
    medium = await media.active(session, card.id)
    principal_fen = await cards.balance_fen(session, card.id)
    held_fen = bonus_fen = 0
    balance_fen = principal_fen + held_fen + bonus_fen
    return CardView(
        id=card.id,
        card_no=medium.card_no,
        state=card.state,
        balance_fen=balance_fen,
        held_fen=held_fen,
        bonus_fen=bonus_fen,
        available_fen=balance_fen - held_fen,
        passes=[PassView.of(held) for held in await passes.of_card(session, card.id)],
    )


async def purse_of(session: AsyncSession, card_id: UUID) -> Purse:
    """Return the accounts that a card's refunds move money between."""
    return Purse(
        card_id,
        await accounts.account_id(session, Kind.CARD_PRINCIPAL, card_id),
        await accounts.account_id(session, Kind.REFUND_PAYABLE),
    )


async def _active(session: AsyncSession, principal: CitizenPrincipal, card_id: UUID) -> Card:
    card = await cards.get_own(session, principal.citizen_id, card_id)
    if card.state != "active":
        raise CardNotActive(state=card.state)
    return card


router = Router(
    "",
    route_handlers=[
        create_card,
        list_cards,
        show_card,
        bind_phone,
        create_credentials,
        report_loss,
        take_back_loss,
        reissue_card,
        close_card,
        list_entries,
        list_visits,
    ],
    tags=["citizen: cards"],
)
