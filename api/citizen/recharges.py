"""Recharges as a citizen sees them: open one and pay it, look what became of it, get money back."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from litestar import Response, Router, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from api.auth import CitizenPrincipal
from api.problems import refuses
from api.replies import AnyRequest, IdempotencyKey, made
from api.services import Services
from identity.kernel import NotFound, new_id
from identity.people.real_names import RealNameRequired
from identity.request_numbers import Claim, RequestNumberReused, request_hash
from wallet import fulfilment
from wallet.cards.cards import CardNotActive
from wallet.channels.channel import ChannelRefused, ChannelUnknown
from wallet.ledger.transfers import InsufficientBalance
from wallet.recharge import recharges, refunds
from wallet.recharge.recharges import Opened, PayerUnknown, TooManyOpen
from wallet.recharge.refunds import NotRefundable, RechargeRefund

RechargeFen = Annotated[int, msgspec.Meta(ge=1, le=500_000, description="金额（分），≤ 5000 元")]


class RechargeRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much, on which card, through whom."""

    card_id: UUID
    amount_fen: RechargeFen
    channel: Literal["wechat_pay", "alipay"]


class RechargeView(msgspec.Struct, frozen=True):
    """A recharge; `pay` is what wx.requestPayment or my.tradePay needs, while it can be paid."""

    id: UUID
    recharge_no: str
    out_trade_no: str
    card_id: UUID
    channel: Literal["wechat_pay", "alipay"]
    amount_fen: int
    refunded_fen: int
    state: Literal["paying", "succeeded", "closed", "unknown", "partly_refunded", "refunded"]
    pay: dict[str, str] | None
    created_at: datetime


class RechargeRefundRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much of it to give back; without an amount, all that is left of it."""

    reason: Annotated[str, msgspec.Meta(min_length=1, max_length=80)]
    amount_fen: RechargeFen | None = None


class RechargeRefundView(msgspec.Struct, frozen=True):
    """Money on its way back to where it came from."""

    id: UUID
    refund_no: str
    recharge_id: UUID
    amount_fen: int
    state: Literal["processing", "succeeded", "failed"]
    created_at: datetime


@post(
    "/recharges",
    responses=refuses(
        NotFound,
        RealNameRequired,
        CardNotActive,
        PayerUnknown,
        TooManyOpen,
        RequestNumberReused,
        ChannelRefused,
        ChannelUnknown,
    ),
)
async def create_recharge(
    data: JSONBody[RechargeRequest],
    idempotency_key: IdempotencyKey,
    services: NamedDependency[Services],
    principal: NamedDependency[CitizenPrincipal],
    request: AnyRequest,
) -> Response[RechargeView]:
    """Open a recharge; the phone pays it, and the provider's proof credits it."""
    opened, is_new = await recharges.open_recharge(
        services.db,
        services.cashier.channels,
        citizen_id=principal.citizen_id,
        idempotency_key=idempotency_key,
        request_hash=request_hash("recharge", data),
        card_id=data.card_id,
        amount_fen=data.amount_fen,
        channel=data.channel,
        now=request.state.now,
    )
    return made(_view(opened, state="paying", refunded_fen=0), is_new=is_new)


@get("/recharges/{recharge_id:uuid}", responses=refuses(NotFound))
async def show_recharge(
    recharge_id: FromPath[UUID],
    services: NamedDependency[Services],
    principal: NamedDependency[CitizenPrincipal],
    request: AnyRequest,
) -> RechargeView:
    """Show a recharge; while it is open, the provider is asked first."""
    async with services.db.begin() as session:
        opened = await recharges.get_own(session, principal.citizen_id, recharge_id)
    if opened.attempt.state == "sent":
        await fulfilment.query_attempt(services.cashier, opened.attempt.id, now=request.state.now)
        async with services.db.begin() as session:
            opened = await recharges.get_own(session, principal.citizen_id, recharge_id)
    state = opened.recharge.state
    if state == "paying" and request.state.now >= opened.attempt.expires_at:
        state = "unknown"
    return _view(opened, state=state, refunded_fen=opened.recharge.refunded_fen)


@post(
    "/recharges/{recharge_id:uuid}/refunds",
    responses=refuses(
        NotFound, NotRefundable, InsufficientBalance, CardNotActive, RequestNumberReused
    ),
)
async def create_recharge_refund(
    recharge_id: FromPath[UUID],
    data: JSONBody[RechargeRefundRequest],
    idempotency_key: IdempotencyKey,
    services: NamedDependency[Services],
    principal: NamedDependency[CitizenPrincipal],
    request: AnyRequest,
) -> Response[RechargeRefundView]:
    """Give money of a recharge back, as far as it was not spent; a job pays it out."""
    now = request.state.now
    async with services.db.begin() as session:
        opened = await recharges.get_own(session, principal.citizen_id, recharge_id)
        purse = await fulfilment.purse_of(session, opened.recharge.card_id)
    claim = Claim(
        "citizen.recharge_refund",
        principal.citizen_id,
        idempotency_key,
        request_hash("recharge-refund", recharge_id, data),
        new_id(now),
    )
    refund_id, is_new = await refunds.ask(
        services.poster,
        claim=claim,
        purse=purse,
        recharge_id=recharge_id,
        amount_fen=data.amount_fen,
        reason=data.reason,
        now=now,
    )
    async with services.db.begin() as session:
        return made(
            _refund_view(await refunds.get_own(session, purse.card_id, refund_id)), is_new=is_new
        )


def _view(opened: Opened, *, state: Any, refunded_fen: int) -> RechargeView:
    recharge, attempt = opened.recharge, opened.attempt
    return RechargeView(
        id=recharge.id,
        recharge_no=recharge.recharge_no,
        out_trade_no=attempt.out_trade_no,
        card_id=recharge.card_id,
        channel="alipay" if recharge.channel == "alipay" else "wechat_pay",
        amount_fen=recharge.amount_fen,
        refunded_fen=refunded_fen,
        state=state,
        pay=attempt.pay if state == "paying" else None,
        created_at=recharge.created_at,
    )


def _refund_view(refund: RechargeRefund) -> RechargeRefundView:
    # The state as it was when asked, so that a retry gets the same answer at any later time.
    return RechargeRefundView(
        refund.id,
        refund.refund_no,
        refund.recharge_id,
        refund.amount_fen,
        "processing",
        refund.created_at,
    )


router = Router(
    "",
    route_handlers=[create_recharge, show_recharge, create_recharge_refund],
    tags=["citizen: recharges"],
)
