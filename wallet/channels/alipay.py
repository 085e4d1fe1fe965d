"""Alipay (支付宝) mini-program payments: trades created, queried, closed, refunded.

Calls go through the gateway that sign-in uses too, so that our app has one place that signs. An
answer's code 10000 is a yes, 10003 is "not yet", 40004 a no for the reason in its sub code unless
that reason is Alipay's own trouble, 20000 and silence are unknown.
"""

from datetime import datetime
from typing import Any, Literal, TypeVar

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from identity.providers.alipay_gateway import (
    OK,
    AlipayAnswer,
    AlipayGateway,
    beijing_time,
    from_beijing_time,
)
from identity.providers.transport import Silence
from wallet.channels.alipay_notices import CURRENCY, read_notice
from wallet.channels.channel import (
    ChannelName,
    ChannelRefused,
    ChannelUnknown,
    Found,
    Headers,
    NewOrder,
    NewRefund,
    Notice,
    PaymentState,
    RefundFound,
    RefundState,
    fen_of_yuan,
    provider_code_of,
    yuan_of_fen,
)

_PENDING = "10003"
_BUSY = frozenset({"20000", _PENDING})

_ABSENT = frozenset({"ACQ.TRADE_NOT_EXIST"})
_NOT_OPEN = frozenset({"ACQ.TRADE_STATUS_ERROR", "ACQ.REASON_TRADE_STATUS_INVALID"})

_CREATED_BEFORE = frozenset(
    {"ACQ.TRADE_HAS_SUCCESS", "ACQ.TRADE_HAS_CLOSE", "ACQ.CONTEXT_INCONSISTENT"}
)
"""A trade of that number is there already, and what became of it only a query tells."""

_TROUBLES = ("SYSTEM_ERROR", "UNKNOWN_ERROR", "UNKNOW_ERROR")
"""How sub codes end that are Alipay's own trouble: the same request may be sent again."""

_PAYMENT_STATES: dict[str, PaymentState] = {
    "WAIT_BUYER_PAY": "paying",
    "TRADE_SUCCESS": "paid",
    "TRADE_FINISHED": "paid",
}
_REFUND_STATES: dict[str, RefundState] = {
    "REFUND_SUCCESS": "succeeded",
    "REFUND_PROCESSING": "processing",
    "REFUND_FAIL": "failed",
}

T = TypeVar("T")


class AlipaySettings(Struct, frozen=True, kw_only=True):
    """What paying needs beside the gateway; `notify_url` hears of payments and of refunds."""

    seller_id: str
    notify_url: str


class _Created(Struct, frozen=True):
    trade_no: str


class _FundBill(Struct, frozen=True):
    fund_channel: str = ""


class _Trade(Struct, frozen=True, kw_only=True):
    out_trade_no: str
    trade_no: str
    trade_status: Literal["WAIT_BUYER_PAY", "TRADE_SUCCESS", "TRADE_FINISHED", "TRADE_CLOSED"]
    total_amount: str
    trans_currency: str = CURRENCY
    send_pay_date: str = ""
    fund_bill_list: list[_FundBill] = []


class _Refunded(Struct, frozen=True):
    """`fund_change` is Y only in the answer to the request that moved the money."""

    fund_change: str = ""
    gmt_refund_pay: str = ""


class _Refund(Struct, frozen=True):
    """A refund that did not arrive or did not happen is a success without members."""

    out_request_no: str = ""
    refund_status: str = ""
    refund_amount: str = ""
    gmt_refund_pay: str = ""


class Alipay:
    """The channel `alipay` of one seller, through one app's gateway."""

    name: ChannelName = "alipay"

    def __init__(self, gateway: AlipayGateway, settings: AlipaySettings) -> None:
        self._gateway = gateway
        self._settings = settings

    async def create(self, order: NewOrder) -> dict[str, str]:
        """Place the order; return the `tradeNO` for `my.tradePay`.

        Raises:
            ChannelRefused: Alipay does not take the order.
            ChannelUnknown: no proper answer, or the number is already paid or closed there.
        """
        biz_content = {
            "out_trade_no": order.out_trade_no,
            "total_amount": yuan_of_fen(order.amount_fen),
            "subject": order.description,
            "product_code": "JSAPI_PAY",
            "op_app_id": self._gateway.app_id,
            "time_expire": beijing_time(order.expires_at),
            **_buyer(order),
        }
        beside = {"notify_url": self._settings.notify_url}
        answer = await self._ask("alipay.trade.create", biz_content, beside, told=_CREATED_BEFORE)
        if answer.code != OK:
            raise _unknown(answer)
        return {"tradeNO": _read(answer, _Created).trade_no}

    async def query(self, out_trade_no: str) -> Found:
        """Return what Alipay says of the order; one given back in part is still `paid`.

        Alipay names neither app nor seller in its answer: it shows the trades of our app only,
        so the two are our own.

        Raises:
            ChannelRefused: it does not answer such a question of ours.
            ChannelUnknown: no proper answer.
        """
        biz_content = {"out_trade_no": out_trade_no}
        answer = await self._ask("alipay.trade.query", biz_content, told=_ABSENT)
        if answer.sub_code in _ABSENT:
            return Found(out_trade_no=out_trade_no, state="absent")
        trade = _read(answer, _Trade)
        if trade.out_trade_no != out_trade_no:
            raise ChannelUnknown(cause="unreadable")
        return Found(
            out_trade_no=out_trade_no,
            state=_state_of(trade),
            amount_fen=_amount_fen(trade.total_amount),
            currency=trade.trans_currency,
            app_id=self._gateway.app_id,
            merchant_id=self._settings.seller_id,
            channel_txn_no=trade.trade_no,
            paid_at=_time(trade.send_pay_date),
            funding="+".join(bill.fund_channel for bill in trade.fund_bill_list) or None,
        )

    async def close(self, out_trade_no: str) -> None:
        """Make sure that the order cannot be paid any more; closed and absent ones are fine.

        Raises:
            ChannelRefused: it cannot be closed, most likely since it is paid: query.
            ChannelUnknown: no proper answer.
        """
        told = _ABSENT | _NOT_OPEN
        answer = await self._ask("alipay.trade.close", {"out_trade_no": out_trade_no}, told=told)
        if answer.sub_code not in _NOT_OPEN:
            return
        # Paid or closed already; Alipay says the same of both.
        found = await self.query(out_trade_no)
        if found.state != "closed":
            raise ChannelRefused(provider_code=_code_of(answer))

    async def refund(self, refund: NewRefund) -> RefundFound:
        """Give money back; repeating the same refund number never gives it twice.

        Raises:
            ChannelRefused: Alipay does not refund this (now).
            ChannelUnknown: no proper answer.
        """
        biz_content = {
            "out_trade_no": refund.out_trade_no,
            "out_request_no": refund.out_refund_no,
            "refund_amount": yuan_of_fen(refund.amount_fen),
            "refund_reason": refund.reason,
        }
        answer = await self._ask("alipay.trade.refund", biz_content)
        refunded = _read(answer, _Refunded)
        if refunded.fund_change == "Y":
            return RefundFound(
                out_trade_no=refund.out_trade_no,
                out_refund_no=refund.out_refund_no,
                state="succeeded",
                amount_fen=refund.amount_fen,
                at=_time(refunded.gmt_refund_pay),
            )
        # A success that moved nothing is a repeat, or a refund still on its way.
        found = await self.query_refund(refund.out_trade_no, refund.out_refund_no)
        return replace(found, state="processing") if found.state == "absent" else found

    async def query_refund(self, out_trade_no: str, out_refund_no: str) -> RefundFound:
        """Return what Alipay says of the refund; `absent` is also said of one that failed.

        Raises:
            ChannelRefused: it does not answer such a question of ours.
            ChannelUnknown: no proper answer.
        """
        biz_content = {
            "out_trade_no": out_trade_no,
            "out_request_no": out_refund_no,
            "query_options": ["gmt_refund_pay"],
        }
        answer = await self._ask("alipay.trade.fastpay.refund.query", biz_content, told=_ABSENT)
        said = _Refund() if answer.sub_code in _ABSENT else _read(answer, _Refund)
        if not said.refund_status:
            return RefundFound(
                out_trade_no=out_trade_no, out_refund_no=out_refund_no, state="absent"
            )
        if said.refund_status not in _REFUND_STATES or said.out_request_no != out_refund_no:
            raise ChannelUnknown(cause="unreadable")
        return RefundFound(
            out_trade_no=out_trade_no,
            out_refund_no=out_refund_no,
            state=_REFUND_STATES[said.refund_status],
            amount_fen=_amount_fen(said.refund_amount),
            at=_time(said.gmt_refund_pay),
        )

    def notice_of(self, body: bytes, _headers: Headers, /) -> Notice:
        """Return what a notification says, by Alipay's key: see `alipay_notices.read_notice`."""
        return read_notice(body, public_key=self._gateway.public_key)

    async def disconnect(self) -> None:
        """Close every connection of the gateway."""
        await self._gateway.disconnect()

    async def _ask(
        self,
        method: str,
        biz_content: dict[str, Any],
        beside: dict[str, str] | None = None,
        *,
        told: frozenset[str] = frozenset(),
    ) -> AlipayAnswer:
        """Return a success, or a no whose sub code is one of `told`; raise everything else."""
        try:
            answer = await self._gateway.call(method, biz_content, top_level=beside)
        except Silence as silence:
            raise ChannelUnknown(cause=silence.cause) from silence
        if answer.code == OK or answer.sub_code in told:
            return answer
        if answer.code in _BUSY or answer.sub_code.endswith(_TROUBLES):
            raise _unknown(answer)
        raise ChannelRefused(provider_code=_code_of(answer))


def _buyer(order: NewOrder) -> dict[str, str]:
    # People of apps that know no open id stand under their user id (identity.providers.alipay).
    if order.payer_open_id and order.payer_open_id != order.payer_user_id:
        return {"buyer_open_id": order.payer_open_id}
    assert order.payer_user_id, "an order at Alipay has a payer"
    return {"buyer_id": order.payer_user_id}


def _state_of(trade: _Trade) -> PaymentState:
    if trade.trade_status == "TRADE_CLOSED":
        # A trade that is closed though it was paid has been given back in full.
        return "refunded" if trade.send_pay_date else "closed"
    return _PAYMENT_STATES[trade.trade_status]


def _code_of(answer: AlipayAnswer) -> str:
    return provider_code_of(answer.sub_code or answer.code)


def _unknown(answer: AlipayAnswer) -> ChannelUnknown:
    return ChannelUnknown(cause="provider-code", provider_code=_code_of(answer))


def _read(answer: AlipayAnswer, type_: type[T]) -> T:
    try:
        return msgspec.convert(answer.members, type_)
    except msgspec.ValidationError as broken:
        raise ChannelUnknown(cause="unreadable") from broken


def _time(text: str) -> datetime | None:
    try:
        return from_beijing_time(text) if text else None
    except ValueError as broken:
        raise ChannelUnknown(cause="unreadable") from broken


def _amount_fen(yuan: str) -> int:
    try:
        return fen_of_yuan(yuan)
    except ValueError as broken:
        raise ChannelUnknown(cause="unreadable") from broken
