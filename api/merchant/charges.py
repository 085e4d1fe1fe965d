"""Charges and refunds as a merchant's server or till asks for them, signed."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

import msgspec
from litestar import Response, Router, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from api.auth import MachinePrincipal
from api.problems import prefers_english, refuses
from api.replies import AnyRequest, Fen, OrderNo, OrderNoQuery, Page, Text, made
from api.services import Services, Till
from identity.kernel import NotFound
from identity.request_numbers import RequestNumberReused, request_hash
from wallet.codes.presentations import present
from wallet.codes.reasons import Reason
from wallet.codes.wire import Flag
from wallet.ledger import accounts
from wallet.ledger.chart import Kind
from wallet.payments import charges, refunds
from wallet.payments.charges import Charge, OrderCancelled
from wallet.payments.refunds import (
    CardClosed,
    ChargeRefund,
    MerchantFundsInsufficient,
    NothingToRefund,
    RefundExceeds,
)


class ChargeRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Take money from the card whose code was scanned."""

    order_no: OrderNo
    code: Annotated[str, msgspec.Meta(min_length=1, max_length=400, description="动态码")]
    amount_fen: Fen
    description: Text | None = None
    terminal_no: Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Za-z_-]{1,32}\Z")] | None = None


class ChargeView(msgspec.Struct, frozen=True):
    """A charge; `reason` is 0 where it succeeded, else a number of the code format's §5."""

    id: UUID
    charge_no: str
    order_no: str
    state: Literal["succeeded", "declined"]
    reason: int
    reason_text: str
    amount_fen: int
    refunded_fen: int
    created_at: datetime


class CancelRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The order number whose outcome is not known."""

    order_no: OrderNo


class CancelledView(msgspec.Struct, frozen=True):
    """Nothing was charged under this number, and nothing ever will be."""

    order_no: str
    state: Literal["cancelled"]


class RefundRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Give part of a charge back."""

    refund_no: OrderNo
    amount_fen: Fen
    reason: Text


class RefundView(msgspec.Struct, frozen=True):
    """A refund, and what was given back of its charge altogether, this one included."""

    id: UUID
    refund_no: str
    state: Literal["succeeded"]
    amount_fen: int
    refunded_fen: int
    created_at: datetime


@post(
    "/charges",
    responses=refuses(RequestNumberReused, OrderCancelled),
)
async def create_charge(
    data: JSONBody[ChargeRequest],
    services: NamedDependency[Services],
    principal: NamedDependency[MachinePrincipal],
    request: AnyRequest,
) -> Response[ChargeView]:
    """Take money from a card. Retry with the same order number: the same charge comes back.

    A no by code, card or money is a stored charge with `state: "declined"` and its reason.
    """
    now = request.state.now
    presented = await present(services.db, services.issuer, data.code, purpose=Flag.PAY, now=now)
    till = await _till(services, principal.owner_id, request)
    if not till.may_charge and presented.reason == Reason.OK:
        presented = presented._replace(reason=Reason.MERCHANT_BLOCKED)
    charge, is_new = await charges.charge(
        services.db,
        services.poster,
        presented,
        merchant_id=principal.owner_id,
        payable_id=till.payable_id,
        order_no=data.order_no,
        request_hash=request_hash("charge", data),
        amount_fen=data.amount_fen,
        description=data.description,
        terminal_no=data.terminal_no,
        now=now,
    )
    # As it was when made, so that a retry gets the same answer at any later time.
    return made(_view(charge, request, refunded_fen=0), is_new=is_new)


@get("/charges/{charge_id:uuid}", responses=refuses(NotFound))
async def show_charge(
    charge_id: FromPath[UUID],
    services: NamedDependency[Services],
    principal: NamedDependency[MachinePrincipal],
    request: AnyRequest,
) -> ChargeView:
    """Show one charge."""
    async with services.db.begin() as session:
        charge = await charges.get_own(session, principal.owner_id, charge_id)
    return _view(charge, request, refunded_fen=charge.refunded_fen)


@get("/charges")
async def find_charges(
    order_no: OrderNoQuery,
    services: NamedDependency[Services],
    principal: NamedDependency[MachinePrincipal],
    request: AnyRequest,
) -> Page[ChargeView]:
    """Find the charge of an order number: a list of none or one."""
    async with services.db.begin() as session:
        charge = await charges.find_by_order_no(session, principal.owner_id, order_no)
    items = [_view(charge, request, refunded_fen=charge.refunded_fen)] if charge else []
    return Page(items, None)


@post("/charges/cancel-if-absent")
async def cancel_charge_if_absent(
    data: JSONBody[CancelRequest],
    services: NamedDependency[Services],
    principal: NamedDependency[MachinePrincipal],
    request: AnyRequest,
) -> Response[ChargeView | CancelledView]:
    """Learn what became of an order number, or make sure that nothing ever will.

    Answers 200 with the charge, or 201 with `cancelled`: then the number is used up.
    """
    async with services.db.begin() as session:
        charge, is_new = await charges.cancel_if_absent(
            session, principal.owner_id, data.order_no, now=request.state.now
        )
    if charge:
        view = _view(charge, request, refunded_fen=charge.refunded_fen)
        return Response(view, status_code=200)
    cancelled: ChargeView | CancelledView = CancelledView(data.order_no, "cancelled")
    return made(cancelled, is_new=is_new)


@post(
    "/charges/{charge_id:uuid}/refunds",
    responses=refuses(
        NotFound,
        RefundExceeds,
        NothingToRefund,
        MerchantFundsInsufficient,
        CardClosed,
        RequestNumberReused,
    ),
)
async def create_refund(
    charge_id: FromPath[UUID],
    data: JSONBody[RefundRequest],
    services: NamedDependency[Services],
    principal: NamedDependency[MachinePrincipal],
    request: AnyRequest,
) -> Response[RefundView]:
    """Give part of a charge back to the card that paid; as many parts as it takes."""
    async with services.db.begin() as session:
        charge = await charges.get_own(session, principal.owner_id, charge_id)
        principal_id = (
            await accounts.account_id(session, Kind.CARD_PRINCIPAL, charge.card_id)
            if charge.card_id
            else None
        )
    refund, is_new = await refunds.refund(
        services.db,
        services.poster,
        merchant_id=principal.owner_id,
        charge_id=charge_id,
        payable_id=(await _till(services, principal.owner_id, request)).payable_id,
        principal_id=principal_id,
        refund_no=data.refund_no,
        request_hash=request_hash("refund", charge_id, data),
        amount_fen=data.amount_fen,
        reason=data.reason,
        now=request.state.now,
    )
    return made(_refund_view(refund), is_new=is_new)


async def _till(services: Services, merchant_id: UUID, request: AnyRequest) -> Till:
    found = await services.tills.find(merchant_id, now=request.state.now)
    assert found is not None, "a merchant has an account"
    return found


def _view(charge: Charge, request: AnyRequest, *, refunded_fen: int) -> ChargeView:
    reason = Reason.of(charge.reason)
    sentence = reason.en if prefers_english(request) else reason.zh
    return ChargeView(
        id=charge.id,
        charge_no=charge.charge_no,
        order_no=charge.order_no,
        state="succeeded" if charge.state == "succeeded" else "declined",
        reason=charge.reason,
        reason_text=sentence.says,
        amount_fen=charge.amount_fen,
        refunded_fen=refunded_fen,
        created_at=charge.created_at,
    )


def _refund_view(refund: ChargeRefund) -> RefundView:
    return RefundView(
        refund.id,
        refund.refund_no,
        "succeeded",
        refund.amount_fen,
        refund.refunded_fen,
        refund.created_at,
    )


router = Router(
    "",
    route_handlers=[
        create_charge,
        show_charge,
        find_charges,
        cancel_charge_if_absent,
        create_refund,
    ],
    tags=["merchant: charges"],
)
