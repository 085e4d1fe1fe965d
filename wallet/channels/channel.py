"""What every payment channel (支付渠道) keeps: create, query, close, refund, and who may say what.

An order at a provider: absent → paying → paid → refunded, or paying → closed. A refund: absent →
processing → succeeded | abnormal | closed | failed. The caller's attempt is known to the provider
by `out_trade_no`, its refund by `out_refund_no`; both stay the same on every repeat, since a new
number after a time-out is how people pay twice.

A channel answers in one of three ways: a value, `ChannelRefused` (a definite no, nothing was done)
or `ChannelUnknown` (nobody knows what was done: ask with `query`, or repeat the same number).
"""

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Literal, Protocol

from msgspec import Struct

from identity.kernel import Refusal, Said

ChannelName = Literal["wechat_pay", "alipay"]

PaymentState = Literal["absent", "paying", "paid", "closed", "refunded"]
"""`refunded` was paid once and given back, all of it at Alipay, any of it at WeChat Pay."""

RefundState = Literal["absent", "processing", "succeeded", "abnormal", "closed", "failed"]
"""`absent`: the provider holds no refund of that number, so the same number may be sent again.
`abnormal`: the money could not reach the payer and waits for people of ours."""

NoticeProblem = Literal[
    "missing-header",
    "stale",
    "unknown-serial",
    "probe",
    "bad-signature",
    "unreadable",
    "too-large",
]

Headers = Mapping[str, str] | Iterable[tuple[str, str]]
"""Header names in any case and any order, as a mapping or as pairs."""

NOTICE_BYTES_MAX = 64 * 1024

_PROVIDER_CODE = re.compile(r"[0-9A-Za-z._-]{1,64}")
_YUAN = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,2})?")


class ChannelRefused(Refusal):
    """The provider said a definite no; nothing was done.

    The fact `provider_code` is the provider's own error code, never its text.
    """

    code, status = "channel-declined", 422
    title = Said("支付渠道拒绝了请求", "The payment channel declined the request")
    next_step = Said("请换一种支付方式，或联系客服。", "Pay in another way, or ask our staff.")


class ChannelUnknown(Refusal):
    """Nobody knows what the provider did: unknown is not failed; query later.

    The fact `cause` is time-out, unreachable, too-large, http-<status>, bad-signature, unreadable
    or provider-code; with the last, the fact `provider_code` is the provider's own code.
    """

    code, status, retryable = "channel-unknown", 502, True
    title = Said("支付结果尚未确认", "The outcome of the payment is not known yet")
    next_step = Said(
        "请勿重复付款，稍后查看结果。", "Do not pay again; look at the outcome in a moment."
    )


class NoticeRefused(Exception):
    """What arrived is not a notice of the provider. `problem` says why, for counters only."""

    def __init__(self, problem: NoticeProblem) -> None:
        super().__init__(problem)
        self.problem: NoticeProblem = problem


class NewOrder(Struct, frozen=True, kw_only=True):
    """One attempt to collect money, as it is handed to the provider.

    `payer_open_id` and `payer_user_id` are the payer's as the provider's sign-in gave them;
    WeChat Pay reads the first only. The provider takes no payment after `expires_at`.
    """

    out_trade_no: str
    amount_fen: int
    description: str
    payer_open_id: str
    payer_user_id: str | None
    expires_at: datetime


class Found(Struct, frozen=True, kw_only=True):
    """What the provider says of an order.

    Comparing amount, currency, app and merchant with what we asked for is the caller's. All
    members after `state` are None for an absent order, and the provider leaves out some of an
    unpaid one. `amount_fen` is the order's total, whatever part of it coupons paid.
    """

    out_trade_no: str
    state: PaymentState
    amount_fen: int | None = None
    currency: str | None = None
    app_id: str | None = None
    merchant_id: str | None = None
    channel_txn_no: str | None = None
    paid_at: datetime | None = None
    funding: str | None = None
    """Where the money came from, in the provider's words: bank type, fund channels."""


class NewRefund(Struct, frozen=True, kw_only=True):
    """Money of one paid order to give back. `total_fen` is the order's total."""

    out_trade_no: str
    out_refund_no: str
    amount_fen: int
    total_fen: int
    reason: str


class RefundFound(Struct, frozen=True, kw_only=True):
    """What the provider says of one refund; members it leaves out are None."""

    out_trade_no: str
    out_refund_no: str
    state: RefundState
    amount_fen: int | None = None
    channel_refund_no: str | None = None
    at: datetime | None = None
    """When the money was given back, for a succeeded refund."""


class Notice(Struct, frozen=True, kw_only=True):
    """What a verified notification says. Only `payment` + `paid` may lead to a credit.

    For a payment, `amount_fen` is the order's total and `state` a PaymentState. For a refund,
    `state` is a RefundState and `amount_fen` what was given back: by this refund at WeChat Pay,
    by all refunds of the order so far at Alipay; so a refund notice is a hint to query.
    """

    channel: ChannelName
    notice_id: str
    kind: Literal["payment", "refund"]
    out_trade_no: str
    out_refund_no: str | None
    state: PaymentState | RefundState
    amount_fen: int
    total_fen: int
    """The order's total, for both kinds."""
    currency: str
    app_id: str | None
    """None in refund notices of WeChat Pay, which do not name the app."""
    merchant_id: str
    channel_txn_no: str
    at: datetime


class Channel(Protocol):
    """A provider through which people pay. Times are read from the clock it was built with."""

    @property
    def name(self) -> ChannelName:
        """Return which channel this is."""

    async def create(self, order: NewOrder) -> dict[str, str]:
        """Place the order and return what the phone needs to pay it.

        WeChat Pay: the members of `wx.requestPayment`. Alipay: `tradeNO` for `my.tradePay`.
        Repeating the same order is safe and returns fresh members.

        Raises:
            ChannelRefused: the provider does not take the order.
            ChannelUnknown: no proper answer, or the number is already paid or closed there.
        """

    async def query(self, out_trade_no: str) -> Found:
        """Return what the provider says of the order.

        `absent` before the order's expiry is no proof that it will not be paid.

        Raises:
            ChannelRefused: the provider does not answer such a question of ours.
            ChannelUnknown: no proper answer.
        """

    async def close(self, out_trade_no: str) -> None:
        """Make sure that the order cannot be paid any more; closed and absent ones are fine.

        Raises:
            ChannelRefused: it cannot be closed, most likely since it is paid: query.
            ChannelUnknown: no proper answer.
        """

    async def refund(self, refund: NewRefund) -> RefundFound:
        """Give money back; repeating the same refund number never gives it twice.

        Raises:
            ChannelRefused: the provider does not refund this (now): the number may be sent again.
            ChannelUnknown: no proper answer.
        """

    async def query_refund(self, out_trade_no: str, out_refund_no: str) -> RefundFound:
        """Return what the provider says of the refund.

        Raises:
            ChannelRefused: the provider does not answer such a question of ours.
            ChannelUnknown: no proper answer.
        """

    def notice_of(self, body: bytes, headers: Headers, /) -> Notice:
        """Return what a notification says, once it is proven to be the provider's.

        Raises:
            NoticeRefused: it is not, or not fresh, or says nothing we know.
        """

    async def disconnect(self) -> None:
        """Give the connections back."""


def provider_code_of(text: str) -> str:
    """Return a provider's error code as a fact, or `unreadable` where it is no code but text."""
    return text if _PROVIDER_CODE.fullmatch(text) else "unreadable"


def fen_of_yuan(yuan: str) -> int:
    """Return an amount that a provider wrote in yuan, in fen.

    Raises:
        ValueError: not digits with at most two decimal places, or 13 digits and more.
    """
    if not _YUAN.fullmatch(yuan):
        raise ValueError("not an amount in yuan")
    return int(Decimal(yuan) * 100)


def yuan_of_fen(amount_fen: int) -> str:
    """Return an amount of zero or more fen as providers want it in yuan: two decimal places."""
    assert amount_fen >= 0, "an amount is not negative"
    return f"{amount_fen // 100}.{amount_fen % 100:02d}"
