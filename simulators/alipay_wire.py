"""Alipay's gateway on the wire, key mode (RSA2): requests in, answers and notices out.

Source: the provider's pages on signing and asynchronous notices; design notes in channels.md C, E.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

import msgspec

from simulators import people
from simulators.keys import Keys, digits
from simulators.signatures import encrypt_cbc, is_signed, sign
from simulators.store import Notice, Order, Refund
from simulators.world import Message, Mode, News

SKEW = timedelta(minutes=10)
"""How far a request's clock may be off; Alipay refuses skewed clocks without saying from when."""
BEIJING = timezone(timedelta(hours=8))
_MINUTE, _HOUR = 60, 3600
_MESSAGES = {
    "20000": "Service Currently Unavailable",
    "40001": "Missing Required Arguments",
    "40002": "Invalid Arguments",
    "40004": "Business Failed",
}


class GatewayError(Exception):
    """A refusal of Alipay's; `is_signed` and `is_nameless` say in which of its shapes it comes."""

    def __init__(
        self,
        code: str,
        sub_code: str,
        sub_msg: str,
        *,
        is_signed: bool = True,
        is_nameless: bool = False,
    ) -> None:
        """Keep what the answer will say.

        Nameless is an `error_response` in place of the method's own name.
        """
        super().__init__(sub_code)
        self.is_signed, self.is_nameless = is_signed, is_nameless
        self.content = {
            "code": code,
            "msg": _MESSAGES[code],
            "sub_code": sub_code,
            "sub_msg": sub_msg,
        }


def verify_request(keys: Keys, params: Mapping[str, str], *, now: datetime) -> None:
    """Check the common parameters and that the app signed all of them, just now.

    Raises:
        GatewayError: another app, no or a wrong signature, a clock that is off.
    """
    if params.get("app_id") != keys.ids.alipay_app_id:
        raise _unsigned("40002", "isv.invalid-app-id", "无效的AppID参数")
    if not params.get("sign"):
        raise _unsigned("40001", "isv.missing-signature", "缺少签名参数")
    if params.get("sign_type") != "RSA2":
        raise _unsigned("40002", "isv.invalid-signature-type", "签名类型不支持")
    if params.get("charset", "").lower() != "utf-8":
        raise _unsigned("40002", "isv.invalid-charset", "字符集错误")
    signed = _text({name: value for name, value in params.items() if name != "sign"})
    if not is_signed(keys.alipay_app, signed, params["sign"]):
        raise _unsigned("40002", "isv.invalid-signature", "无效签名")
    at = from_beijing(params.get("timestamp", ""))
    if at is None or abs(at - now) > SKEW:
        raise _unsigned("40002", "isv.invalid-timestamp", "非法的时间戳参数")


def answer(keys: Keys, name: str, content: object, *, is_signed: bool = True) -> bytes:
    """Return an answer: the content under its name, and the signature over exactly that slice."""
    body = msgspec.json.encode(content)
    signature = f',"sign":"{sign(keys.alipay_platform, body)}"' if is_signed else ""
    return f'{{"{name}":'.encode() + body + f"{signature}}}".encode()


def phone_payload(keys: Keys, code: str) -> dict[str, str | dict[str, str]]:
    """Return what `my.getPhoneNumber` hands the mini-program, to be posted to its server.

    The signature is over the ciphertext with its double quotes. A code that is nobody's gets the
    error a misconfigured app gets: an object in the clear.
    """
    name = people.name_in(code)
    if name is None:
        refusal = {
            "code": "40003",
            "msg": "Insufficient Permissions",
            "subCode": "isv.missing-encrypt-key",
            "subMsg": "缺少加密配置",
        }
        return {"response": refusal}
    told = {"code": "10000", "msg": "Success", "mobile": people.phone(name)}
    response = encrypt_cbc(keys.alipay_aes_key, msgspec.json.encode(told))
    return {
        "response": response,
        "sign": sign(keys.alipay_platform, f'"{response}"'.encode()),
        "sign_type": "RSA2",
        "encrypt_type": "AES",
        "charset": "UTF-8",
    }


def beijing(at: datetime) -> str:
    """Return a moment as Alipay writes it."""
    return f"{at.astimezone(BEIJING):%Y-%m-%d %H:%M:%S}"


def from_beijing(text: str) -> datetime | None:
    """Return the moment Alipay's text means, or None if it means none."""
    try:
        return datetime.strptime(f"{text} +0800", "%Y-%m-%d %H:%M:%S %z")
    except ValueError:
        return None


def yuan(amount_fen: int) -> str:
    """Return an amount as Alipay writes it."""
    return f"{amount_fen // 100}.{amount_fen % 100:02d}"


def fen(amount: msgspec.Raw) -> int:
    """Return a JSON amount in yuan, text or number, as fen.

    Raises:
        ValueError: not an amount, or with more than two places.
    """
    found = re.fullmatch(rb'"?(\d{1,9})(?:\.(\d{1,2}))?"?', bytes(amount))
    if found is None:
        raise ValueError("not an amount in yuan")
    return int(found[1]) * 100 + int((found[2] or b"").ljust(2, b"0"))


def buyer(order: Order, *, user_id: str = "buyer_id") -> dict[str, str]:
    """Return who pays, by the name his kind of id goes under."""
    name = user_id if order.payer.startswith("2088") else "buyer_open_id"
    return {name: order.payer}


@dataclass(frozen=True)
class Alipay:
    """Alipay as the sender of notices."""

    keys: Keys
    retry_seconds: Sequence[int] = (
        4 * _MINUTE,
        10 * _MINUTE,
        10 * _MINUTE,
        _HOUR,
        2 * _HOUR,
        6 * _HOUR,
        15 * _HOUR,
    )

    def paid(self, order: Order) -> News:
        """Tell that an order was paid."""
        return News(event="TRADE_SUCCESS", content=self._trade(order, "TRADE_SUCCESS"))

    def closed(self, order: Order) -> News:
        """Tell that an order was closed unpaid: TRADE_CLOSED without a refund."""
        return News(event="TRADE_CLOSED", content=self._trade(order, "TRADE_CLOSED"))

    def refunded(self, order: Order, refund: Refund, refunds: Sequence[Refund]) -> News | None:
        """Tell of a refund: the paid trade again, or a closed one once all is given back."""
        if refund.state != "success" or refund.settled_at is None:
            return None
        refunded_fen = sum(r.refund_fen for r in refunds if r.state == "success")
        status = "TRADE_CLOSED" if refunded_fen == order.total_fen else "TRADE_SUCCESS"
        content = self._trade(order, status) | {
            "refund_fee": yuan(refunded_fen),
            "gmt_refund": f"{beijing(refund.settled_at)}.000",
            "out_biz_no": refund.out_refund_no,
        }
        return News(event=status, content=content)

    def write(self, notice: Notice, mode: Mode, now: datetime) -> Message:
        """Sign a notice, then spoil what the mode says.

        Alipay's notices have neither serials nor probes; those two modes get a wrong signature.
        """
        at = now - timedelta(days=1) if mode == "old_timestamp" else now
        params: dict[str, str] = msgspec.json.decode(notice.content)
        params |= {"notify_id": notice.id, "notify_time": beijing(at)}
        if mode == "wrong_amount":
            params["total_amount"] = f"1{params['total_amount']}"
        elif mode == "wrong_merchant":
            params["seller_id"] = f"2088{digits(12)}"
        signed = _text(params)
        if mode in {"bad_signature", "unknown_serial", "sign_test"}:
            signed += b" "
        elif mode == "tamper_body":
            params["notify_id"] = digits(32)
        params |= {"sign_type": "RSA2", "sign": sign(self.keys.alipay_platform, signed)}
        media_type = "application/x-www-form-urlencoded; charset=utf-8"
        return Message(headers={"Content-Type": media_type}, body=urlencode(params).encode())

    def is_acknowledged(self, status: int, body: bytes) -> bool:
        """Take exactly the seven bytes `success` for a yes."""
        return status == HTTPStatus.OK and body == b"success"

    def _trade(self, order: Order, status: str) -> dict[str, Any]:
        ids, total = self.keys.ids, yuan(order.total_fen)
        common = {
            "notify_type": "trade_status_sync",
            "charset": "utf-8",
            "version": "1.0",
            "app_id": ids.alipay_app_id,
            "auth_app_id": ids.alipay_app_id,
            "seller_id": ids.alipay_seller_id,
            "trade_no": order.trade_no,
            "out_trade_no": order.out_trade_no,
            "trade_status": status,
            "total_amount": total,
            "subject": order.description,
            "gmt_create": beijing(order.created_at),
        } | buyer(order)
        if order.paid_at is None:
            return common
        return common | {
            "gmt_payment": beijing(order.paid_at),
            "receipt_amount": total,
            "invoice_amount": total,
            "buyer_pay_amount": total,
            "point_amount": "0.00",
            "fund_bill_list": f'[{{"amount":"{total}","fundChannel":"ALIPAYACCOUNT"}}]',
        }


def _text(params: Mapping[str, str]) -> bytes:
    # What is signed: everything that is not empty, in order of the names, not yet encoded.
    return "&".join(f"{name}={value}" for name, value in sorted(params.items()) if value).encode()


def _unsigned(code: str, sub_code: str, sub_msg: str) -> GatewayError:
    return GatewayError(code, sub_code, sub_msg, is_signed=False)
