"""What happened to a card: movements of its money, and visits to parks."""

from datetime import datetime
from typing import Literal, NamedTuple
from uuid import UUID

import msgspec
from litestar import Router, get
from litestar.di import NamedDependency
from litestar.params import FromPath

from api.auth import CitizenPrincipal
from api.problems import refuses
from api.replies import Cursor, CursorRefused, Limit, Page, number_of_entry, page_of, read_cursor
from api.services import Services
from identity.kernel import NotFound, number_of
from wallet.admission import admissions
from wallet.cards import cards
from wallet.ledger import histories


class Called(NamedTuple):
    """What a movement is called, and the prefix of the number people know it by."""

    title: str
    prefix: str


CALLED = {
    "recharge.credit": Called("充值", "RC"),
    "recharge.refund_ask": Called("充值退款", "RR"),
    "recharge.refund_fail": Called("退款未成功，已退回", "RR"),
    "charge.take": Called("消费", "CH"),
    "charge.refund": Called("商户退款", "CR"),
    "pass.sell": Called("购买年票", "PS"),
}
"""Every kind of transfer that moves a card's money; a test holds it against the verbs."""


class EntryView(msgspec.Struct, frozen=True):
    """One movement of the card's money."""

    id: str
    at: datetime
    kind: str
    title: str
    amount_fen: int
    balance_after_fen: int
    related_no: str


class VisitView(msgspec.Struct, frozen=True):
    """One time a gate was asked to let this card in."""

    id: UUID
    at: datetime
    park_id: UUID
    direction: Literal["in", "out"]
    state: str
    reason: int


@get("/cards/{card_id:uuid}/entries", responses=refuses(NotFound, CursorRefused))
async def list_entries(
    card_id: FromPath[UUID],
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
            title=CALLED[line.kind].title,
            amount_fen=line.amount_fen,
            balance_after_fen=line.balance_after_fen,
            related_no=number_of(CALLED[line.kind].prefix, line.business_id),
        )
        for line in lines
    ]
    return page_of(lines, views, limit, key="number")


@get("/cards/{card_id:uuid}/visits", responses=refuses(NotFound, CursorRefused))
async def list_visits(
    card_id: FromPath[UUID],
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


router = Router("", route_handlers=[list_entries, list_visits], tags=["citizen: histories"])
