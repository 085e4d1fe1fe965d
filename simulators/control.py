"""The control plane: what payers do, how refunds end, how notices go. Not part of any provider."""

from datetime import datetime
from typing import Annotated, Any

from litestar import Response, Router, get, post
from litestar.di import NamedDependency
from litestar.exceptions import HTTPException, NotFoundException
from msgspec import Meta, Struct

from simulators import notices, trades
from simulators.alipay_wire import phone_payload
from simulators.notices import Disturbance
from simulators.store import Notice, Order, ProviderName, RefundState
from simulators.world import Mode, World

TradeNo = Annotated[str, Meta(min_length=1, max_length=64)]


class Pay(Struct, frozen=True, forbid_unknown_fields=True):
    """Whose payer pays; a closed order only if insisted on, as in a race with its closing."""

    out_trade_no: TradeNo
    even_if_closed: bool = False


class Which(Struct, frozen=True, forbid_unknown_fields=True):
    """An order at whichever provider."""

    out_trade_no: TradeNo


class Delay(Struct, frozen=True, forbid_unknown_fields=True):
    """When the payer pays, in seconds of the real clock."""

    out_trade_no: TradeNo
    seconds: Annotated[float, Meta(ge=0, le=86_400)]


class Refunding(Struct, frozen=True, forbid_unknown_fields=True):
    """How the order's next refund ends, or how one that is on its way ends now."""

    out_trade_no: TradeNo
    outcome: RefundState
    out_refund_no: str = ""


class Disturbing(Struct, frozen=True, forbid_unknown_fields=True):
    """How the next sends about an order go; it need not exist yet."""

    out_trade_no: TradeNo
    mode: Mode
    copies: Annotated[int, Meta(ge=2, le=50)] = 2
    times: Annotated[int, Meta(ge=1, le=1000)] | None = None


class PhoneButton(Struct, frozen=True, forbid_unknown_fields=True):
    """Who pressed the phone-number button in the Alipay mini-program."""

    code: str


class OrderView(Struct, frozen=True):
    """An order as it stands."""

    provider: ProviderName
    out_trade_no: str
    trade_no: str
    state: str
    total_fen: int
    pay_at: datetime | None


class NoticeView(Struct, frozen=True):
    """A notice and how far it got."""

    id: str
    about: str
    event: str
    url: str
    sends: int
    next_at: datetime | None
    is_acknowledged: bool


@post("/pay", status_code=200)
async def pay(data: Pay, world: NamedDependency[World]) -> OrderView:
    """Let the payer pay: the order succeeds and a notice goes out."""
    order = _order(world, data.out_trade_no)
    if order.state == "closed" and not data.even_if_closed:
        raise _conflict("the order is closed")
    return _view(trades.pay(world, order))


@post("/fail", status_code=200)
async def fail(data: Which, world: NamedDependency[World]) -> OrderView:
    """Let the payer's attempt fail; the order stays payable."""
    return _view(trades.fail(world, _unpaid(world, data.out_trade_no)))


@post("/close", status_code=200)
async def close(data: Which, world: NamedDependency[World]) -> OrderView:
    """Close the order at its provider."""
    order = _order(world, data.out_trade_no)
    if order.state == "paid":
        raise _conflict("the order is paid")
    return _view(trades.close(world, order))


@post("/delay", status_code=200)
async def delay(data: Delay, world: NamedDependency[World]) -> OrderView:
    """Let the payer pay some seconds from now, even if the simulators start anew meanwhile."""
    order = _unpaid(world, data.out_trade_no)
    return _view(trades.pay_later(world, order, seconds=data.seconds))


@post("/refunds", status_code=204)
async def end_refund(data: Refunding, world: NamedDependency[World]) -> None:
    """Decide how a refund ends; `processing` stays so until decided again."""
    if not data.out_refund_no:
        trades.plan_refund(world.store, data.out_trade_no, data.outcome)
        return
    order = _order(world, data.out_trade_no)
    numbered = [r for r in world.store.refunds_of(order) if r.out_refund_no == data.out_refund_no]
    if not numbered:
        raise NotFoundException(detail="no such refund")
    if numbered[0].state != "processing":
        raise _conflict(f"the refund is {numbered[0].state}")
    trades.settle(world, order, numbered[0], data.outcome)


@post("/notices", status_code=204)
async def disturb(data: Disturbing, world: NamedDependency[World]) -> None:
    """Let the next sends about an order go wrong, or right again with `normal`."""
    disturbance = Disturbance(mode=data.mode, copies=data.copies, times=data.times)
    notices.disturb(world.store, data.out_trade_no, disturbance)


@get("/notices")
async def list_notices(out_trade_no: str, world: NamedDependency[World]) -> list[NoticeView]:
    """Show what was told about an order, oldest first."""
    return [_notice_view(notice) for notice in world.store.notices_of(out_trade_no)]


@post("/resend", status_code=200)
async def resend(data: Which, world: NamedDependency[World]) -> NoticeView:
    """Send the payment's notice again, under its old id."""
    told = world.store.notices_of(data.out_trade_no)
    payment = next((notice for notice in told if notice.about == "payment"), None)
    if payment is None:
        raise NotFoundException(detail="no payment was told of")
    notices.send_again(world, payment)
    return _notice_view(payment)


@get("/messages")
async def list_messages(phone: str = "") -> list[dict[str, Any]]:  # noqa: ARG001 - part of the address
    """Show what was sent to a phone: nothing yet, since no provider of messages is simulated."""
    return []


@post("/alipay/phone", status_code=200)
async def press_phone_button(
    data: PhoneButton, world: NamedDependency[World]
) -> Response[dict[str, Any]]:
    """Hand over what the Alipay client would, to be posted to the mini-program's server."""
    return Response(dict(phone_payload(world.keys, data.code)))


def router() -> Router:
    """Return the control plane."""
    handlers = [pay, fail, close, delay, end_refund, disturb, list_notices, resend]
    return Router(path="/_ctl", route_handlers=[*handlers, list_messages, press_phone_button])


def _order(world: World, out_trade_no: str) -> Order:
    order = world.store.order_anywhere(out_trade_no)
    if order is None:
        raise NotFoundException(detail="no such order")
    return order


def _unpaid(world: World, out_trade_no: str) -> Order:
    order = _order(world, out_trade_no)
    if order.state != "open":
        raise _conflict(f"the order is {order.state}")
    return order


def _conflict(detail: str) -> HTTPException:
    return HTTPException(status_code=409, detail=detail)


def _view(order: Order) -> OrderView:
    return OrderView(
        provider=order.provider,
        out_trade_no=order.out_trade_no,
        trade_no=order.trade_no,
        state=order.state,
        total_fen=order.total_fen,
        pay_at=order.pay_at,
    )


def _notice_view(notice: Notice) -> NoticeView:
    return NoticeView(
        id=notice.id,
        about=notice.about,
        event=notice.event,
        url=notice.url,
        sends=notice.sends,
        next_at=notice.next_at,
        is_acknowledged=notice.is_acknowledged,
    )
