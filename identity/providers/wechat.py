"""WeChat as a provider of sign-in: who a code of the mini-program is, and which phone is theirs.

Plain HTTP, not wechatpy's client: that one fetches an access token for a sign-in and puts it in
the URL, has no stable token, does not bound the token call in time, repeats without end while the
token stays refused, and blocks its thread. What would be left of it after overriding all this is
two addresses.

The access token is cached in this process until shortly before it expires. It is WeChat's stable
token: other processes that ask get the same one, so nobody takes it away from anybody.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TypeVar
from urllib.parse import urlencode

import msgspec
from msgspec import Struct

from identity.providers.provider import ProviderPerson, ProviderUnavailable, SignInCodeRefused
from identity.providers.transport import Silence, Transport

TOKEN_MARGIN = timedelta(minutes=5)
"""WeChat renews a stable token in its last five minutes, and both then hold for a while."""

_CODE_REFUSALS = frozenset({40029, 40163, 40226})
"""The code is made up or expired, used already, or its person is barred by WeChat."""

_TOKEN_REFUSALS = frozenset({40001, 40014, 42001})
"""The access token is not the latest, not one, or expired."""

_MAINLAND = "86"

T = TypeVar("T", bound="_Answer")


class WechatSettings(Struct, frozen=True, kw_only=True):
    """Which mini-program we are."""

    base_url: str
    app_id: str
    app_secret: str


class _Answer(Struct, frozen=True, kw_only=True):
    """Failures come with status 200 and a number; successes with zero or without one."""

    errcode: int = 0


class _Session(_Answer, frozen=True, kw_only=True):
    """`session_key` is not even read: nothing of ours needs what it opens."""

    openid: str = ""
    unionid: str = ""


class _TokenAnswer(_Answer, frozen=True, kw_only=True):
    access_token: str = ""
    expires_in: int = 0


class _Watermark(Struct, frozen=True):
    appid: str


class _PhoneInfo(Struct, frozen=True, rename="camel"):
    pure_phone_number: str
    country_code: str
    watermark: _Watermark


class _PhoneAnswer(_Answer, frozen=True, kw_only=True):
    phone_info: _PhoneInfo | None = None


class _Token(Struct, frozen=True):
    text: str
    renew_at: datetime


class WechatSignIn:
    """People who come in by the WeChat mini-program."""

    def __init__(
        self,
        settings: WechatSettings,
        clock: Callable[[], datetime],
        *,
        total_seconds: float = 5.0,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._transport = Transport(settings.base_url, total_seconds=total_seconds)
        self._token: _Token | None = None
        self._renewal = asyncio.Lock()

    async def person_of(self, code: str) -> ProviderPerson:
        """Return who the one-time code of `wx.login` stands for.

        Raises:
            SignInCodeRefused: WeChat says no.
            ProviderUnavailable: WeChat says nothing that can be used, or refuses our app.
        """
        query = urlencode(
            {
                "appid": self._settings.app_id,
                "secret": self._settings.app_secret,
                "js_code": code,
                "grant_type": "authorization_code",
            }
        )
        session = await self._ask("GET", f"/sns/jscode2session?{query}", b"", _Session)
        _check(session)
        if not session.openid:
            raise ProviderUnavailable(cause="unreadable")
        return ProviderPerson(
            provider="wechat",
            app_id=self._settings.app_id,
            open_id=session.openid,
            user_id=session.unionid or None,
        )

    async def phone_of(self, code: str) -> str:
        """Return the phone number behind the code of the phone button, digits only.

        Mainland numbers come without their country code, others with it. WeChat charges for
        every number, and a code works once: whoever calls this limits how often.

        Raises:
            SignInCodeRefused: WeChat says no.
            ProviderUnavailable: WeChat says nothing that can be used, or refuses our app.
        """
        token = await self._access_token()
        answer = await self._ask_phone(code, token)
        if answer.errcode in _TOKEN_REFUSALS:
            # Once only: a token that stays refused is a fault of the settings, and asking for
            # another is allowed twenty times a day.
            answer = await self._ask_phone(code, await self._access_token(refused=token))
        _check(answer)
        info = answer.phone_info
        if info is None or info.watermark.appid != self._settings.app_id:
            raise ProviderUnavailable(cause="unreadable")
        country_code = info.country_code.lstrip("+")
        digits = info.pure_phone_number
        if country_code != _MAINLAND:
            digits = country_code + digits
        if not (digits.isascii() and digits.isdecimal()):
            raise ProviderUnavailable(cause="unreadable")
        return digits

    async def disconnect(self) -> None:
        """Close every connection."""
        await self._transport.disconnect()

    async def _ask_phone(self, code: str, token: str) -> _PhoneAnswer:
        target = f"/wxa/business/getuserphonenumber?{urlencode({'access_token': token})}"
        return await self._ask("POST", target, msgspec.json.encode({"code": code}), _PhoneAnswer)

    async def _access_token(self, *, refused: str | None = None) -> str:
        # One renewal at a time: whoever waited finds the token that the first one brought, and a
        # token that was refused to several at once is replaced once.
        async with self._renewal:
            kept = self._token
            if kept and kept.text != refused and self._clock() < kept.renew_at:
                return kept.text
            self._token = await self._renewed(is_forced=refused is not None)
            return self._token.text

    async def _renewed(self, *, is_forced: bool) -> _Token:
        request = {
            "grant_type": "client_credential",
            "appid": self._settings.app_id,
            "secret": self._settings.app_secret,
            "force_refresh": is_forced,
        }
        asked_at = self._clock()
        body = msgspec.json.encode(request)
        answer = await self._ask("POST", "/cgi-bin/stable_token", body, _TokenAnswer)
        if answer.errcode or not answer.access_token:
            raise ProviderUnavailable(cause="provider-code", provider_code=answer.errcode)
        lifetime = timedelta(seconds=answer.expires_in)
        return _Token(answer.access_token, asked_at + max(lifetime - TOKEN_MARGIN, lifetime / 2))

    async def _ask(self, method: str, target: str, content: bytes, type_: type[T]) -> T:
        headers = {"Content-Type": "application/json"} if content else {}
        try:
            answer = await self._transport.send(method, target, content=content, headers=headers)
        except Silence as silence:
            raise ProviderUnavailable(cause=silence.cause) from silence
        if answer.status != 200:  # noqa: PLR2004
            raise ProviderUnavailable(cause=f"http-{answer.status}")
        try:
            return msgspec.json.decode(answer.body, type=type_)
        except (msgspec.MsgspecError, ValueError, RecursionError) as broken:
            raise ProviderUnavailable(cause="unreadable") from broken


def _check(answer: _Answer) -> None:
    if answer.errcode in _CODE_REFUSALS:
        raise SignInCodeRefused
    if answer.errcode:
        raise ProviderUnavailable(cause="provider-code", provider_code=answer.errcode)
