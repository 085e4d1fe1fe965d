"""What happened to a card: movements of its money, and visits to parks."""

from datetime import datetime
from typing import Literal
from uuid import UUID

import msgspec
from litestar import Router, get
from litestar.di import NamedDependency

from api.auth import CitizenPrincipal
from api.problems import refuses
from api.replies import Cursor, CursorRefused, Limit, Page, number_of_entry, page_of, read_cursor
from api.services import Services
from identity.kernel import NotFound
from wallet.admission import admissions
from wallet.cards import cards
from wallet.ledger import histories

STATEMENT_TITLES = {
    "recharge.credit": "充值",
    "recharge.refund_ask": "充值退款",
    "charge.take": "消费",
    "charge.refund": "商户退款",
    "pass.sell": "购买年票",
}
"""What a movement is called; the kind beside it is the stable name."""


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


router = Router("", route_handlers=[list_entries, list_visits], tags=["citizen: histories"])
