"""WeChat Pay v3 on the wire, public-key mode: requests in, answers and notices out.

Source: the provider's pages on signing, verifying and notices; design notes in channels.md E.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from secrets import token_hex
from typing import Any

import msgspec

from simulators.keys import Keys, digits
from simulators.signatures import encrypt_gcm, is_signed, sign
from simulators.store import Notice, Order, Refund
from simulators.world import Message, Mode, News

SCHEME = "WECHATPAY2-SHA256-RSA2048"
SKEW_SECONDS_MAX = 300
BEIJING = timezone(timedelta(hours=8))
_SUMMARIES = {
    "TRANSACTION.SUCCESS": "支付成功",
    "REFUND.SUCCESS": "退款成功",
    "REFUND.ABNORMAL": "退款异常",
    "REFUND.CLOSED": "退款关闭",
}
_MINUTE, _HOUR = 60, 3600


class PayError(Exception):
    """A refusal of WeChat Pay's, in its own words."""

    def __init__(self, status: int, code: str, message: str, *, field: str = "") -> None:
        """Keep what the answer will say."""
        super().__init__(code)
        self.status, self.code, self.message, self.field = status, code, message, field


def verify_request(
    keys: Keys, *, method: str, target: str, authorization: str, body: bytes, now: datetime
) -> None:
    """Check that the merchant signed exactly this request, just now.

    `target` is path and query as they came; `body` the raw bytes.

    Raises:
        PayError: 401 SIGN_ERROR.
    """
    scheme, _, rest = authorization.partition(" ")
    said = dict(re.findall(r'(\w+)="([^"]*)"', rest))
    if scheme != SCHEME:
        raise _sign_error("Http头Authorization认证类型不正确")
    if said.get("mchid") != keys.ids.mch_id:
        raise _sign_error("Http头Authorization值中的mchid与商户不符")
    if said.get("serial_no") != keys.ids.mch_serial:
        raise _sign_error("商户证书序列号有误")
    timestamp, nonce = said.get("timestamp", ""), said.get("nonce_str", "")
    is_number = re.fullmatch("[0-9]{1,12}", timestamp) is not None
    if not is_number or abs(int(timestamp) - now.timestamp()) > SKEW_SECONDS_MAX:
        raise _sign_error("Http头Authorization中的timestamp与发起请求的时间不得超过5分钟")
    signed = f"{method}\n{target}\n{timestamp}\n{nonce}\n".encode() + body + b"\n"
    if not is_signed(keys.merchant, signed, said.get("signature", "")):
        raise _sign_error("签名错误，请检查后再试")


def signed_headers(keys: Keys, body: bytes, *, at: datetime) -> dict[str, str]:
    """Return the headers by which the merchant knows WeChat Pay sent `body` at that moment."""
    timestamp, nonce = str(int(at.timestamp())), token_hex(16)
    signed = f"{timestamp}\n{nonce}\n".encode() + body + b"\n"
    return {
        "Wechatpay-Timestamp": timestamp,
        "Wechatpay-Nonce": nonce,
        "Wechatpay-Serial": keys.ids.wechat_public_key_id,
        "Wechatpay-Signature": sign(keys.wechat_platform, signed),
        "Wechatpay-Signature-Type": SCHEME,
    }


def rfc3339(at: datetime) -> str:
    """Return a moment as WeChat Pay writes it: Beijing time, whole seconds."""
    return at.astimezone(BEIJING).isoformat(timespec="seconds")


def transaction(keys: Keys, order: Order, *, trade_state: str, description: str) -> dict[str, Any]:
    """Return a transaction as queries and payment notices show it."""
    common = {
        "appid": keys.ids.wechat_app_id,
        "mchid": keys.ids.mch_id,
        "out_trade_no": order.out_trade_no,
        "attach": order.attach,
        "trade_state": trade_state,
        "trade_state_desc": description,
        "payer": {"openid": order.payer},
    }
    if order.paid_at is None:
        return common | {"amount": {"total": order.total_fen, "currency": "CNY"}}
    return common | {
        "transaction_id": order.trade_no,
        "trade_type": "JSAPI",
        "bank_type": "OTHERS",
        "success_time": rfc3339(order.paid_at),
        "amount": {
            "total": order.total_fen,
            "payer_total": order.total_fen,
            "currency": "CNY",
            "payer_currency": "CNY",
        },
    }


@dataclass(frozen=True)
class WeChatPay:
    """WeChat Pay as the sender of notices."""

    keys: Keys
    retry_seconds: Sequence[int] = (
        15,
        15,
        30,
        3 * _MINUTE,
        10 * _MINUTE,
        20 * _MINUTE,
        30 * _MINUTE,
        30 * _MINUTE,
        30 * _MINUTE,
        60 * _MINUTE,
        3 * _HOUR,
        3 * _HOUR,
        3 * _HOUR,
        6 * _HOUR,
        6 * _HOUR,
    )

    def paid(self, order: Order) -> News:
        """Tell that an order was paid."""
        content = transaction(self.keys, order, trade_state="SUCCESS", description="支付成功")
        return News(event="TRANSACTION.SUCCESS", content=content)

    def closed(self, order: Order) -> None:  # noqa: ARG002 - the Protocol's signature
        """Say nothing: WeChat Pay does not tell of closed orders."""
        return

    def refunded(
        self,
        order: Order,
        refund: Refund,
        refunds: Sequence[Refund],  # noqa: ARG002 - the Protocol's signature
    ) -> News | None:
        """Tell how a refund ended; here the field is `refund_status`, not `status`."""
        if refund.settled_at is None or refund.state == "processing":
            return None
        content: dict[str, Any] = {
            "mchid": self.keys.ids.mch_id,
            "out_trade_no": order.out_trade_no,
            "transaction_id": order.trade_no,
            "out_refund_no": refund.out_refund_no,
            "refund_id": refund.refund_id,
            "refund_status": refund.state.upper(),
            "user_received_account": "支付用户零钱",
            "amount": {
                "total": order.total_fen,
                "refund": refund.refund_fen,
                "payer_total": order.total_fen,
                "payer_refund": refund.refund_fen,
            },
        }
        if refund.state == "success":
            content["success_time"] = rfc3339(refund.settled_at)
        return News(event=f"REFUND.{refund.state.upper()}", content=content)

    def write(self, notice: Notice, mode: Mode, now: datetime) -> Message:
        """Encrypt and sign a notice, then spoil what the mode says."""
        body = self._envelope(notice, mode)
        at = now - timedelta(seconds=2 * SKEW_SECONDS_MAX) if mode == "old_timestamp" else now
        signed = body + b" " if mode == "bad_signature" else body
        headers = signed_headers(self.keys, signed, at=at)
        if mode == "tamper_body":
            # Another id under an old signature: whoever trusts the id alone would credit twice.
            body = body.replace(notice.id.encode(), token_hex(16).encode())
        elif mode == "unknown_serial":
            headers["Wechatpay-Serial"] = f"PUB_KEY_ID_01{digits(26)}"
        elif mode == "sign_test":
            probe = f"WECHATPAY/SIGNTEST/{headers['Wechatpay-Signature']}"
            headers["Wechatpay-Signature"] = probe
        return Message(headers=headers | {"Content-Type": "application/json"}, body=body)

    def is_acknowledged(self, status: int, body: bytes) -> bool:  # noqa: ARG002 - as the Protocol
        """Take 200 and 204 for a yes."""
        return status in {200, 204}

    def _envelope(self, notice: Notice, mode: Mode) -> bytes:
        content = msgspec.json.decode(notice.content)
        if mode == "wrong_amount":
            amount = content["amount"]
            for name in ("total", "payer_total"):
                amount[name] += 1
        elif mode == "wrong_merchant":
            content["mchid"] = f"16{digits(8)}"
        kind = notice.event.partition(".")[0].lower()
        nonce = token_hex(6)
        plain = msgspec.json.encode(content)
        return msgspec.json.encode(
            {
                "id": notice.id,
                "create_time": rfc3339(notice.created_at),
                "resource_type": "encrypt-resource",
                "event_type": notice.event,
                "summary": _SUMMARIES[notice.event],
                "resource": {
                    "original_type": kind,
                    "algorithm": "AEAD_AES_256_GCM",
                    "ciphertext": encrypt_gcm(
                        self.keys.api_v3_key, plain, nonce=nonce, associated=kind
                    ),
                    "associated_data": kind,
                    "nonce": nonce,
                },
            }
        )


def _sign_error(message: str) -> PayError:
    return PayError(401, "SIGN_ERROR", message)
