"""Admissions as a gate asks for them, signed: may this code come in, and did the person go in."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

import msgspec
from litestar import Response, Router, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from api.auth import MachinePrincipal
from api.edge import Instant, check_instant
from api.problems import prefers_english, refuses
from api.replies import AnyRequest, made
from api.services import Services
from identity.kernel import NotFound, Refusal, Said, StateConflict
from identity.request_numbers import RequestNumberReused, request_hash
from wallet.admission import admissions, parks
from wallet.admission.admissions import OPEN_SECONDS, Admission
from wallet.codes.presentations import present_with_passes
from wallet.codes.reasons import Reason


class GateRetired(Refusal):
    """The gate is not in service."""

    code, status = "gate-retired", 403
    title = Said("该闸机已停用", "This gate is not in service")
    next_step = Said("请联系运营人员。", "Ask the operators.")


class CodeCredential(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was presented; here, a code."""

    kind: Literal["code"]
    value: Annotated[str, msgspec.Meta(min_length=1, max_length=400)]


class AdmissionRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One scan at a gate; `scan_id` is its number, once for ever."""

    scan_id: Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Za-z-]{6,64}\Z")]
    direction: Literal["in", "out"]
    credential: CodeCredential
    scanned_at: Instant
    lane: Annotated[str, msgspec.Meta(min_length=1, max_length=32)] | None = None

    def __post_init__(self) -> None:
        """Refuse an instant that cannot be."""
        check_instant(self.scanned_at)


class AdmissionView(msgspec.Struct, frozen=True):
    """The gate's answer; a no is an answer too, with its reason number and sentence."""

    decision: Literal["allow", "deny"]
    reason: int
    reason_text: str
    admission_id: UUID
    open_seconds: int
    display_name: str
    left: int | None
    server_time_at: datetime


class ResultRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whether the person went in."""

    result: Literal["passed", "not_passed", "tailgate", "forced"]
    at: Instant

    def __post_init__(self) -> None:
        """Refuse an instant that cannot be."""
        check_instant(self.at)


class ResultView(msgspec.Struct, frozen=True):
    """The admission as it stands now."""

    admission_id: UUID
    state: Literal["passed", "not_passed", "tailgate", "forced"]


@post(
    "/admissions",
    status_code=200,
    responses=refuses(RequestNumberReused, GateRetired),
)
async def create_admission(
    data: JSONBody[AdmissionRequest],
    services: NamedDependency[Services],
    principal: NamedDependency[MachinePrincipal],
    request: AnyRequest,
) -> Response[AdmissionView]:
    """Answer a scan. Retry with the same scan number: the same answer comes back."""
    now = request.state.now
    site = await services.gates.find(principal.owner_id, now=now)
    if site is None:
        raise GateRetired
    presented = await present_with_passes(
        services.db, services.issuer, data.credential.value, now=now
    )
    admission, is_new = await admissions.admit(
        services.db,
        services.poster,
        presented,
        gate_id=site.gate_id,
        park_id=site.park.id,
        is_open=parks.is_open(site.park, now),
        scan_id=data.scan_id,
        request_hash=request_hash("admission", data),
        direction=data.direction,
        lane=data.lane,
        scanned_at=data.scanned_at,
        now=now,
    )
    reply = made(_view(admission, request), is_new=is_new)
    reply.status_code = 200
    return reply


@post(
    "/admissions/{admission_id:uuid}/result",
    status_code=200,
    responses=refuses(NotFound, StateConflict),
)
async def report_result(
    admission_id: FromPath[UUID],
    data: JSONBody[ResultRequest],
    services: NamedDependency[Services],
    principal: NamedDependency[MachinePrincipal],
) -> ResultView:
    """Say what came of a yes; without a word within 30 seconds the use is given back."""
    async with services.db.begin() as session:
        await admissions.report(session, principal.owner_id, admission_id, data.result, at=data.at)
    return ResultView(admission_id, data.result)


def _view(admission: Admission, request: AnyRequest) -> AdmissionView:
    reason = Reason.of(admission.reason)
    is_allowed = reason == Reason.OK
    sentence = reason.en if prefers_english(request) else reason.zh
    return AdmissionView(
        decision="allow" if is_allowed else "deny",
        reason=admission.reason,
        reason_text=sentence.says,
        admission_id=admission.id,
        open_seconds=OPEN_SECONDS if is_allowed else 0,
        display_name=admission.display_name,
        left=admission.entries_left,
        server_time_at=admission.decided_at,
    )


router = Router("", route_handlers=[create_admission, report_result], tags=["gate: admissions"])
