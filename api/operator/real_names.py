"""Operators: signing in, and deciding the identity checks that no rule could decide."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

import msgspec
from litestar import Response, Router, delete, get, post
from litestar.datastructures import Cookie
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from api.auth import OperatorPrincipal, is_loopback, operator_cookie, operator_guard
from api.problems import refuses
from api.replies import AnyRequest, Page
from api.services import Services
from identity.kernel import NotFound, StateConflict
from identity.people import real_name_reviews
from identity.people.real_name_reviews import DuplicatePerson
from identity.people.real_names import RealNameCase
from identity.staff import operators
from identity.staff.operators import SignInRefused


class OperatorSignInRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Login, password and the one-time code of the moment."""

    login: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    password: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    totp: Annotated[str, msgspec.Meta(pattern=r"^[0-9]{6}\Z")]


class OperatorSignInView(msgspec.Struct, frozen=True):
    """The token that every writing call must carry as `X-CSRF-Token`."""

    csrf_token: str


class CaseLine(msgspec.Struct, frozen=True):
    """A case in the list, masked."""

    id: UUID
    state: Literal["passed", "in_review", "rejected"]
    reasons: list[str]
    name_masked: str
    number_masked: str
    created_at: datetime


class CaseView(msgspec.Struct, frozen=True):
    """A case opened by the operator who decides it; opening is recorded."""

    id: UUID
    state: Literal["passed", "in_review", "rejected"]
    reasons: list[str]
    name: str
    id_number: str
    pictures: list[str]
    created_at: datetime


class DecisionRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whether the person is who they say."""

    decision: Literal["passed", "rejected"]
    reasons: Annotated[
        list[Annotated[str, msgspec.Meta(min_length=1, max_length=200)]],
        msgspec.Meta(max_length=10),
    ]


@post("/sign-ins", responses=refuses(SignInRefused))
async def create_operator_sign_in(
    data: JSONBody[OperatorSignInRequest], services: NamedDependency[Services], request: AnyRequest
) -> Response[OperatorSignInView]:
    """Sign in with password and one-time code; the session travels as a cookie."""
    opened = await operators.sign_in(
        services.db,
        login=data.login,
        password=data.password,
        totp=data.totp,
        ring=services.ring,
        now=request.state.now,
    )
    cookie = Cookie(
        key=operator_cookie(services),
        value=opened.token,
        path="/",
        httponly=True,
        secure=not is_loopback(services),
        samesite="strict",
    )
    return Response(OperatorSignInView(opened.csrf_token), status_code=201, cookies=[cookie])


@delete(
    "/sign-ins/current",
    guards=[operator_guard],
    security=[{"operator": []}],
)
async def end_operator_sign_in(services: NamedDependency[Services], request: AnyRequest) -> None:
    """End this session."""
    async with services.db.begin() as session:
        await operators.sign_out(session, request.cookies[operator_cookie(services)])


@get("/real-name-cases")
async def list_cases(services: NamedDependency[Services]) -> Page[CaseLine]:
    """List the cases that wait for a decision, oldest first."""
    async with services.db.begin() as session:
        waiting = await real_name_reviews.waiting(session)
    return Page([_line(case) for case in waiting], None)


@get("/real-name-cases/{case_id:uuid}", responses=refuses(NotFound))
async def open_case(
    case_id: FromPath[UUID],
    services: NamedDependency[Services],
    principal: NamedDependency[OperatorPrincipal],
    request: AnyRequest,
) -> CaseView:
    """Open a case: name and number in full. That it was opened is written down."""
    async with services.db.begin() as session:
        opened = await real_name_reviews.open_case(
            session,
            case_id,
            ring=services.ring,
            operator_id=principal.operator_id,
            now=request.state.now,
        )
    case = opened.case
    return CaseView(
        case.id,
        case.state,
        case.reasons,
        opened.name,
        opened.number,
        opened.picture_kinds,
        case.created_at,
    )


@get(
    "/real-name-cases/{case_id:uuid}/pictures/{kind:str}",
    media_type="image/jpeg",
    responses=refuses(NotFound),
)
async def show_case_picture(
    case_id: FromPath[UUID],
    kind: FromPath[str],
    services: NamedDependency[Services],
    principal: NamedDependency[OperatorPrincipal],
    request: AnyRequest,
) -> Response[bytes]:
    """Show one picture of a case. That it was looked at is written down."""
    async with services.db.begin() as session:
        jpeg = await real_name_reviews.open_picture(
            session,
            case_id,
            kind,
            ring=services.ring,
            operator_id=principal.operator_id,
            now=request.state.now,
        )
    return Response(jpeg, media_type="image/jpeg", headers={"Cache-Control": "no-store"})


@post(
    "/real-name-cases/{case_id:uuid}/decisions",
    responses=refuses(NotFound, StateConflict, DuplicatePerson),
)
async def decide_case(
    case_id: FromPath[UUID],
    data: JSONBody[DecisionRequest],
    services: NamedDependency[Services],
    principal: NamedDependency[OperatorPrincipal],
    request: AnyRequest,
) -> CaseLine:
    """Decide a waiting case."""
    async with services.db.begin() as session:
        case = await real_name_reviews.review(
            session,
            case_id,
            decision=data.decision,
            reasons=data.reasons,
            operator_id=principal.operator_id,
            now=request.state.now,
        )
    return _line(case)


def _line(case: RealNameCase) -> CaseLine:
    return CaseLine(
        case.id,
        case.state,
        case.reasons,
        case.name_masked,
        case.number_masked,
        case.created_at,
    )


sign_in_router = Router(
    "", route_handlers=[create_operator_sign_in, end_operator_sign_in], tags=["operator: sign-in"]
)
case_router = Router(
    "",
    guards=[operator_guard],
    security=[{"operator": []}],
    route_handlers=[list_cases, open_case, show_case_picture, decide_case],
    tags=["operator: real names"],
)
