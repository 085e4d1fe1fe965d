"""Alipay's one door (gateway.do): calls signed by our app, answers signed by Alipay, key mode.

Sign-in (identity) and payments (wallet) both go through it. A call is an HTTP POST of a form; the
answer is JSON of which one slice is signed as it stands on the wire.

From python-alipay-sdk come the common parameters and the text that is signed. Signing is done by
`cryptography`, which takes 5 ms where the SDK's own library takes 11. Not used of the SDK: its
clock (naive local time, Alipay wants Beijing's), its GET (long orders do not fit a URL), and its
slicing of answers, which miscounts braces inside texts.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
from alipay import AliPay
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from msgspec import Raw, Struct

from identity.kernel import SHANGHAI
from identity.providers.rsa import is_signed, load_private_key, load_public_key, signature_of
from identity.providers.transport import Silence, Transport

OK = "10000"

REFUSED_AT_THE_DOOR = frozenset({"40001", "40002", "40003", "40006"})
"""Calls that Alipay turns away before it knows whom to sign for: those answers come unsigned."""

BEIJING_TIME = "%Y-%m-%d %H:%M:%S"


class AlipayGatewaySettings(Struct, frozen=True, kw_only=True):
    """Which app we are. Keys are PEM texts; `alipay_public_key` is Alipay's, not our own."""

    gateway_url: str
    app_id: str
    app_private_key: str
    alipay_public_key: str


class AlipayAnswer(Struct, frozen=True):
    """What Alipay answered. `code` is 10000 for success, and for success that has no code."""

    code: str
    sub_code: str
    members: dict[str, Any]


class AlipayGateway:
    """Alipay's gateway as one app of ours sees it."""

    def __init__(
        self,
        settings: AlipayGatewaySettings,
        clock: Callable[[], datetime],
        *,
        total_seconds: float = 5.0,
    ) -> None:
        self.app_id = settings.app_id
        self.public_key = load_public_key(settings.alipay_public_key)
        self.clock = clock
        # The SDK has no types, so what it makes is taken for Any and checked where it leaves.
        untyped: type[Any] = _Requests
        self._requests: Any = untyped(
            settings.app_id, app_private_key_string=settings.app_private_key
        )
        self._transport = Transport(settings.gateway_url, total_seconds=total_seconds)

    async def call(
        self,
        method: str,
        biz_content: dict[str, Any] | None = None,
        *,
        top_level: Mapping[str, str] | None = None,
    ) -> AlipayAnswer:
        """Call one of Alipay's methods and return its answer, good or bad.

        Args:
            method: such as `alipay.trade.query`.
            biz_content: what the method is about.
            top_level: parameters that stand beside `biz_content`, such as `notify_url`.

        Raises:
            Silence: there is no answer, or none that is proven to be Alipay's.
        """
        body = self._requests.build_body(
            method, biz_content, timestamp=beijing_time(self.clock()), **(top_level or {})
        )
        form: str = self._requests.sign_data(body)
        answer = await self._transport.send(
            "POST",
            "",
            content=form.encode(),
            headers={"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"},
        )
        # Alipay answers 200 to everything; anything else comes from what stands before it.
        if answer.status != 200:  # noqa: PLR2004
            raise Silence(f"http-{answer.status}")
        return read_answer(method, answer.body, self.public_key)

    async def disconnect(self) -> None:
        """Close every connection."""
        await self._transport.disconnect()


class _Requests(AliPay):
    """The SDK's requests, signed by `cryptography`."""

    def _load_key(self) -> None:
        self._signing_key = load_private_key(self._app_private_key_string)

    def _sign(self, unsigned_string: str) -> str:
        return signature_of(self._signing_key, unsigned_string.encode())


def read_answer(method: str, body: bytes, public_key: RSAPublicKey) -> AlipayAnswer:
    """Return what an answer's bytes say, once they are proven to be Alipay's.

    A failed sign-in call answers under `error_response`, others under the method's name too.
    Failures that name a business reason must be signed like successes: who could invent a
    TRADE_NOT_EXIST could make us believe that a paid order is not.

    Raises:
        Silence: bad-signature, or unreadable.
    """
    try:
        # Raw members are the bytes as they came: exactly the slice that Alipay signed, whatever
        # braces or quotes stand inside its texts.
        parts = msgspec.json.decode(body, type=dict[str, Raw])
        signed = parts.get(f"{method.replace('.', '_')}_response")
        name_is_ours = signed is not None
        signed = signed if signed is not None else parts["error_response"]
        members = msgspec.json.decode(signed, type=dict[str, Any])
        signature = msgspec.json.decode(parts.get("sign", Raw(b'""')), type=str)
    except (msgspec.MsgspecError, ValueError, KeyError, RecursionError) as broken:
        raise Silence("unreadable") from broken
    code = str(members.get("code", OK if name_is_ours else ""))
    is_proven = is_signed(public_key, bytes(signed), signature)
    if not is_proven and (signature or code not in REFUSED_AT_THE_DOOR):
        raise Silence("bad-signature")
    return AlipayAnswer(code, str(members.get("sub_code", "")), members)


def beijing_time(at: datetime) -> str:
    """Return an instant as Alipay writes it: Beijing time, to the second, without a zone."""
    return f"{at.astimezone(SHANGHAI):{BEIJING_TIME}}"


def from_beijing_time(text: str) -> datetime:
    """Return the instant (UTC) that Alipay wrote, fractions of a second left out.

    Raises:
        ValueError: it is not a time of Alipay's.
    """
    local = datetime.strptime(text[:19], BEIJING_TIME).replace(tzinfo=SHANGHAI)
    return local.astimezone(UTC)
