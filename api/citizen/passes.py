"""Passes and parks as a citizen sees them: what is on sale, buying, what they hold."""

from datetime import date
from typing import Literal
from uuid import UUID

import msgspec
from litestar import Response, Router, get, post
from litestar.di import NamedDependency
from litestar.params import JSONBody

from api.auth import CitizenPrincipal
from api.problems import refuses
from api.replies import AnyRequest, IdempotencyKey, Page, made
from api.services import Services
from identity.kernel import NotFound
from identity.request_numbers import RequestNumberReused, request_hash
from wallet.admission import parks
from wallet.cards import cards
from wallet.cards.cards import CardNotActive
from wallet.ledger import accounts
from wallet.ledger.chart import Kind
from wallet.ledger.transfers import InsufficientBalance
from wallet.passes import pass_types, passes, sales
from wallet.passes.passes import Pass


class PassTypeView(msgspec.Struct, frozen=True):
    """A kind of pass on sale."""

    id: UUID
    name: str
    name_en: str
    price_fen: int
    valid_days: int
    park_ids: list[UUID]
    entries_per_park_and_day: int


class PassRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which pass for which card, and what pays it."""

    card_id: UUID
    pass_type_id: UUID
    pay_by: Literal["balance"]


class PassView(msgspec.Struct, frozen=True):
    """A pass as sold."""

    id: UUID
    pass_no: str
    pass_type_id: UUID
    state: Literal["active", "refunded"]
    price_fen: int
    valid_from_on: date
    valid_until_on: date

    @classmethod
    def of(cls, held: Pass) -> "PassView":
        """Return the view of a pass."""
        return cls(
            held.id,
            held.pass_no,
            held.pass_type_id,
            held.state,
            held.price_fen,
            held.valid_from_on,
            held.valid_until_on,
        )

    @classmethod
    def as_sold(cls, held: Pass) -> "PassView":
        """Return the view as it was at the sale, so that a retry gets the same answer later."""
        return msgspec.structs.replace(cls.of(held), state="active")


class ParkView(msgspec.Struct, frozen=True):
    """A park and its hours, in minutes from local midnight."""

    id: UUID
    name: str
    name_en: str
    opens_minute: int
    closes_minute: int
    is_open: bool


@get("/pass-types")
async def list_pass_types(services: NamedDependency[Services]) -> Page[PassTypeView]:
    """List the passes on sale."""
    async with services.db.begin() as session:
        found = await pass_types.on_sale(session)
    views = [
        PassTypeView(
            one.id,
            one.name,
            one.name_en,
            one.price_fen,
            one.valid_days,
            [UUID(park_id) for park_id in one.park_ids],
            one.entries_per_park_and_day,
        )
        for one in found
    ]
    return Page(views, None)


@post(
    "/passes",
    responses=refuses(NotFound, InsufficientBalance, CardNotActive, RequestNumberReused),
)
async def buy_pass(
    data: JSONBody[PassRequest],
    idempotency_key: IdempotencyKey,
    services: NamedDependency[Services],
    principal: NamedDependency[CitizenPrincipal],
    request: AnyRequest,
) -> Response[PassView]:
    """Buy a pass with the card's balance; it is valid from today."""
    asked = request_hash("pass", data)
    async with services.db.begin() as session:
        before = await sales.find_sold(session, principal.citizen_id, idempotency_key, asked)
        if before:
            return made(PassView.as_sold(before), is_new=False)
        card = await cards.get_own(session, principal.citizen_id, data.card_id)
        pass_type = await pass_types.get_on_sale(session, data.pass_type_id)
        principal_id = await accounts.account_id(session, Kind.CARD_PRINCIPAL, card.id)
        deferred_id = await accounts.account_id(session, Kind.PASS_DEFERRED, pass_type.id)
    sold, is_new = await sales.buy_from_balance(
        services.db,
        services.poster,
        citizen_id=principal.citizen_id,
        idempotency_key=idempotency_key,
        request_hash=asked,
        card_id=card.id,
        principal_id=principal_id,
        deferred_id=deferred_id,
        pass_type=pass_type,
        now=request.state.now,
    )
    return made(PassView.as_sold(sold), is_new=is_new)


@get("/passes")
async def list_passes(
    services: NamedDependency[Services], principal: NamedDependency[CitizenPrincipal]
) -> Page[PassView]:
    """List the passes on the person's cards, newest first."""
    async with services.db.begin() as session:
        found = [
            held
            for card in await cards.list_own(session, principal.citizen_id)
            for held in await passes.of_card(session, card.id)
        ]
    return Page([PassView.of(held) for held in found], None)


@get("/parks")
async def list_parks(services: NamedDependency[Services], request: AnyRequest) -> Page[ParkView]:
    """List the parks with their hours."""
    async with services.db.begin() as session:
        found = await parks.all_parks(session)
    views = [
        ParkView(
            park.id,
            park.name,
            park.name_en,
            park.opens_minute,
            park.closes_minute,
            parks.is_open(park, request.state.now),
        )
        for park in found
    ]
    return Page(views, None)


router = Router(
    "",
    route_handlers=[list_pass_types, buy_pass, list_passes, list_parks],
    tags=["citizen: passes"],
)
