"""WeChat Pay v3 (微信支付) in public-key mode: mini-program orders and refunds.

Requests are signed with the merchant's key by wechatpayv3's `build_authorization`, over the very
bytes that are sent. Answers and notices are proven by code of ours, since the library checks no
timestamps and asks the network when it meets an unknown serial. A key is found by the serial it
signs under: several may be trusted at once while the provider changes them.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from secrets import token_hex
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import msgspec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from msgspec import Struct
from wechatpayv3.utils import build_authorization

from identity.kernel import SHANGHAI
from identity.providers.rsa import load_private_key, load_public_key, signature_of
from identity.providers.transport import Answer, Silence, Transport
from wallet.channels.channel import (
    ChannelName,
    ChannelRefused,
    ChannelUnknown,
    Found,
    Headers,
    NewOrder,
    NewRefund,
    Notice,
    NoticeRefused,
    PaymentState,
    RefundFound,
    provider_code_of,
)
from wallet.channels.wechat_pay_notices import (
    CURRENCY,
    REFUND_STATES,
    Amount,
    Instant,
    RefundAmount,
    Text,
    prove,
    read_notice,
)

_GOOD_STATUSES = frozenset({200, 204})

_PAYMENT_STATES: Mapping[str, PaymentState] = {
    "SUCCESS": "paid",
    "REFUND": "refunded",
    "NOTPAY": "paying",
    "USERPAYING": "paying",
    "PAYERROR": "paying",  # One try of the payer failed; the order can still be paid.
    "CLOSED": "closed",
    "REVOKED": "closed",
}
_ABSENT = frozenset({"ORDER_NOT_EXIST", "ORDERNOTEXIST", "RESOURCE_NOT_EXISTS"})

_CREATED_BEFORE = frozenset({"ORDERPAID", "ORDER_CLOSED", "ORDERCLOSED", "OUT_TRADE_NO_USED"})
"""An order of that number is there already, and what became of it only a query tells."""

_ASK_AGAIN = frozenset({"FREQUENCY_LIMITED", "RATELIMIT_EXCEEDED", "SYSTEM_ERROR", "SYSTEMERROR"})
"""Not a no to what was asked, only to asking now."""

T = TypeVar("T")


class WechatPaySettings(Struct, frozen=True, kw_only=True):
    """Which merchant we are, and whom we trust. Keys are PEM texts.

    `public_keys` are the provider's, by the serial they sign under (`PUB_KEY_ID_…`, or a platform
    certificate's number). The notify URLs are https and have no query.
    """

    base_url: str
    app_id: str
    mch_id: str
    mch_serial: str
    mch_private_key: str
    api_v3_key: str
    public_keys: dict[str, str]
    notify_url: str
    refund_notify_url: str


class _Transaction(Struct, frozen=True):
    appid: Text
    mchid: Text
    out_trade_no: Text
    trade_state: Text
    transaction_id: str | None = None
    success_time: Instant | None = None
    bank_type: str | None = None
    amount: Amount | None = None


class _Refund(Struct, frozen=True):
    out_trade_no: Text
    out_refund_no: Text
    refund_id: Text
    status: Text
    amount: RefundAmount
    success_time: Instant | None = None


class _Prepaid(Struct, frozen=True):
    prepay_id: Text


class _Error(Struct, frozen=True):
    code: str


class WechatPay:
    """The channel `wechat_pay` of one merchant."""

    name: ChannelName = "wechat_pay"

    def __init__(
        self,
        settings: WechatPaySettings,
        clock: Callable[[], datetime],
        *,
        total_seconds: float = 5.0,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._private_key = load_private_key(settings.mch_private_key)
        self.public_keys = {
            serial: load_public_key(pem) for serial, pem in settings.public_keys.items()
        }
        # A key of another length would make every genuine notice look unreadable.
        AESGCM(settings.api_v3_key.encode())
        self._transport = Transport(settings.base_url, total_seconds=total_seconds)

    async def create(self, order: NewOrder) -> dict[str, str]:
        """Place the order; return the members of `wx.requestPayment`, signed for the phone.

        Raises:
            ChannelRefused: WeChat Pay does not take the order.
            ChannelUnknown: no proper answer, or the number is already paid or closed there.
        """
        request = {
            "appid": self._settings.app_id,
            "mchid": self._settings.mch_id,
            "description": order.description,
            "out_trade_no": order.out_trade_no,
            "time_expire": order.expires_at.astimezone(SHANGHAI).isoformat(timespec="seconds"),
            "notify_url": self._settings.notify_url,
            "amount": {"total": order.amount_fen, "currency": CURRENCY},
            "payer": {"openid": order.payer_open_id},
        }
        try:
            answer = await self._ask("POST", "/v3/pay/transactions/jsapi", request)
        except ChannelRefused as refused:
            if refused.facts["provider_code"] in _CREATED_BEFORE:
                raise ChannelUnknown(cause="provider-code", **refused.facts) from refused
            raise
        return self._pay_members(_read(answer, _Prepaid).prepay_id)

    async def query(self, out_trade_no: str) -> Found:
        """Return what WeChat Pay says of the order; a refund of any part makes it `refunded`.

        Raises:
            ChannelRefused: it does not answer such a question of ours.
            ChannelUnknown: no proper answer.
        """
        target = f"{_order_path(out_trade_no)}?{urlencode({'mchid': self._settings.mch_id})}"
        try:
            answer = await self._ask("GET", target)
        except ChannelRefused as refused:
            if refused.facts["provider_code"] in _ABSENT:
                return Found(out_trade_no=out_trade_no, state="absent")
            raise
        said = _read(answer, _Transaction)
        if said.trade_state not in _PAYMENT_STATES or said.out_trade_no != out_trade_no:
            raise ChannelUnknown(cause="unreadable")
        return Found(
            out_trade_no=out_trade_no,
            state=_PAYMENT_STATES[said.trade_state],
            amount_fen=said.amount.total if said.amount else None,
            currency=said.amount.currency if said.amount else None,
            app_id=said.appid,
            merchant_id=said.mchid,
            channel_txn_no=said.transaction_id or None,
            paid_at=_in_utc(said.success_time),
            funding=said.bank_type or None,
        )

    async def close(self, out_trade_no: str) -> None:
        """Make sure that the order cannot be paid any more; closed and absent ones are fine.

        Raises:
            ChannelRefused: it cannot be closed, most likely since it is paid: query.
            ChannelUnknown: no proper answer.
        """
        request = {"mchid": self._settings.mch_id}
        try:
            await self._ask("POST", f"{_order_path(out_trade_no)}/close", request)
        except ChannelRefused as refused:
            if refused.facts["provider_code"] not in _ABSENT | {"ORDER_CLOSED", "ORDERCLOSED"}:
                raise

    async def refund(self, refund: NewRefund) -> RefundFound:
        """Give money back; repeating the same refund number never gives it twice.

        Raises:
            ChannelRefused: WeChat Pay does not refund this (now), such as for NOT_ENOUGH.
            ChannelUnknown: no proper answer.
        """
        request = {
            "out_trade_no": refund.out_trade_no,
            "out_refund_no": refund.out_refund_no,
            "reason": refund.reason,
            "notify_url": self._settings.refund_notify_url,
            "amount": {
                "refund": refund.amount_fen,
                "total": refund.total_fen,
                "currency": CURRENCY,
            },
        }
        answer = await self._ask("POST", "/v3/refund/domestic/refunds", request)
        return _refund_found(answer, refund.out_trade_no, refund.out_refund_no)

    async def query_refund(self, out_trade_no: str, out_refund_no: str) -> RefundFound:
        """Return what WeChat Pay says of the refund.

        Raises:
            ChannelRefused: it does not answer such a question of ours.
            ChannelUnknown: no proper answer.
        """
        target = f"/v3/refund/domestic/refunds/{quote(out_refund_no, safe='')}"
        try:
            answer = await self._ask("GET", target)
        except ChannelRefused as refused:
            if refused.facts["provider_code"] in _ABSENT:
                return RefundFound(
                    out_trade_no=out_trade_no, out_refund_no=out_refund_no, state="absent"
                )
            raise
        return _refund_found(answer, out_trade_no, out_refund_no)

    def notice_of(self, body: bytes, headers: Headers, /) -> Notice:
        """Return what a notification says, by our keys and our clock: see `read_notice`."""
        return read_notice(
            body,
            headers,
            public_keys=self.public_keys,
            api_v3_key=self._settings.api_v3_key,
            now=self._clock(),
        )

    async def disconnect(self) -> None:
        """Close every connection."""
        await self._transport.disconnect()

    def _pay_members(self, prepay_id: str) -> dict[str, str]:
        timestamp, nonce = str(int(self._clock().timestamp())), token_hex(16)
        package = f"prepay_id={prepay_id}"
        signed = f"{self._settings.app_id}\n{timestamp}\n{nonce}\n{package}\n".encode()
        return {
            "timeStamp": timestamp,
            "nonceStr": nonce,
            "package": package,
            "signType": "RSA",
            "paySign": signature_of(self._private_key, signed),
        }

    async def _ask(self, method: str, target: str, request: dict[str, Any] | None = None) -> bytes:
        # Serialized once: the text that is signed and the bytes that are sent are the same.
        text = msgspec.json.encode(request).decode() if request else ""
        authorization = build_authorization(
            target,
            method,
            self._settings.mch_id,
            self._settings.mch_serial,
            self._private_key,
            data=text,
        )
        headers = {
            "Authorization": authorization,
            "Accept": "application/json",
            "User-Agent": "yuanka",
        }
        if text:
            headers["Content-Type"] = "application/json"
        try:
            answer = await self._transport.send(
                method, target, content=text.encode(), headers=headers
            )
        except Silence as silence:
            raise ChannelUnknown(cause=silence.cause) from silence
        if answer.status not in _GOOD_STATUSES:
            raise _refusal(answer)
        try:
            prove(answer.body, answer.headers, public_keys=self.public_keys, now=self._clock())
        except NoticeRefused as unproven:
            # The request may well have been carried out: unknown, not failed.
            raise ChannelUnknown(cause="bad-signature") from unproven
        return answer.body


def _refund_found(answer: bytes, out_trade_no: str, out_refund_no: str) -> RefundFound:
    said = _read(answer, _Refund)
    numbers = (said.out_trade_no, said.out_refund_no)
    if said.status not in REFUND_STATES or numbers != (out_trade_no, out_refund_no):
        raise ChannelUnknown(cause="unreadable")
    return RefundFound(
        out_trade_no=out_trade_no,
        out_refund_no=out_refund_no,
        state=REFUND_STATES[said.status],
        amount_fen=said.amount.refund,
        channel_refund_no=said.refund_id,
        at=_in_utc(said.success_time),
    )


def _refusal(answer: Answer) -> ChannelRefused | ChannelUnknown:
    # The provider signs its noes or not as it likes, and its own SDKs take them unproven.
    try:
        code = provider_code_of(msgspec.json.decode(answer.body, type=_Error).code)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return ChannelUnknown(cause=f"http-{answer.status}")
    if answer.status in range(400, 500) and code not in _ASK_AGAIN:
        return ChannelRefused(provider_code=code)
    return ChannelUnknown(cause="provider-code", provider_code=code)


def _read(answer: bytes, type_: type[T]) -> T:
    try:
        return msgspec.json.decode(answer, type=type_)
    except (msgspec.MsgspecError, ValueError, RecursionError) as broken:
        raise ChannelUnknown(cause="unreadable") from broken


def _order_path(out_trade_no: str) -> str:
    return f"/v3/pay/transactions/out-trade-no/{quote(out_trade_no, safe='')}"


def _in_utc(at: datetime | None) -> datetime | None:
    return None if at is None else at.astimezone(UTC)
