"""What happens to orders and refunds, the same at both providers: paid, closed, settled.

Each verb writes the new state and the notice about it in one transaction, so that a killed
process never forgets to tell what it did.
"""

from datetime import timedelta
from secrets import token_hex
from typing import Literal
from urllib.parse import urlsplit

import msgspec
from msgspec.structs import replace

from simulators.store import Notice, Order, Refund, RefundState, Store
from simulators.world import News, World

NOTIFY_URL_LENGTH_MAX = 255
_LOOPBACK = {"127.0.0.1", "::1", "localhost"}


class PlannedRefund(msgspec.Struct, frozen=True):
    """How the next refund of an order is to end."""

    outcome: RefundState


def pay(world: World, order: Order) -> Order:
    """Let the payer pay; an order that is paid already stays as it is and nothing is sent."""
    if order.state == "paid":
        return order
    paid = replace(order, state="paid", paid_at=world.now(), pay_at=None)
    news = world.providers[order.provider].paid(paid)
    with world.store.transaction():
        world.store.keep_order(paid)
        _tell(world, paid, news, about="payment", url=paid.notify_url)
    return paid


def pay_later(world: World, order: Order, *, seconds: float) -> Order:
    """Let the payer pay an open order after so many seconds, by the real clock."""
    waiting = replace(order, pay_at=world.now() + timedelta(seconds=seconds))
    with world.store.transaction():
        world.store.keep_order(waiting)
    return waiting


def fail(world: World, order: Order) -> Order:
    """Let the payer's attempt fail: the order stays payable, a payment on its way is off."""
    tried = replace(order, pay_at=None)
    with world.store.transaction():
        world.store.keep_order(tried)
    return tried


def close(world: World, order: Order) -> Order:
    """Close an order nobody paid."""
    if order.state != "open":
        return order
    closed = replace(order, state="closed", pay_at=None)
    news = world.providers[order.provider].closed(closed)
    with world.store.transaction():
        world.store.keep_order(closed)
        _tell(world, closed, news, about="closing", url=closed.notify_url)
    return closed


def settle(world: World, order: Order, refund: Refund, outcome: RefundState) -> Refund:
    """End a refund one way or the other."""
    settled = replace(
        refund, state=outcome, outcome=outcome, settled_at=world.now(), settles_at=None
    )
    with world.store.transaction():
        world.store.keep_refund(settled)
        refunds = world.store.refunds_of(order)
        news = world.providers[order.provider].refunded(order, settled, refunds)
        _tell(world, order, news, about="refund", url=settled.notify_url)
    return settled


def settle_due(world: World) -> None:
    """Do everything whose time has come."""
    now = world.now()
    for order in world.store.orders_to_pay(now):
        pay(world, order)
    for order in world.store.orders_to_expire(now):
        close(world, order)
    for refund in world.store.refunds_to_settle(now):
        refunded = world.store.order(refund.provider, refund.out_trade_no)
        if refunded is not None:
            settle(world, refunded, refund, refund.outcome)


def refundable_fen(order: Order, refunds: list[Refund]) -> int:
    """Return what may still be given back; a closed refund gave nothing, any other may have."""
    return order.total_fen - sum(r.refund_fen for r in refunds if r.state != "closed")


def plan_refund(store: Store, out_trade_no: str, outcome: RefundState) -> None:
    """Decide how the next refund of this order will end."""
    with store.transaction():
        store.keep_fact(f"next-refund:{out_trade_no}", PlannedRefund(outcome))


def take_next_outcome(store: Store, out_trade_no: str) -> RefundState:
    """Return how the refund now asked for will end: well, unless decided otherwise."""
    name = f"next-refund:{out_trade_no}"
    planned = store.fact(name, PlannedRefund)
    store.forget_fact(name)
    return "success" if planned is None else planned.outcome


def is_notify_url(url: str) -> bool:
    """Tell whether notices may go there: https without a query, or http to this machine."""
    parts = urlsplit(url)
    if not parts.hostname or parts.query or parts.fragment or len(url) > NOTIFY_URL_LENGTH_MAX:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK)


def canonical(body: bytes) -> str:
    """Return JSON in one spelling, to compare what was asked and not how it was written.

    Raises:
        msgspec.DecodeError: it is no JSON.
    """
    return msgspec.json.encode(msgspec.json.decode(body), order="sorted").decode()


def _tell(
    world: World,
    order: Order,
    news: News | None,
    *,
    about: Literal["payment", "refund", "closing"],
    url: str,
) -> None:
    if news is None or not url:
        return
    now = world.now()
    world.store.keep_notice(
        Notice(
            id=token_hex(16),
            provider=order.provider,
            out_trade_no=order.out_trade_no,
            about=about,
            url=url,
            event=news.event,
            content=msgspec.json.encode(news.content).decode(),
            created_at=now,
            sends=0,
            next_at=now,
            is_acknowledged=False,
        )
    )
