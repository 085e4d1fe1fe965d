"""Who is calling: token, signature or cookie → principal; one guard per audience.

Guards run before a body is decoded, so an unsigned or unauthenticated call learns nothing of what
a body should look like, and changes nothing.
"""

from typing import Any, NamedTuple
from uuid import UUID

from litestar import Request
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler
from litestar.openapi.spec import SecurityScheme
from sqlalchemy.ext.asyncio import AsyncSession

from api.services import Services
from identity import access_tokens, signatures, tokens
from identity.kernel import Refusal, Said
from identity.people import step_ups
from identity.signatures import SignatureProblem, SignatureRefused
from identity.staff import operators
from identity.tokens import TokenRefused

COOKIE_ON_LOOPBACK = "yuanka_operator"
COOKIE = "__Host-yuanka_operator"
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class SignatureInvalid(Refusal):
    """The call is not signed by a key we know, or was changed after signing."""

    code, status = "signature-invalid", 401
    title = Said("请求签名无效", "The request's signature is not valid")
    next_step = Said(
        "请按 yuanka-v1 规范用已登记的密钥重新签名。",
        "Sign again with your registered key, after the profile yuanka-v1.",
    )


class SignatureMalformed(Refusal):
    """The signature headers cannot be read as one signature."""

    code, status = "signature-malformed", 400
    title = Said("签名头格式不正确", "The signature headers are malformed")
    next_step = Said("请按 yuanka-v1 规范书写签名头。", "Write them after the profile yuanka-v1.")


class ClockSkew(Refusal):
    """The call was signed more than a minute ago, or ahead of our time."""

    code, status, retryable = "clock-skew", 401, True
    title = Said("签名时间与服务器相差过大", "The signature's time is too far from ours")
    next_step = Said(
        "请按 server_time_at 校准时钟后重新签名。",
        "Set the clock by server_time_at and sign again.",
    )


class CitizenPrincipal(NamedTuple):
    """A signed-in citizen and their session."""

    citizen_id: UUID
    sid: UUID


class MachinePrincipal(NamedTuple):
    """A merchant or a gate, by the key it signed with."""

    owner_id: UUID
    keyid: str


class OperatorPrincipal(NamedTuple):
    """A signed-in operator."""

    operator_id: UUID


Connection = ASGIConnection[Any, Any, Any, Any]


async def citizen_guard(connection: Connection, _: BaseRouteHandler) -> None:
    """Let in whoever carries a live access token of an open session."""
    services: Services = connection.app.state.services
    scheme, _space, token = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        raise TokenRefused
    try:
        claims = access_tokens.read(
            token, services.token_keys, audience="citizen", now=connection.state.now
        )
    except access_tokens.TokenRefused as refused:
        raise TokenRefused from refused
    async with services.db.begin() as session:
        if not await tokens.is_open(session, claims.session_id):
            raise TokenRefused
    connection.state.principal = CitizenPrincipal(claims.subject, claims.session_id)


async def merchant_guard(connection: Connection, _: BaseRouteHandler) -> None:
    """Let in a call signed by a merchant's key."""
    await _machine(connection, "merchant")


async def gate_guard(connection: Connection, _: BaseRouteHandler) -> None:
    """Let in a call signed by a gate's key."""
    await _machine(connection, "gate")


async def _machine(connection: Connection, owner_kind: str) -> None:
    services: Services = connection.app.state.services
    assert isinstance(connection, Request)
    body = await connection.body()
    now = connection.state.now
    try:
        signed = signatures.read(connection.scope["headers"])
        signatures.check_body(signed, body)
        signatures.check_time(signed, now=now)
        key = await services.keys.find(signed.keyid, now=now)
        if key is None or key.owner_kind != owner_kind:
            raise SignatureInvalid
        signatures.check_signature(
            signed,
            key.public_key,
            method=connection.method,
            authority=services.settings.signed_authority,
            path=connection.scope["raw_path"],
            query=connection.scope["query_string"],
        )
    except SignatureRefused as refused:
        if refused.problem == SignatureProblem.CLOCK_SKEW:
            raise ClockSkew(server_time_at=now.isoformat()) from refused
        if refused.problem == SignatureProblem.MALFORMED:
            raise SignatureMalformed from refused
        raise SignatureInvalid from refused
    connection.state.principal = MachinePrincipal(key.owner_id, signed.keyid)


async def operator_guard(connection: Connection, _: BaseRouteHandler) -> None:
    """Let in a live operator session; a call that writes also needs its CSRF token."""
    services: Services = connection.app.state.services
    async with services.db.begin() as session:
        operator_id = await operators.of_session(
            session,
            connection.cookies.get(operator_cookie(services)),
            connection.headers.get("x-csrf-token"),
            writes=connection.scope.get("method") not in SAFE_METHODS,
            now=connection.state.now,
        )
    connection.state.principal = OperatorPrincipal(operator_id)


def operator_cookie(services: Services) -> str:
    """Return the cookie's name: on loopback, plain http cannot carry a `__Host-` cookie."""
    return COOKIE_ON_LOOPBACK if is_loopback(services) else COOKIE


def is_loopback(services: Services) -> bool:
    """Say whether this is a demo or a test on this very machine."""
    host = services.settings.host
    return services.settings.environment == "development" and host in {"127.0.0.1", "localhost"}


async def require_step_up(
    session: AsyncSession, principal: CitizenPrincipal, request: Request[Any, Any, Any]
) -> None:
    """Go on only with a fresh proof of who is asking; under whatever this transaction has locked.

    Raises:
        StepUpRequired: there is none in this session.
    """
    await step_ups.require(
        session,
        principal.citizen_id,
        sid=principal.sid,
        token=request.headers.get("yuanka-step-up"),
        now=request.state.now,
    )


SECURITY_SCHEMES: dict[str, SecurityScheme] = {
    "citizen": SecurityScheme(
        type="http", scheme="bearer", bearer_format="JWT", description="市民登录令牌"
    ),
    "merchant": SecurityScheme(
        type="apiKey",
        name="Signature",
        security_scheme_in="header",
        description="RFC 9421, profile yuanka-v1, by a merchant's key",
    ),
    "gate": SecurityScheme(
        type="apiKey",
        name="Signature",
        security_scheme_in="header",
        description="RFC 9421, profile yuanka-v1, by a gate's key",
    ),
    "operator": SecurityScheme(
        type="apiKey",
        name=COOKIE,
        security_scheme_in="cookie",
        description="Session cookie; calls that write also send X-CSRF-Token",
    ),
}
