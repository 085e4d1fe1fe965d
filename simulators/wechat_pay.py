"""WeChat Pay v3, mini-program payments: prepay, query, close, refund.

An order is NOTPAY → SUCCESS | CLOSED, and REFUND from its first refund on.
"""

from datetime import datetime, timedelta
from secrets import token_hex
from typing import Annotated, Any, TypeVar

import msgspec
from litestar import Request, Response, Router, get, post
from litestar.di import NamedDependency
from msgspec import Meta, Struct

from simulators import people, trades
from simulators.keys import digits
from simulators.store import Order, Refund
from simulators.wechat_pay_wire import (
    BEIJING,
    PayError,
    rfc3339,
    signed_headers,
    transaction,
    verify_request,
)
from simulators.world import World

AnyRequest = Request[Any, Any, Any]
T = TypeVar("T")
ORDER_LIFE = timedelta(days=7)
REFUND_SECONDS = 30
"""How long a refund is on its way, before scaling; really minutes to days."""
REFUNDS_MAX = 50

_STATES = {"open": ("NOTPAY", "订单未支付"), "closed": ("CLOSED", "订单已关闭")}


class Amount(Struct, frozen=True):
    """What an order costs."""

    total: Annotated[int, Meta(ge=1, le=10**10)]
    currency: Annotated[str, Meta(pattern="^CNY$")] = "CNY"


class Payer(Struct, frozen=True):
    """Who is to pay."""

    openid: Annotated[str, Meta(min_length=1, max_length=128)]


class Prepay(Struct, frozen=True):
    """An order to be paid inside the mini-program."""

    appid: str
    mchid: str
    description: Annotated[str, Meta(min_length=1, max_length=127)]
    out_trade_no: Annotated[str, Meta(pattern=r"^[0-9A-Za-z_\-|*]{6,32}\Z")]
    notify_url: str
    amount: Amount
    payer: Payer
    attach: Annotated[str, Meta(max_length=128)] = ""
    time_expire: Annotated[datetime, Meta(tz=True)] | None = None


class Close(Struct, frozen=True):
    """Who closes an order."""

    mchid: str


class RefundAmount(Struct, frozen=True):
    """How much of an order goes back."""

    refund: Annotated[int, Meta(ge=1, le=10**10)]
    total: Annotated[int, Meta(ge=1, le=10**10)]
    currency: Annotated[str, Meta(pattern="^CNY$")]


class RefundRequest(Struct, frozen=True):
    """A refund of an order named by either of its numbers."""

    out_refund_no: Annotated[str, Meta(pattern=r"^[0-9A-Za-z_\-|*@]{1,64}\Z")]
    amount: RefundAmount
    out_trade_no: str = ""
    transaction_id: str = ""
    reason: Annotated[str, Meta(max_length=80)] = ""
    notify_url: str = ""


@post("/pay/transactions/jsapi", status_code=200)
async def prepay(request: AnyRequest, world: NamedDependency[World]) -> Response[bytes]:
    """Take an order, or the same order once more."""
    body = await request.body()
    asked = _read(body, Prepay)
    _check_prepay(world, asked)
    canonical = trades.canonical(body)
    order = world.store.order("wechat_pay", asked.out_trade_no)
    if order is None:
        order = _make_order(world, asked, canonical)
        with world.store.transaction():
            world.store.keep_order(order)
    elif order.state == "paid":
        raise PayError(400, "ORDERPAID", "该订单已支付")
    elif order.state == "closed":
        raise PayError(400, "ORDER_CLOSED", "该订单已关闭")
    elif order.request != canonical:
        raise PayError(400, "INVALID_REQUEST", "请求重入时，参数与首次请求时不一致")
    return _answer(world, {"prepay_id": order.prepay_id})


@get("/pay/transactions/out-trade-no/{out_trade_no:str}")
async def query(
    out_trade_no: str, world: NamedDependency[World], mchid: str = ""
) -> Response[bytes]:
    """Show an order."""
    order = _order_of(world, out_trade_no, mchid)
    state, description = _STATES.get(order.state, ("SUCCESS", "支付成功"))
    if any(refund.state != "closed" for refund in world.store.refunds_of(order)):
        state, description = "REFUND", "订单发生过退款"
    shown = transaction(world.keys, order, trade_state=state, description=description)
    return _answer(world, shown)


@post("/pay/transactions/out-trade-no/{out_trade_no:str}/close", status_code=204)
async def close(
    request: AnyRequest, out_trade_no: str, world: NamedDependency[World]
) -> Response[None]:
    """Close an order nobody paid; closing it again changes nothing."""
    asked = _read(await request.body(), Close)
    order = _order_of(world, out_trade_no, asked.mchid)
    if order.state == "paid":
        raise PayError(400, "ORDERPAID", "该订单已支付")
    trades.close(world, order)
    # Even an answer without a body is signed.
    return Response(None, status_code=204, headers=signed_headers(world.keys, b"", at=world.now()))


@post("/refund/domestic/refunds", status_code=200)
async def refund(request: AnyRequest, world: NamedDependency[World]) -> Response[bytes]:
    """Give money back; the same number asks for the same refund."""
    body = await request.body()
    asked = _read(body, RefundRequest)
    order = _refunded_order(world, asked)
    canonical = trades.canonical(body)
    kept = world.store.refund("wechat_pay", asked.out_refund_no)
    if kept is None:
        _check_refund(world, order, asked)
        with world.store.transaction():
            kept = _make_refund(world, order, asked, canonical)
            world.store.keep_refund(kept)
    elif kept.request != canonical:
        raise PayError(400, "INVALID_REQUEST", "订单金额或退款金额与之前请求不一致，请核实后再试")
    return _answer(world, _refund_view(order, kept))


@get("/refund/domestic/refunds/{out_refund_no:str}")
async def query_refund(out_refund_no: str, world: NamedDependency[World]) -> Response[bytes]:
    """Show a refund."""
    kept = world.store.refund("wechat_pay", out_refund_no)
    if kept is None:
        raise PayError(404, "RESOURCE_NOT_EXISTS", "退款单不存在")
    order = _order_of(world, kept.out_trade_no, world.keys.ids.mch_id)
    return _answer(world, _refund_view(order, kept))


def router(world: World) -> Router:
    """Return WeChat Pay's interface, where nothing passes unsigned in either direction."""

    # Closures, not partials: Litestar copies a router with all it holds, and leaves functions be.
    async def verify(request: AnyRequest) -> None:
        await _verify(world, request)

    def refuse(_: AnyRequest, error: PayError) -> Response[bytes]:
        return _refuse(world, error)

    return Router(
        path="/v3",
        route_handlers=[prepay, query, close, refund, query_refund],
        before_request=verify,
        exception_handlers={PayError: refuse},
    )


async def _verify(world: World, request: AnyRequest) -> None:
    raw_path: bytes = request.scope["raw_path"]
    raw_query: bytes = request.scope["query_string"]
    verify_request(
        world.keys,
        method=request.method,
        target=(raw_path + (b"?" + raw_query if raw_query else b"")).decode(),
        authorization=request.headers.get("authorization", ""),
        body=await request.body(),
        now=world.now(),
    )


def _refuse(world: World, error: PayError) -> Response[bytes]:
    content: dict[str, Any] = {"code": error.code, "message": error.message}
    if error.field:
        content["detail"] = {"field": error.field, "issue": error.message, "location": "body"}
    return _answer(world, content, status=error.status)


def _answer(world: World, content: object, *, status: int = 200) -> Response[bytes]:
    body = msgspec.json.encode(content)
    headers = signed_headers(world.keys, body, at=world.now())
    media_type = "application/json; charset=utf-8"
    return Response(body, status_code=status, headers=headers, media_type=media_type)


def _read(body: bytes, type_: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=type_)
    except msgspec.DecodeError as error:
        raise PayError(400, "PARAM_ERROR", f"参数错误：{error}", field="/") from error


def _check_prepay(world: World, asked: Prepay) -> None:
    ids = world.keys.ids
    if (asked.appid, asked.mchid) != (ids.wechat_app_id, ids.mch_id):
        raise PayError(400, "APPID_MCHID_NOT_MATCH", "商户号与appid不匹配")
    if not trades.is_notify_url(asked.notify_url):
        raise PayError(400, "PARAM_ERROR", "notify_url不符合要求", field="/notify_url")
    if asked.time_expire is not None and asked.time_expire <= world.now():
        raise PayError(400, "PARAM_ERROR", "time_expire已过", field="/time_expire")
    if not people.is_wechat_open_id(ids.wechat_app_id, asked.payer.openid):
        raise PayError(400, "INVALID_REQUEST", "appid和openid不匹配")


def _make_order(world: World, asked: Prepay, canonical: str) -> Order:
    now = world.now()
    return Order(
        provider="wechat_pay",
        out_trade_no=asked.out_trade_no,
        trade_no=f"4200{digits(24)}",
        prepay_id=f"wx{now.astimezone(BEIJING):%d%H%M%S}{token_hex(13)}",
        request=canonical,
        description=asked.description,
        attach=asked.attach,
        payer=asked.payer.openid,
        total_fen=asked.amount.total,
        notify_url=asked.notify_url,
        state="open",
        created_at=now,
        expires_at=asked.time_expire or now + ORDER_LIFE,
        pay_at=None,
        paid_at=None,
    )


def _order_of(world: World, out_trade_no: str, mchid: str) -> Order:
    if mchid != world.keys.ids.mch_id:
        raise PayError(400, "PARAM_ERROR", "商户号不符", field="/mchid")
    order = world.store.order("wechat_pay", out_trade_no)
    if order is None:
        raise PayError(404, "ORDER_NOT_EXIST", "订单不存在")
    return order


def _refunded_order(world: World, asked: RefundRequest) -> Order:
    if bool(asked.out_trade_no) == bool(asked.transaction_id):
        raise PayError(400, "PARAM_ERROR", "out_trade_no与transaction_id二选一")
    if asked.out_trade_no:
        order = world.store.order("wechat_pay", asked.out_trade_no)
    else:
        order = world.store.order_by_trade_no("wechat_pay", asked.transaction_id)
    if order is None:
        raise PayError(404, "RESOURCE_NOT_EXISTS", "订单不存在")
    return order


def _check_refund(world: World, order: Order, asked: RefundRequest) -> None:
    refunds = world.store.refunds_of(order)
    if order.state != "paid":
        raise PayError(400, "INVALID_REQUEST", "订单未支付，不能退款")
    if asked.notify_url and not trades.is_notify_url(asked.notify_url):
        raise PayError(400, "PARAM_ERROR", "notify_url不符合要求", field="/notify_url")
    if asked.amount.total != order.total_fen:
        raise PayError(400, "INVALID_REQUEST", "订单总金额与原订单不一致")
    if asked.amount.refund > trades.refundable_fen(order, refunds):
        raise PayError(400, "INVALID_REQUEST", "申请退款金额大于订单可退金额")
    if len(refunds) >= REFUNDS_MAX:
        raise PayError(400, "INVALID_REQUEST", "订单退款次数超过限制")


def _make_refund(world: World, order: Order, asked: RefundRequest, canonical: str) -> Refund:
    now = world.now()
    outcome = trades.take_next_outcome(world.store, order.out_trade_no)
    on_its_way = timedelta(seconds=REFUND_SECONDS * world.time_scale)
    return Refund(
        provider="wechat_pay",
        out_trade_no=order.out_trade_no,
        out_refund_no=asked.out_refund_no,
        refund_id=f"503{digits(25)}",
        request=canonical,
        refund_fen=asked.amount.refund,
        notify_url=asked.notify_url or order.notify_url,
        state="processing",
        outcome=outcome,
        created_at=now,
        settles_at=None if outcome == "processing" else now + on_its_way,
        settled_at=None,
    )


def _refund_view(order: Order, kept: Refund) -> dict[str, Any]:
    view: dict[str, Any] = {
        "refund_id": kept.refund_id,
        "out_refund_no": kept.out_refund_no,
        "transaction_id": order.trade_no,
        "out_trade_no": order.out_trade_no,
        "channel": "ORIGINAL",
        "user_received_account": "支付用户零钱",
        "create_time": rfc3339(kept.created_at),
        "status": kept.state.upper(),
        "funds_account": "AVAILABLE",
        "amount": {
            "total": order.total_fen,
            "refund": kept.refund_fen,
            "payer_total": order.total_fen,
            "payer_refund": kept.refund_fen,
            "settlement_total": order.total_fen,
            "settlement_refund": kept.refund_fen,
            "discount_refund": 0,
            "currency": "CNY",
        },
    }
    if kept.state == "success" and kept.settled_at is not None:
        view["success_time"] = rfc3339(kept.settled_at)
    return view
