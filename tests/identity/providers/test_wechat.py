"""People who come in by the WeChat mini-program."""

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import pytest

from identity.providers.provider import ProviderUnavailable, SignInCodeRefused, SignInProvider
from identity.providers.wechat import WechatSettings, WechatSignIn
from tests.identity.providers.answering import (
    Asked,
    Respond,
    always,
    answering,
    hang_up,
    keep_silent,
    said,
)
from tests.simulators.running import Simulators

Clock = Callable[[], datetime]
APP_ID = "wx0000000000000001"
START = datetime(2026, 3, 1, tzinfo=UTC)


def _sign_in(url: str, clock: Clock = lambda: START) -> WechatSignIn:
    settings = WechatSettings(base_url=url, app_id=APP_ID, app_secret="secret")
    return WechatSignIn(settings, clock, total_seconds=0.5)


class WeChat:
    """A WeChat that counts what it is asked; tokens are token-1, token-2 and so on."""

    def __init__(self) -> None:
        self.refused_tokens: set[str] = set()
        self.forced: list[bool] = []
        self.phone_asks: list[str] = []
        self.expires_in = 7200
        self.phone_info: dict[str, object] = {
            "phoneNumber": "13912345678",
            "purePhoneNumber": "13912345678",
            "countryCode": "86",
            "watermark": {"timestamp": 1, "appid": APP_ID},
        }

    async def respond(self, asked: Asked) -> bytes:
        # As slow as a network, so that asks overlap.
        await asyncio.sleep(0.02)
        if asked.target == "/cgi-bin/stable_token":
            self.forced.append(json.loads(asked.body)["force_refresh"])
            told = {"access_token": f"token-{len(self.forced)}", "expires_in": self.expires_in}
            return said(json.dumps(told).encode())
        token = parse_qs(urlsplit(asked.target).query)["access_token"][0]
        self.phone_asks.append(token)
        if token in self.refused_tokens:
            return said(b'{"errcode":40001,"errmsg":"invalid credential"}')
        return said(json.dumps({"errcode": 0, "phone_info": self.phone_info}).encode())


async def test_the_simulated_wechat_knows_people_and_phones(
    simulators: Simulators, clock: Clock
) -> None:
    env = simulators.env
    settings = WechatSettings(
        base_url=env["WECHAT_BASE_URL"],
        app_id=env["WECHAT_APP_ID"],
        app_secret=env["WECHAT_APP_SECRET"],
    )
    sign_in = WechatSignIn(settings, clock)
    provider: SignInProvider = sign_in
    first, again = await provider.person_of("sim:wang"), await provider.person_of("sim:wang")
    other = await provider.person_of("sim:li")
    phone = await provider.phone_of("sim:wang")
    with pytest.raises(SignInCodeRefused):
        await provider.person_of("made-up")
    with pytest.raises(SignInCodeRefused):
        await provider.phone_of("made-up")
    await sign_in.disconnect()
    assert first == again != other
    assert (first.provider, first.app_id) == ("wechat", env["WECHAT_APP_ID"])
    assert phone.isdecimal()


async def test_a_wrong_secret_is_our_trouble_and_not_the_persons(
    simulators: Simulators, clock: Clock
) -> None:
    settings = WechatSettings(
        base_url=simulators.env["WECHAT_BASE_URL"],
        app_id=simulators.env["WECHAT_APP_ID"],
        app_secret="wrong",
    )
    provider = WechatSignIn(settings, clock)
    for ask in (provider.person_of, provider.phone_of):
        with pytest.raises(ProviderUnavailable):
            await ask("sim:wang")
    await provider.disconnect()


async def test_a_sign_in_asks_once_without_any_token() -> None:
    asked: list[Asked] = []

    async def respond(request: Asked) -> bytes:
        asked.append(request)
        return said(b'{"openid":"o1","unionid":"u1","session_key":"canary"}')

    async with answering(respond) as url:
        provider = _sign_in(url)
        person = await provider.person_of("a&b")
        await provider.disconnect()
    assert (person.open_id, person.user_id) == ("o1", "u1")
    assert "canary" not in repr(person) + repr(vars(provider))
    parts = urlsplit(asked[0].target)
    assert (len(asked), parts.path) == (1, "/sns/jscode2session")
    assert parse_qs(parts.query) == {
        "appid": [APP_ID],
        "secret": ["secret"],
        "js_code": ["a&b"],
        "grant_type": ["authorization_code"],
    }


@pytest.mark.parametrize(
    ("answer", "refusal"),
    [
        (b'{"errcode":40029}', SignInCodeRefused),
        (b'{"errcode":40163}', SignInCodeRefused),
        (b'{"errcode":40226}', SignInCodeRefused),
        (b'{"errcode":-1}', ProviderUnavailable),
        (b'{"errcode":45011}', ProviderUnavailable),
        (b'{"errcode":40013}', ProviderUnavailable),
        (b'{"errcode":0}', ProviderUnavailable),
        (b"{}", ProviderUnavailable),
        (b'{"openid":7}', ProviderUnavailable),
        (b"busy", ProviderUnavailable),
        (b"[" * 10_000, ProviderUnavailable),
    ],
)
async def test_answers_to_a_sign_in(answer: bytes, refusal: type[Exception]) -> None:
    async with answering(always(said(answer))) as url:
        provider = _sign_in(url)
        with pytest.raises(refusal):
            await provider.person_of("c")
        await provider.disconnect()


@pytest.mark.parametrize("respond", [keep_silent, hang_up, always(said(b"{}", status=500))])
async def test_no_answer_is_not_a_no(respond: Respond) -> None:
    async with answering(respond) as url:
        provider = _sign_in(url)
        for ask in (provider.person_of, provider.phone_of):
            with pytest.raises(ProviderUnavailable):
                await ask("c")
        await provider.disconnect()


async def test_the_token_is_asked_for_once_until_shortly_before_it_expires() -> None:
    wechat, now = WeChat(), [START]
    async with answering(wechat.respond) as url:
        provider = _sign_in(url, lambda: now[0])
        await asyncio.gather(*(provider.phone_of("c") for _ in range(5)))
        now[0] = START + timedelta(seconds=7200 - 301)
        await provider.phone_of("c")
        assert wechat.forced == [False]
        now[0] = START + timedelta(seconds=7200 - 299)
        await provider.phone_of("c")
        await provider.disconnect()
    assert wechat.forced == [False, False]


async def test_a_refused_token_is_replaced_once_even_for_several_at_once() -> None:
    wechat = WeChat()
    wechat.refused_tokens = {"token-1"}
    async with answering(wechat.respond) as url:
        provider = _sign_in(url)
        phones = await asyncio.gather(*(provider.phone_of("c") for _ in range(5)))
        await provider.disconnect()
    assert set(phones) == {"13912345678"}
    assert wechat.forced == [False, True]


async def test_a_token_that_stays_refused_ends_after_one_more_try() -> None:
    wechat = WeChat()
    wechat.refused_tokens = {"token-1", "token-2"}
    async with answering(wechat.respond) as url:
        provider = _sign_in(url)
        with pytest.raises(ProviderUnavailable):
            await provider.phone_of("c")
        await provider.disconnect()
    assert wechat.phone_asks == ["token-1", "token-2"]
    assert wechat.forced == [False, True]


async def test_a_token_that_lives_shorter_than_the_margin_is_used_for_half_its_life() -> None:
    wechat, now = WeChat(), [START]
    wechat.expires_in = 100
    async with answering(wechat.respond) as url:
        provider = _sign_in(url, lambda: now[0])
        await provider.phone_of("c")
        now[0] = START + timedelta(seconds=49)
        await provider.phone_of("c")
        assert len(wechat.forced) == 1
        now[0] = START + timedelta(seconds=51)
        await provider.phone_of("c")
        await provider.disconnect()
    assert len(wechat.forced) == 2


@pytest.mark.parametrize(
    ("changed", "phone"),
    [
        ({}, "13912345678"),
        ({"countryCode": "+86"}, "13912345678"),
        ({"countryCode": "852", "purePhoneNumber": "91234567"}, "85291234567"),
        ({"purePhoneNumber": "139 1234"}, None),
        ({"purePhoneNumber": ""}, None),
        ({"watermark": {"timestamp": 1, "appid": "wx-another"}}, None),
        ({"watermark": None}, None),
    ],
)
async def test_the_phone_is_digits_and_for_our_app(
    changed: dict[str, object], phone: str | None
) -> None:
    wechat = WeChat()
    wechat.phone_info |= changed
    async with answering(wechat.respond) as url:
        provider = _sign_in(url)
        if phone is None:
            with pytest.raises(ProviderUnavailable):
                await provider.phone_of("c")
        else:
            assert await provider.phone_of("c") == phone
        await provider.disconnect()
