"""The mini-program's side of api.weixin.qq.com: sign-in, access tokens, phone numbers.

Errors come with status 200 and an `errcode`, as they do there.
"""

from base64 import b64encode
from datetime import datetime, timedelta
from secrets import token_bytes, token_urlsafe
from typing import Annotated, Any, Literal

import msgspec
from litestar import Request, Response, Router, get, post
from litestar.di import NamedDependency
from litestar.params import Parameter
from msgspec import Struct

from simulators import people
from simulators.world import World

AnyRequest = Request[Any, Any, Any]
TOKEN_LIFE = timedelta(hours=2)
_RENEWED_BEFORE = timedelta(minutes=5)
TokenKind = Literal["plain", "stable"]


class WeChatError(Exception):
    """A refusal of WeChat's, by its number."""

    def __init__(self, errcode: int, errmsg: str) -> None:
        """Keep what the answer will say."""
        super().__init__(errmsg)
        self.errcode, self.errmsg = errcode, errmsg


class Token(Struct, frozen=True):
    """An access token, valid until it expires or another takes its place."""

    access_token: str
    expires_at: datetime


class StableTokenRequest(Struct, frozen=True):
    """Who asks for the token that several servers can share."""

    grant_type: str
    appid: str
    secret: str
    force_refresh: bool = False


class PhoneRequest(Struct, frozen=True):
    """What the phone-number button handed over."""

    code: str


@get("/sns/jscode2session")
async def sign_in(
    world: NamedDependency[World],
    appid: str = "",
    secret: str = "",
    js_code: str = "",
    grant_type: str = "",
) -> dict[str, str]:
    """Tell who it is that signed in; the session key is another one each time."""
    _check_app(world, appid, secret)
    if grant_type != "authorization_code":
        raise WeChatError(40002, "invalid grant_type")
    name = people.name_in(js_code)
    if name is None:
        raise WeChatError(40029, "invalid code")
    return {
        "openid": people.wechat_open_id(appid, name),
        "session_key": b64encode(token_bytes(16)).decode(),
    }


@get("/cgi-bin/token")
async def plain_token(
    world: NamedDependency[World], appid: str = "", secret: str = "", grant_type: str = ""
) -> dict[str, str | int]:
    """Hand out a new token; the one before it is void."""
    _check_app(world, appid, secret)
    if grant_type != "client_credential":
        raise WeChatError(40002, "invalid grant_type")
    return _token_view(world, _renew(world, "plain"))


@post("/cgi-bin/stable_token", status_code=200)
async def stable_token(request: AnyRequest, world: NamedDependency[World]) -> dict[str, str | int]:
    """Hand out the same token until it runs out or a new one is insisted on."""
    asked = _read(await request.body(), StableTokenRequest)
    _check_app(world, asked.appid, asked.secret)
    if asked.grant_type != "client_credential":
        raise WeChatError(40002, "invalid grant_type")
    token = world.store.fact(_token_name("stable"), Token)
    is_old = token is None or token.expires_at - world.now() < _RENEWED_BEFORE
    if token is None or is_old or asked.force_refresh:
        token = _renew(world, "stable")
    return _token_view(world, token)


@post("/wxa/business/getuserphonenumber", status_code=200)
async def phone_number(
    request: AnyRequest,
    world: NamedDependency[World],
    access_token: Annotated[str, Parameter(query="access_token")] = "",
) -> dict[str, Any]:
    """Tell the number behind the button's code."""
    _check_token(world, access_token)
    name = people.name_in(_read(await request.body(), PhoneRequest).code)
    if name is None:
        raise WeChatError(40029, "invalid code")
    number = people.phone(name)
    watermark = {
        "timestamp": int(world.now().timestamp()),
        "appid": world.keys.ids.wechat_app_id,
    }
    info = {
        "phoneNumber": number,
        "purePhoneNumber": number,
        "countryCode": "86",
        "watermark": watermark,
    }
    return {"errcode": 0, "errmsg": "ok", "phone_info": info}


def router() -> Router:
    """Return the mini-program interface."""
    return Router(
        path="/",
        route_handlers=[sign_in, plain_token, stable_token, phone_number],
        exception_handlers={WeChatError: _refuse},
    )


def _refuse(_: AnyRequest, error: WeChatError) -> Response[dict[str, str | int]]:
    return Response({"errcode": error.errcode, "errmsg": error.errmsg}, status_code=200)


def _check_app(world: World, app_id: str, secret: str) -> None:
    if app_id != world.keys.ids.wechat_app_id:
        raise WeChatError(40013, "invalid appid")
    if secret != world.keys.ids.wechat_app_secret:
        raise WeChatError(40125, "invalid appsecret")


def _check_token(world: World, access_token: str) -> None:
    if not access_token:
        raise WeChatError(41001, "access_token missing")
    valid = [world.store.fact(_token_name(kind), Token) for kind in ("plain", "stable")]
    if not any(_is_good(token, access_token, world.now()) for token in valid):
        raise WeChatError(40001, "invalid credential, access_token is invalid or not latest")


def _is_good(token: Token | None, access_token: str, now: datetime) -> bool:
    return token is not None and token.access_token == access_token and now < token.expires_at


def _renew(world: World, kind: TokenKind) -> Token:
    token = Token(access_token=token_urlsafe(96), expires_at=world.now() + TOKEN_LIFE)
    with world.store.transaction():
        world.store.keep_fact(_token_name(kind), token)
    return token


def _token_view(world: World, token: Token) -> dict[str, str | int]:
    left = token.expires_at - world.now()
    return {"access_token": token.access_token, "expires_in": int(left.total_seconds())}


def _token_name(kind: TokenKind) -> str:
    return f"token:{kind}"


def _read(body: bytes, type_: type[Any]) -> Any:
    try:
        return msgspec.json.decode(body, type=type_)
    except msgspec.DecodeError as error:
        raise WeChatError(47001, "data format error") from error
