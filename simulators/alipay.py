"""Alipay's gateway: sign-in, and mini-program trades created, queried, closed, refunded.

A trade is WAIT_BUYER_PAY → TRADE_SUCCESS | TRADE_CLOSED, and closed too once all is given back.
"""

from collections.abc import Callable, Mapping
from datetime import timedelta
from secrets import token_hex
from typing import Annotated, Any, TypeVar
from urllib.parse import parse_qsl

import msgspec
from litestar import HttpMethod, Request, Response, Router, route
from litestar.di import NamedDependency
from msgspec import Meta, Raw, Struct

from simulators import people, trades
from simulators.alipay_wire import (
    GatewayError,
    answer,
    beijing,
    buyer,
    fen,
    from_beijing,
    verify_request,
    yuan,
)
from simulators.keys import digits
from simulators.store import Order, Refund
from simulators.world import World

AnyRequest = Request[Any, Any, Any]
T = TypeVar("T")
ORDER_LIFE = timedelta(days=15)
_OK = {"code": "10000", "msg": "Success"}
_STATUSES = {"open": "WAIT_BUYER_PAY", "paid": "TRADE_SUCCESS", "closed": "TRADE_CLOSED"}


class Create(Struct, frozen=True):
    """A trade to be paid inside the mini-program."""

    out_trade_no: Annotated[str, Meta(pattern=r"^[0-9A-Za-z_-]{1,64}\Z")]
    total_amount: Raw
    subject: Annotated[str, Meta(min_length=1, max_length=256)]
    product_code: Annotated[str, Meta(pattern="^JSAPI_PAY$")]
    op_app_id: str
    buyer_open_id: str = ""
    buyer_id: str = ""
    body: Annotated[str, Meta(max_length=128)] = ""
    time_expire: str = ""


class Which(Struct, frozen=True):
    """A trade named by either of its numbers."""

    out_trade_no: str = ""
    trade_no: str = ""


class RefundRequest(Which, frozen=True, kw_only=True):
    """A refund; without a number of its own it can only be of everything."""

    refund_amount: Raw
    out_request_no: Annotated[str, Meta(max_length=64)] = ""


class RefundQuery(Which, frozen=True, kw_only=True):
    """A refund named within its trade."""

    out_request_no: str


@route("/gateway.do", http_method=[HttpMethod.GET, HttpMethod.POST], status_code=200)
async def gateway(request: AnyRequest, world: NamedDependency[World]) -> Response[bytes]:
    """Answer any method; refusals come with status 200 too."""
    raw_query: bytes = request.scope["query_string"]
    # Query first, form after it: clients put the common parameters in either.
    encoded = raw_query.decode() + "&" + (await request.body()).decode(errors="replace")
    content = handle(world, dict(parse_qsl(encoded)))
    return Response(content, media_type="text/html")


def handle(world: World, params: Mapping[str, str]) -> bytes:
    """Return the gateway's answer to decoded parameters."""
    method = params.get("method", "")
    name = f"{method.replace('.', '_')}_response" if method in _METHODS else "error_response"
    try:
        verify_request(world.keys, params, now=world.now())
        content = _METHODS.get(method, _no_such_method)(world, params)
    except GatewayError as error:
        name = "error_response" if error.is_nameless else name
        return answer(world.keys, name, error.content, is_signed=error.is_signed)
    return answer(world.keys, name, content)


def router() -> Router:
    """Return Alipay's interface."""
    return Router(path="/", route_handlers=[gateway])


def _no_such_method(_: World, __: Mapping[str, str]) -> dict[str, Any]:
    raise GatewayError("40002", "isv.invalid-method", "不存在的方法名", is_signed=False)


def _sign_in(world: World, params: Mapping[str, str]) -> dict[str, str]:
    if params.get("grant_type") != "authorization_code":
        raise GatewayError("40002", "isv.grant-type-invalid", "授权类型无效", is_nameless=True)
    name = people.name_in(params.get("code", ""))
    if name is None:
        raise GatewayError("40002", "isv.code-invalid", "授权码code无效", is_nameless=True)
    user_id = people.alipay_user_id(name)
    return {
        "access_token": f"authusrB{token_hex(16)}",
        "refresh_token": f"authusrR{token_hex(16)}",
        "expires_in": "1296000",
        "re_expires_in": "2592000",
        "auth_start": beijing(world.now()),
        "open_id": people.alipay_open_id(world.keys.ids.alipay_app_id, name),
    } | ({} if user_id is None else {"user_id": user_id})


def _create(world: World, params: Mapping[str, str]) -> dict[str, str]:
    asked = _read(params, Create)
    order = world.store.order("alipay", asked.out_trade_no)
    canonical = trades.canonical(params["biz_content"].encode())
    if order is None:
        order = _make_order(world, asked, canonical, params.get("notify_url", ""))
        with world.store.transaction():
            world.store.keep_order(order)
    elif order.state == "paid":
        raise _failed("ACQ.TRADE_HAS_SUCCESS", "交易已被支付")
    elif order.state == "closed":
        raise _failed("ACQ.TRADE_HAS_CLOSE", "交易已经关闭")
    elif order.request != canonical:
        raise _failed("ACQ.CONTEXT_INCONSISTENT", "交易信息被篡改")
    return _OK | {"out_trade_no": order.out_trade_no, "trade_no": order.trade_no}


def _make_order(world: World, asked: Create, canonical: str, notify_url: str) -> Order:
    app_id, payer = world.keys.ids.alipay_app_id, asked.buyer_open_id or asked.buyer_id
    if asked.op_app_id != app_id or not people.is_alipay_buyer(app_id, payer):
        raise _invalid("买家或小程序不符")
    if notify_url and not trades.is_notify_url(notify_url):
        raise _invalid("notify_url不符合要求")
    now = world.now()
    expires_at = from_beijing(asked.time_expire) if asked.time_expire else now + ORDER_LIFE
    if expires_at is None or expires_at <= now:
        raise _invalid("time_expire不符合要求")
    return Order(
        provider="alipay",
        out_trade_no=asked.out_trade_no,
        trade_no=f"{beijing(now)[:10].replace('-', '')}2200{digits(16)}",
        prepay_id="",
        request=canonical,
        description=asked.subject,
        attach=asked.body,
        payer=payer,
        total_fen=_amount_fen(asked.total_amount),
        notify_url=notify_url,
        state="open",
        created_at=now,
        expires_at=expires_at,
        pay_at=None,
        paid_at=None,
    )


def _query(world: World, params: Mapping[str, str]) -> dict[str, Any]:
    order = _order_of(world, _read(params, Which))
    total, status = yuan(order.total_fen), _STATUSES[order.state]
    refunded = [r for r in world.store.refunds_of(order) if r.state == "success"]
    if order.state == "paid" and trades.refundable_fen(order, refunded) == 0:
        status = "TRADE_CLOSED"
    shown: dict[str, Any] = {
        **_OK,
        "out_trade_no": order.out_trade_no,
        "trade_no": order.trade_no,
        "trade_status": status,
        "total_amount": total,
        "buyer_logon_id": "139******01",
        **buyer(order, user_id="buyer_user_id"),
    }
    if order.paid_at is None:
        return shown
    return shown | {
        "receipt_amount": total,
        "buyer_pay_amount": total,
        "invoice_amount": total,
        "point_amount": "0.00",
        "send_pay_date": beijing(order.paid_at),
        "fund_bill_list": [{"amount": total, "fund_channel": "ALIPAYACCOUNT"}],
    }


def _close(world: World, params: Mapping[str, str]) -> dict[str, str]:
    order = _order_of(world, _read(params, Which))
    if order.state != "open":
        raise _failed("ACQ.TRADE_STATUS_ERROR", "交易状态不合法")
    trades.close(world, order)
    return _OK | {"out_trade_no": order.out_trade_no, "trade_no": order.trade_no}


def _refund(world: World, params: Mapping[str, str]) -> dict[str, str]:
    asked = _read(params, RefundRequest)
    order = _order_of(world, asked)
    refund_fen = _amount_fen(asked.refund_amount)
    number = asked.out_request_no or order.out_trade_no
    kept = _refund_numbered(world, order, number)
    if kept is not None and kept.refund_fen != refund_fen:
        raise _failed("ACQ.DISCORDANT_REPEAT_REQUEST", "同一退款请求号的金额不一致")
    # Only the request that moved the money says so; its repetitions say that nothing moved.
    change = "N"
    if kept is None:
        _check_refund(world, order, refund_fen, asked)
        kept = _make_refund(world, order, number, refund_fen)
        change = "N" if kept.state == "processing" else "Y"
    refunds = world.store.refunds_of(order)
    return {
        **_OK,
        "out_trade_no": order.out_trade_no,
        "trade_no": order.trade_no,
        "buyer_logon_id": "139******01",
        "fund_change": change,
        "refund_fee": yuan(sum(r.refund_fen for r in refunds if r.state == "success")),
        "gmt_refund_pay": beijing(kept.settled_at or kept.created_at),
        **buyer(order, user_id="buyer_user_id"),
    }


def _check_refund(world: World, order: Order, refund_fen: int, asked: RefundRequest) -> None:
    if order.state != "paid":
        raise _failed("ACQ.TRADE_STATUS_ERROR", "交易状态不合法")
    if not asked.out_request_no and refund_fen != order.total_fen:
        raise _failed("ACQ.REFUND_AMT_NOT_EQUAL_TOTAL", "撤销或退款金额与订单金额不一致")
    if refund_fen > trades.refundable_fen(order, world.store.refunds_of(order)):
        raise _failed("ACQ.REASON_TRADE_REFUND_FEE_ERR", "退款金额无效")


def _make_refund(world: World, order: Order, number: str, refund_fen: int) -> Refund:
    now = world.now()
    with world.store.transaction():
        outcome = trades.take_next_outcome(world.store, order.out_trade_no)
    if outcome in {"abnormal", "closed"}:
        raise _failed("ACQ.SELLER_BALANCE_NOT_ENOUGH", "卖家余额不足")
    refund = Refund(
        provider="alipay",
        out_trade_no=order.out_trade_no,
        out_refund_no=number,
        refund_id="",
        request="",
        refund_fen=refund_fen,
        notify_url=order.notify_url,
        state="processing",
        outcome=outcome,
        created_at=now,
        settles_at=None,
        settled_at=None,
    )
    if outcome == "success":
        return trades.settle(world, order, refund, outcome)
    with world.store.transaction():
        world.store.keep_refund(refund)
    return refund


def _query_refund(world: World, params: Mapping[str, str]) -> dict[str, str]:
    asked = _read(params, RefundQuery)
    order = _order_of(world, asked)
    kept = _refund_numbered(world, order, asked.out_request_no)
    # A refund that did not happen is no error; it only lacks the status.
    if kept is None or kept.settled_at is None or kept.state != "success":
        return _OK
    return _OK | {
        "out_trade_no": order.out_trade_no,
        "trade_no": order.trade_no,
        "out_request_no": kept.out_refund_no,
        "total_amount": yuan(order.total_fen),
        "refund_amount": yuan(kept.refund_fen),
        "refund_status": "REFUND_SUCCESS",
        "gmt_refund_pay": beijing(kept.settled_at),
    }


def _refund_numbered(world: World, order: Order, number: str) -> Refund | None:
    refunds = world.store.refunds_of(order)
    return next((refund for refund in refunds if refund.out_refund_no == number), None)


def _order_of(world: World, which: Which) -> Order:
    # Alipay's own number wins where both are given.
    if which.trade_no:
        order = world.store.order_by_trade_no("alipay", which.trade_no)
    else:
        order = world.store.order("alipay", which.out_trade_no)
    if order is None:
        raise _failed("ACQ.TRADE_NOT_EXIST", "交易不存在")
    return order


def _read(params: Mapping[str, str], type_: type[T]) -> T:
    try:
        return msgspec.json.decode(params.get("biz_content", ""), type=type_)
    except msgspec.DecodeError as error:
        raise _invalid(f"参数无效：{error}") from error


def _amount_fen(amount: Raw) -> int:
    try:
        amount_fen = fen(amount)
    except ValueError as error:
        raise _invalid("金额无效") from error
    if amount_fen == 0:
        raise _invalid("金额无效")
    return amount_fen


def _invalid(sub_msg: str) -> GatewayError:
    return _failed("ACQ.INVALID_PARAMETER", sub_msg)


def _failed(sub_code: str, sub_msg: str) -> GatewayError:
    return GatewayError("40004", sub_code, sub_msg)


_METHODS: Mapping[str, Callable[[World, Mapping[str, str]], Mapping[str, Any]]] = {
    "alipay.system.oauth.token": _sign_in,
    "alipay.trade.create": _create,
    "alipay.trade.query": _query,
    "alipay.trade.close": _close,
    "alipay.trade.refund": _refund,
    "alipay.trade.fastpay.refund.query": _query_refund,
}
