"""Signing in and out (登录): a mini-program's code becomes a session of ours."""

from typing import Annotated, Literal
from uuid import UUID

import msgspec
from litestar import Router, delete, post
from litestar.di import NamedDependency
from litestar.params import JSONBody

from api.auth import CitizenPrincipal, citizen_guard
from api.problems import refuses
from api.replies import AnyRequest
from api.services import Services
from identity import access_tokens, tokens
from identity.people import sign_ins
from identity.providers.provider import ProviderUnavailable, SignInCodeRefused
from identity.tokens import TokenRefused

ACCESS_SECONDS = 600


class SignInRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A one-time code of `wx.login` or `my.getAuthCode`."""

    provider: Literal["wechat", "alipay"]
    code: Annotated[str, msgspec.Meta(min_length=1, max_length=512)]


class SignedInCitizen(msgspec.Struct, frozen=True):
    """Who signed in."""

    id: UUID
    is_new: bool


class SignInView(msgspec.Struct, frozen=True):
    """A session's two tokens."""

    access_token: str
    expires_in: int
    refresh_token: str
    citizen: SignedInCitizen


class RefreshRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A refresh token; it is used up by asking."""

    refresh_token: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


@post("/sign-ins", responses=refuses(SignInCodeRefused, ProviderUnavailable))
async def create_sign_in(
    data: JSONBody[SignInRequest], services: NamedDependency[Services], request: AnyRequest
) -> SignInView:
    """Sign in with WeChat or Alipay; a new person becomes a citizen."""
    person = await services.sign_in_providers[data.provider].person_of(data.code)
    now = request.state.now
    async with services.db.begin() as session:
        citizen_id, is_new = await sign_ins.sign_in(session, person, now=now)
        sid, refresh_token = await tokens.open_family(session, citizen_id, now=now)
    return _view(services, request, citizen_id, sid, refresh_token, is_new=is_new)


@post("/sign-ins/refresh", responses=refuses(TokenRefused))
async def refresh_sign_in(
    data: JSONBody[RefreshRequest], services: NamedDependency[Services], request: AnyRequest
) -> SignInView:
    """Exchange a refresh token for new tokens; using one twice ends the session."""
    now = request.state.now
    refused = None
    async with services.db.begin() as session:
        try:
            citizen_id, sid, fresh = await tokens.rotate(session, data.refresh_token, now=now)
        except TokenRefused as problem:
            # The refusal may have ended the session, which has to be committed.
            refused = problem
    if refused:
        raise refused
    return _view(services, request, citizen_id, sid, fresh, is_new=False)


@delete(
    "/sign-ins/current",
    guards=[citizen_guard],
    security=[{"citizen": []}],
)
async def end_sign_in(
    services: NamedDependency[Services],
    principal: NamedDependency[CitizenPrincipal],
    request: AnyRequest,
) -> None:
    """End this session."""
    async with services.db.begin() as session:
        await tokens.revoke(session, principal.sid, now=request.state.now)


@delete(
    "/sign-ins",
    guards=[citizen_guard],
    security=[{"citizen": []}],
)
async def end_all_sign_ins(
    services: NamedDependency[Services],
    principal: NamedDependency[CitizenPrincipal],
    request: AnyRequest,
) -> None:
    """Sign out everywhere."""
    async with services.db.begin() as session:
        await tokens.revoke_all(session, principal.citizen_id, now=request.state.now)


def _view(
    services: Services,
    request: AnyRequest,
    citizen_id: UUID,
    sid: UUID,
    refresh_token: str,
    *,
    is_new: bool,
) -> SignInView:
    access_token = access_tokens.issue(
        services.token_keys,
        audience="citizen",
        subject=citizen_id,
        session_id=sid,
        now=request.state.now,
        lifetime_seconds=ACCESS_SECONDS,
    )
    return SignInView(
        access_token, ACCESS_SECONDS, refresh_token, SignedInCitizen(citizen_id, is_new)
    )


router = Router(
    "",
    route_handlers=[create_sign_in, refresh_sign_in, end_sign_in, end_all_sign_ins],
    tags=["citizen: sign-in"],
)
