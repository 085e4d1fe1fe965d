"""Real names (实名): a prepaid card is issued to a person whose identity was checked.

A case lives `passed | in_review → passed | rejected`; a rejected person may submit again. What was
submitted is sealed: the name, the number, each picture. Rule: docs/identity.md, after rules.md C.
"""

from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import Literal, NamedTuple
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, Text, UniqueConstraint, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from identity.audit import JOB, record
from identity.kernel import (
    Base,
    Database,
    Refusal,
    Said,
    business_date,
    new_id,
)
from identity.people import id_numbers, pictures
from identity.people.id_numbers import BadIdNumber, IdNumber
from identity.people.pictures import BadPicture, Picture
from identity.sealing import KeyRing, blind_index, seal

State = Literal["passed", "in_review", "rejected"]
PictureKind = Literal["id_front", "id_back", "selfie"]

ADULT_AGE = 18
"""Younger people need a guardian; a 16- or 17-year-old waits for an operator."""
YOUNGEST_ALONE = 16
OLDEST = 120


class RealNameCase(Base):
    """One submission of one citizen."""

    __tablename__ = "people_real_name_case"
    __table_args__ = (
        CheckConstraint("state IN ('passed', 'in_review', 'rejected')", name="state"),
        # One citizen has one open or passed case, and one person is one citizen.
        Index(
            "uq_people_real_name_case_open",
            "citizen_id",
            unique=True,
            postgresql_where="state <> 'rejected'",
        ),
        Index(
            "uq_people_real_name_case_person",
            "number_index",
            unique=True,
            postgresql_where="state = 'passed'",
        ),
    )
    id: Mapped[UUID] = mapped_column(primary_key=True)
    citizen_id: Mapped[UUID] = mapped_column(ForeignKey("people_citizen.id"), index=True)
    state: Mapped[State] = mapped_column(Text, index=True)
    reasons: Mapped[list[str]]
    """Codes of what spoke against passing, or what the operator wrote down."""
    name_sealed: Mapped[bytes]
    number_sealed: Mapped[bytes]
    number_index: Mapped[bytes]
    name_masked: Mapped[str]
    number_masked: Mapped[str]
    created_at: Mapped[datetime]
    decided_at: Mapped[datetime | None]
    decided_by: Mapped[UUID | None]


class RealNamePicture(Base):
    """One picture of a case, sealed."""

    __tablename__ = "people_real_name_picture"
    __table_args__ = (UniqueConstraint("case_id", "kind"),)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    case_id: Mapped[UUID] = mapped_column(ForeignKey("people_real_name_case.id"))
    kind: Mapped[str]
    sealed: Mapped[bytes]


class RealNameRequired(Refusal):
    """Without a checked identity there is no card and no money on it (rules.md C)."""

    code, status = "real-name-required", 403
    title = Said("请先完成实名认证", "Verify your identity first")
    next_step = Said(
        "请提交姓名、身份证号和证件照片。", "Submit your name, ID number and pictures."
    )


class AlreadyVerified(Refusal):
    """The citizen has a case that passed or waits."""

    code, status = "real-name-exists", 409
    title = Said("实名认证已提交", "Your identity was submitted already")
    next_step = Said("请查看认证结果。", "Look at the state of your verification.")


class Submission(NamedTuple):
    """What a citizen hands in. `pictures` holds raw bytes as uploaded."""

    name: str
    number: str
    pictures: Mapping[PictureKind, bytes]


class Verdict(NamedTuple):
    """What the rule says about a submission."""

    state: State
    reasons: list[str]


def decide(number: IdNumber, doubts: list[str]) -> Verdict:
    """Return whether a well-formed submission passes by rule or waits for an operator.

    Rule: an adult of a possible age, with pictures nobody doubts, and no other citizen of that
    number. It proves form, not identity: an authority's check comes behind an adapter.
    """
    if number.age < YOUNGEST_ALONE:
        return Verdict("rejected", ["guardian-needed"])
    if number.age < ADULT_AGE:
        doubts = [*doubts, "minor"]
    if number.age > OLDEST:
        doubts = [*doubts, "age-implausible"]
    return Verdict("in_review", doubts) if doubts else Verdict("passed", [])


async def submit(
    db: Database, citizen_id: UUID, submission: Submission, *, ring: KeyRing, now: datetime
) -> RealNameCase:
    """Take a submission: it passes by rule, waits for an operator, or is rejected with reasons.

    Raises:
        AlreadyVerified: a case of this citizen passed or waits.
    """
    async with db.begin() as session:
        if await _has_open(session, citizen_id):
            raise AlreadyVerified
    refused, number, clean = await _check(submission, now=now)
    index = blind_index(ring, "id_number", submission.number.strip().upper())
    async with db.begin() as session:
        doubts = [
            f"{kind}-{doubt}".replace("_", "-")
            for kind, picture in clean.items()
            for doubt in picture.doubts
        ]
        if await passed_elsewhere(session, index, citizen_id):
            doubts.append("duplicate-person")
    verdict = Verdict("rejected", refused) if number is None or refused else decide(number, doubts)
    keep = partial(_keep, db, citizen_id, submission, clean=clean, index=index, ring=ring, now=now)
    try:
        return await keep(verdict=verdict)
    except IntegrityError as conflict:
        if "uq_people_real_name_case_person" not in str(conflict.orig):
            raise AlreadyVerified from conflict
        # The same person passed as another citizen while this one was being checked.
        return await keep(verdict=Verdict("in_review", ["duplicate-person"]))


async def _check(
    submission: Submission, *, now: datetime
) -> tuple[list[str], IdNumber | None, dict[PictureKind, Picture]]:
    """Return what is plainly wrong, the parsed number, and the clean pictures."""
    refused: list[str] = []
    number: IdNumber | None = None
    try:
        number = id_numbers.parse(submission.number, business_date(now))
    except BadIdNumber as bad:
        refused.append(f"id-number-{bad.problem}")
    clean: dict[PictureKind, Picture] = {}
    for kind, data in submission.pictures.items():
        try:
            clean[kind] = await pictures.check_in_thread(data, kind=kind)
        except BadPicture as bad_picture:
            refused.append(f"{kind}-{bad_picture.problem}".replace("_", "-"))
    try:
        pictures.check_different(*clean.values())
    except BadPicture as alike:
        refused.append(f"pictures-{alike.problem}")
    return refused, number, clean


async def _keep(
    db: Database,
    citizen_id: UUID,
    submission: Submission,
    *,
    clean: Mapping[PictureKind, Picture],
    verdict: Verdict,
    index: bytes,
    ring: KeyRing,
    now: datetime,
) -> RealNameCase:
    case_id = new_id(now)
    table = RealNameCase.__tablename__
    name, number = submission.name.strip(), submission.number.strip().upper()
    case = RealNameCase(
        id=case_id,
        citizen_id=citizen_id,
        state=verdict.state,
        reasons=verdict.reasons,
        name_sealed=seal(ring, name.encode(), table=table, column="name", row_id=case_id),
        number_sealed=seal(ring, number.encode(), table=table, column="number", row_id=case_id),
        number_index=index,
        name_masked=id_numbers.mask_name(name),
        number_masked=id_numbers.mask_id_number(number),
        created_at=now,
        decided_at=None if verdict.state == "in_review" else now,
        decided_by=None,
    )
    async with db.begin() as session:
        session.add(case)
        await session.flush()
        for kind, picture in clean.items():
            picture_id = new_id(now)
            session.add(
                RealNamePicture(
                    id=picture_id,
                    case_id=case_id,
                    kind=kind,
                    sealed=seal(
                        ring,
                        picture.jpeg,
                        table=RealNamePicture.__tablename__,
                        column="picture",
                        row_id=picture_id,
                    ),
                )
            )
        record(session, JOB, "real_name.submit", case_id, now=now, state=verdict.state)
    return case


async def latest(session: AsyncSession, citizen_id: UUID) -> RealNameCase | None:
    """Return a citizen's newest case."""
    found: RealNameCase | None = await session.scalar(
        select(RealNameCase)
        .where(RealNameCase.citizen_id == citizen_id)
        .order_by(RealNameCase.created_at.desc(), RealNameCase.id.desc())
        .limit(1)
    )
    return found


async def require_passed(session: AsyncSession, citizen_id: UUID) -> RealNameCase:
    """Return the case that passed.

    Raises:
        RealNameRequired: there is none.
    """
    case = await session.scalar(
        select(RealNameCase).where(
            RealNameCase.citizen_id == citizen_id, RealNameCase.state == "passed"
        )
    )
    if case is None:
        raise RealNameRequired
    return case


async def _has_open(session: AsyncSession, citizen_id: UUID) -> bool:
    """Say whether a citizen has a case that passed or waits."""
    found = await session.scalar(
        select(RealNameCase.id).where(
            RealNameCase.citizen_id == citizen_id, RealNameCase.state != "rejected"
        )
    )
    return found is not None


async def passed_elsewhere(session: AsyncSession, index: bytes, citizen_id: UUID) -> bool:
    """Say whether another citizen passed with this number."""
    found = await session.scalar(
        select(RealNameCase.id).where(
            RealNameCase.number_index == index,
            RealNameCase.state == "passed",
            RealNameCase.citizen_id != citizen_id,
        )
    )
    return found is not None
