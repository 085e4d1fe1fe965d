"""A citizen's cards: issue, phone, credentials, loss, reissue, closure, movements, visits."""

from typing import Literal
from uuid import UUID

import msgspec
from litestar import Response, Router, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody
from sqlalchemy.ext.asyncio import AsyncSession

from api.auth import CitizenPrincipal, require_step_up
from api.citizen.passes import PassView
from api.problems import refuses
from api.replies import (
    AnyRequest,
    IdempotencyKey,
    Page,
    made,
)
from api.services import Services
from identity.kernel import NotFound, StateConflict
from identity.people.real_names import RealNameRequired
from identity.people.step_ups import StepUpRequired
from identity.request_numbers import (
    Claim,
    RequestNumberReused,
    claim_once,
    find_kept,
    keep_answer,
    kept_if_refused,
    request_hash,
)
from wallet import fulfilment
from wallet.cards import cards, media
from wallet.cards.cards import Card, CardExists, TakeBackTooLate
from wallet.passes import passes
from wallet.recharge import closures, refunds
from wallet.recharge.closures import NeedsCounter, RechargeOpen


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


class Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An empty object."""


SENT_AT_ONCE = 3
"""Refunds of a closure that the request itself sends."""

CARD_REFUSALS = (NotFound, StateConflict)


@post("/cards", responses=refuses(RealNameRequired, CardExists))
async def create_card(
    data: JSONBody[CardRequest],
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
    card_id: FromPath[UUID],
    services: NamedDependency[Services],
    principal: NamedDependency[CitizenPrincipal],
) -> CardView:
    """Show one card."""
    async with services.db.begin() as session:
        return await card_view(session, await cards.get_own(session, principal.citizen_id, card_id))


@post("/cards/{card_id:uuid}/loss", status_code=200, responses=refuses(*CARD_REFUSALS))
async def report_loss(
    card_id: FromPath[UUID],
    data: JSONBody[Nothing],  # noqa: ARG001  # an empty object, so that members can be added later
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
    card_id: FromPath[UUID],
    services: NamedDependency[Services],
    principal: NamedDependency[CitizenPrincipal],
    request: AnyRequest,
) -> CardView:
    """Take a loss report back; needs a step-up."""
    async with services.db.begin() as session:
        await require_step_up(session, principal, request)
        card = await cards.take_back_loss(
            session, principal.citizen_id, card_id, now=request.state.now
        )
        return await card_view(session, card)


@post(
    "/cards/{card_id:uuid}/reissue",
    responses=refuses(*CARD_REFUSALS, StepUpRequired, RequestNumberReused),
)
async def reissue_card(
    card_id: FromPath[UUID],
    data: JSONBody[Nothing],  # noqa: ARG001  # an empty object, so that members can be added later
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
    async with services.db.begin() as session:
        kept = await find_kept(session, claim)
        if kept:
            return made(msgspec.convert(kept.answer, CardView), is_new=False)
        await require_step_up(session, principal, request)
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
    card_id: FromPath[UUID],
    data: JSONBody[Nothing],  # noqa: ARG001  # an empty object, so that members can be added later
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
    async with services.db.begin() as session:
        kept = await find_kept(session, claim)
        if kept and kept.answer:
            return made(msgspec.convert(kept.answer, CardView), is_new=False)
        if kept is None:
            await require_step_up(session, principal, request)
    # A request that was cut short goes on from here when it is repeated.
    async with kept_if_refused(services.db, claim, now=now), services.db.begin() as session:
        kept = await claim_once(session, claim, now=now)
        if kept is None:
            await closures.begin(session, principal.citizen_id, card_id, now=now)
    # Begun at once, so that most people see the end of it; a job goes on with what stays open.
    await fulfilment.finish_closure(services.cashier, card_id, now=now)
    async with services.db.begin() as session:
        waiting = await refunds.unfinished_of_card(session, card_id)
    for refund in waiting[:SENT_AT_ONCE]:
        await fulfilment.try_refund(services.cashier, refund.id, now=now)
    async with services.db.begin() as session:
        card = await cards.get_own(session, principal.citizen_id, card_id)
        view = await card_view(session, card)
        await keep_answer(session, claim, msgspec.to_builtins(view))
        return made(view, is_new=kept is None)


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


router = Router(
    "",
    route_handlers=[
        create_card,
        list_cards,
        show_card,
        report_loss,
        take_back_loss,
        reissue_card,
        close_card,
    ],
    tags=["citizen: cards"],
)
