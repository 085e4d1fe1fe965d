"""Phones and their credentials: binding a phone to a card, and signing what it shows codes with."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

import msgspec
from litestar import Router, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody
from sqlalchemy.ext.asyncio import AsyncSession

from api.auth import CitizenPrincipal, require_step_up
from api.problems import refuses
from api.replies import AnyRequest, b64, unb64
from api.services import Services
from identity.audit import Actor, record
from identity.kernel import NotFound
from identity.people.step_ups import StepUpRequired
from wallet.cards import cards, media
from wallet.cards.cards import Card, CardNotActive
from wallet.cards.media import TooManyPhones
from wallet.codes import credentials
from wallet.codes.credentials import (
    CredentialExists,
    IssuerKeyMissing,
    PhoneNotBound,
    Wanted,
    WindowNotOffered,
)

Bytes16 = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{22}\Z", description="16 字节")]


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


@put(
    "/cards/{card_id:uuid}/phone",
    responses=refuses(NotFound, CardNotActive, StepUpRequired, TooManyPhones, IssuerKeyMissing),
)
async def bind_phone(
    card_id: FromPath[UUID],
    data: JSONBody[PhoneBindingRequest],
    services: NamedDependency[Services],
    principal: NamedDependency[CitizenPrincipal],
    request: AnyRequest,
) -> PhoneBindingView:
    """Bind this phone to the card; taking it over from another phone needs a step-up."""
    now = request.state.now
    # Before anything is kept: the key comes once, so a binding without one would be lost.
    suite = credentials.signing_suite(services.ring, now)
    async with services.db.begin() as session:
        await _active(session, principal, card_id, for_update=True)
        medium = await media.active(session, card_id, for_update=True)
        if media.is_another_phone(medium, data.device_id):
            await require_step_up(session, principal, request)
        is_new = await media.bind_phone(
            session, medium, device_id=data.device_id, model=data.model, now=now
        )
        if is_new:
            actor = Actor("citizen", principal.citizen_id)
            record(session, actor, "card.bind_phone", card_id, now=now, gen=medium.gen)
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
    card_id: FromPath[UUID],
    data: JSONBody[CredentialsRequest],
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


async def _active(
    session: AsyncSession, principal: CitizenPrincipal, card_id: UUID, *, for_update: bool = False
) -> Card:
    card = await cards.get_own(session, principal.citizen_id, card_id, for_update=for_update)
    if card.state != "active":
        raise CardNotActive(state=card.state)
    return card


router = Router(
    "", route_handlers=[bind_phone, create_credentials], tags=["citizen: phones and codes"]
)
