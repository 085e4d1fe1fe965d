"""Refusals, HTTP errors and faults → RFC 9457 problem documents; the one way to say no over HTTP.

The language of title and detail follows Accept-Language (zh-CN unless English is preferred). A
fault says nothing of its cause outward; it is logged here, once, with the request's id.
"""

from collections.abc import Callable
from typing import Any

import asyncpg.exceptions as sql_errors
import msgspec
import sqlalchemy.exc
import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import Example

from identity.kernel import Refusal, Said
from wallet.ledger.posting import InProgress, Overloaded, Unavailable

AnyRequest = Request[Any, Any, Any]

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = "1"

HELD_STATES = frozenset({"55P03", "57014", "40P01", "40001"})
"""Lock not available, cancelled by a time-out, deadlock: nothing happened, ask again."""
LOST_STATES = ("08", "53", "57P")
"""Connections, resources, an operator's shutdown: the database went away."""

log = structlog.get_logger()


class Malformed(Refusal):
    """The request does not have the form that the documentation gives it."""

    code, status = "bad-request", 400
    title = Said("请求格式不正确", "The request is malformed")
    next_step = Said("请按接口文档检查各字段。", "Check the fields against the API documentation.")


class TooLarge(Refusal):
    """The body is longer than this operation takes."""

    code, status = "too-large", 413
    title = Said("内容过大", "The request is too large")
    next_step = Said("请减小内容后重试。", "Send less.")


HTTP_SAID: dict[int, tuple[str, Said, Said]] = {
    400: (Malformed.code, Malformed.title, Malformed.next_step),
    401: (
        "unauthorized",
        Said("请先登录", "Sign in first"),
        Said("请登录后重试。", "Sign in and try again."),
    ),
    404: (
        "not-found",
        Said("没有找到", "Not found"),
        Said("请检查地址。", "Check the address."),
    ),
    405: (
        "method-not-allowed",
        Said("不支持此方法", "The method is not allowed here"),
        Said("请按接口文档使用方法。", "Use a method that the API documentation lists."),
    ),
    413: (TooLarge.code, TooLarge.title, TooLarge.next_step),
    415: (
        "unsupported-media-type",
        Said("不支持的内容类型", "The content type is not supported"),
        Said(
            "请使用接口文档所列的类型。", "Use the content type that the API documentation lists."
        ),
    ),
}

FAULT = (
    "fault",
    Said("系统内部错误", "Something went wrong on our side"),
    Said(
        "请用同一请求号重试；仍失败请联系客服并提供请求编号。",
        "Try again with the same request number; if it fails again, tell us the request id.",
    ),
)


class ProblemDocument(msgspec.Struct, omit_defaults=True):
    """A no, after RFC 9457; other members are facts of this very no."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    retryable: bool


def prefers_english(request: AnyRequest) -> bool:
    """Say whether the caller would rather read English than Chinese."""
    best, best_quality = "zh", 0.0
    for part in request.headers.get("accept-language", "").split(","):
        language, _, quality_text = part.strip().partition(";q=")
        try:
            quality = float(quality_text or 1)
        except ValueError:
            continue
        if language[:2].lower() in {"zh", "en"} and quality > best_quality:
            best, best_quality = language[:2].lower(), quality
    return best == "en"


def say(said: Said, request: AnyRequest) -> str:
    """Return a sentence in the caller's language."""
    return said.en if prefers_english(request) else said.zh


def problem(
    request: AnyRequest,
    said: tuple[str, Said, Said],
    *,
    status: int,
    retryable: bool = False,
    facts: dict[str, Any] | None = None,
    headers: dict[str, str] | None = None,
) -> Response[dict[str, Any]]:
    """Return a problem document as a response."""
    code, title, next_step = said
    return Response(
        {
            "type": f"/problems/{code}",
            "title": say(title, request),
            "status": status,
            "detail": say(next_step, request),
            "code": code,
            "request_id": request_id(request),
            "retryable": retryable,
            **(facts or {}),
        },
        status_code=status,
        media_type=MEDIA_TYPE,
        headers=headers or {},
    )


def from_refusal(request: AnyRequest, refusal: Refusal) -> Response[dict[str, Any]]:
    """Say an expected no."""
    headers = {}
    if refusal.is_replayed:
        headers["Idempotency-Replayed"] = "true"
    if refusal.retryable:
        headers["Retry-After"] = RETRY_AFTER_SECONDS
    if refusal.status == 401:  # noqa: PLR2004
        headers["WWW-Authenticate"] = "Bearer"
    return problem(
        request,
        (refusal.code, refusal.title, refusal.next_step),
        status=refusal.status,
        retryable=refusal.retryable,
        facts=refusal.facts,
        headers=headers,
    )


def from_database(request: AnyRequest, fault: Exception) -> Response[Any]:
    """Say that the database is busy or away, and may be asked again; all else is a fault of ours.

    Whether what was asked happened may be unknown: its number makes asking again safe.
    """
    refusal = _refusal_of(fault)
    if refusal is None:
        return from_fault(request, fault)
    log.warning("database", request_id=request_id(request), problem=type(fault).__name__)
    return from_refusal(request, refusal)


def _refusal_of(fault: Exception) -> Refusal | None:
    if isinstance(fault, sqlalchemy.exc.TimeoutError):
        return Overloaded()
    if isinstance(fault, sql_errors.InterfaceError | ConnectionError):
        return Unavailable()
    # SQLAlchemy wraps what the driver raised; either way it has the server's five characters.
    state = getattr(getattr(fault, "orig", fault), "sqlstate", None) or ""
    if state in HELD_STATES:
        return InProgress()
    is_lost = isinstance(fault, sqlalchemy.exc.DBAPIError) and fault.connection_invalidated
    return Unavailable() if is_lost or state.startswith(LOST_STATES) else None


def from_http(request: AnyRequest, raised: HTTPException) -> Response[dict[str, Any]]:
    """Say a no of the framework: bad fields, an unknown path, a wrong method."""
    said = HTTP_SAID.get(raised.status_code)
    if said is None:
        if raised.status_code >= 500:  # noqa: PLR2004
            return from_fault(request, raised)
        said = HTTP_SAID[400]
    facts: dict[str, Any] = {}
    if isinstance(raised, ValidationException) and raised.extra:
        facts["errors"] = _fields(raised.extra)
    # The headers say which methods are allowed; a 405 without them is against the standard.
    return problem(
        request,
        said,
        status=raised.status_code,
        facts=facts,
        headers=dict(raised.headers or {}),
    )


def from_form(request: AnyRequest, fault: Exception) -> Response[Any]:
    """Say that a field of a form is no text, or text in an encoding that there is not.

    The framework decodes a form's fields and lets what goes wrong through as it is; only an
    operation that takes a form has this handler, so that a lookup of ours stays our fault.
    """
    if isinstance(fault, UnicodeError) or type(fault) is LookupError:
        return from_refusal(request, Malformed())
    return from_fault(request, fault)


def from_fault(request: AnyRequest, fault: Exception) -> Response[dict[str, Any]]:
    """Say that something broke, and nothing of what."""
    log.error(
        "fault",
        request_id=request_id(request),
        path=request.url.path,
        fault=type(fault).__name__,
        exc_info=fault,
    )
    return problem(request, FAULT, status=500, retryable=True)


HANDLERS: dict[int | type[Exception], Callable[..., Response[Any]]] = {
    Refusal: from_refusal,
    HTTPException: from_http,
    sqlalchemy.exc.SQLAlchemyError: from_database,
    sql_errors.PostgresError: from_database,
    sql_errors.InterfaceError: from_database,
    ConnectionError: from_database,
    Exception: from_fault,
}


def request_id(request: AnyRequest) -> str:
    """Return the id under which this request is logged."""
    return str(request.scope["state"].get("request_id", ""))


def refuses(*refusals: type[Refusal]) -> dict[int, ResponseSpec]:
    """Return what OpenAPI says of a handler's refusals, one entry per status."""
    by_status: dict[int, list[type[Refusal]]] = {}
    for refusal in refusals:
        by_status.setdefault(refusal.status, []).append(refusal)
    return {
        status: ResponseSpec(
            ProblemDocument,
            generate_examples=False,
            media_type=MEDIA_TYPE,
            description="; ".join(f"`{refusal.code}` {refusal.title.zh}" for refusal in group),
            examples=[
                Example(id=refusal.code, summary=refusal.title.zh, value=example_of(refusal))
                for refusal in group
            ],
        )
        for status, group in sorted(by_status.items())
    }


def example_of(refusal: type[Refusal]) -> dict[str, Any]:
    """Return the problem document of a refusal, without the facts of any one case."""
    return {
        "type": f"/problems/{refusal.code}",
        "title": refusal.title.zh,
        "status": refusal.status,
        "detail": refusal.next_step.zh,
        "code": refusal.code,
        "request_id": "019aa000-0000-7000-8000-000000000000",
        "retryable": refusal.retryable,
    }


def _fields(extra: Any) -> list[dict[str, str]]:
    """Return which fields were wrong and why, without the values that were sent."""
    if not isinstance(extra, list):
        return []
    return [
        {"field": str(entry.get("key", "")), "problem": str(entry.get("message", ""))[:200]}
        for entry in extra
        if isinstance(entry, dict)
    ]
