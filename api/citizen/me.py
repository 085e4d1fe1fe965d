"""The signed-in person: phone, payment PIN, step-up, real name."""

from typing import Annotated, Literal
from uuid import UUID

import msgspec
from litestar import Router, get, post, put
from litestar.datastructures import UploadFile
from litestar.di import NamedDependency
from litestar.params import JSONBody, MultipartBody

from api.auth import CitizenPrincipal, require_step_up
from api.edge import TAKES_FORM
from api.problems import Malformed, from_form, refuses
from api.replies import AnyRequest
from api.services import Services
from identity.audit import Actor, record
from identity.people import citizens, payment_pins, real_names, step_ups
from identity.people.payment_pins import PinLocked, PinNotSet, PinRefused, PinWeak
from identity.people.real_names import AlreadyVerified, PictureKind, RealNameCase, Submission
from identity.people.step_ups import StepUpRequired
from identity.providers.provider import ProviderUnavailable, SignInCodeRefused
from identity.sealing import blind_index, open_sealed, seal

PICTURES_BYTES_MAX = 25 * 1024 * 1024
"""Three pictures of 8 MiB, and the fields around them."""

Pin = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{6}\Z", description="六位数字")]


class RealNameState(msgspec.Struct, frozen=True):
    """How far the identity check is; names and numbers are masked."""

    state: Literal["none", "passed", "in_review", "rejected"]
    name_masked: str | None
    id_number_masked: str | None
    reasons: list[str]


class MeView(msgspec.Struct, frozen=True):
    """What the person sees of themselves."""

    id: UUID
    phone_masked: str | None
    has_payment_pin: bool
    real_name: RealNameState


PayloadText = Annotated[str, msgspec.Meta(min_length=1, max_length=8192)]


class PhoneRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The phone code of WeChat, or what `my.getPhoneNumber` handed over at Alipay.

    Alipay's payload comes as its own members beside `provider`, or as one JSON text in `code`.
    """

    provider: Literal["wechat", "alipay"]
    code: PayloadText | None = None
    response: PayloadText | None = None
    sign: PayloadText | None = None
    sign_type: PayloadText | None = None
    encrypt_type: PayloadText | None = None
    charset: PayloadText | None = None

    def proof(self) -> str:
        """Return what the provider is asked about, as one text.

        Raises:
            Malformed: there is neither a code nor a payload.
        """
        if self.code is not None:
            return self.code
        if self.response is None:
            raise Malformed
        members = msgspec.structs.asdict(self)
        payload = {name: text for name, text in members.items() if name != "provider" and text}
        return msgspec.json.encode(payload).decode()


class PhoneView(msgspec.Struct, frozen=True):
    """The number that is kept now, masked."""

    phone_masked: str


class PinRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A new payment PIN; changing one needs the old one."""

    pin: Pin
    old_pin: Pin | None = None


class StepUpRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A proof that it is the person: here, the payment PIN."""

    pin: Pin


class StepUpView(msgspec.Struct, frozen=True):
    """A token to send as `Yuanka-Step-Up`."""

    step_up_token: str
    expires_in: int


class RealNameSubmission(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Name, number and pictures, as multipart form data."""

    name: Annotated[str, msgspec.Meta(pattern=r"^[^\x00-\x1f\x7f]{1,50}\Z")]
    id_number: Annotated[str, msgspec.Meta(pattern=r"^[^\x00-\x1f\x7f]{1,20}\Z")]
    id_front: UploadFile
    id_back: UploadFile
    selfie: UploadFile | None = None


class RealNameView(msgspec.Struct, frozen=True):
    """What became of a submission."""

    state: Literal["passed", "in_review", "rejected"]
    reasons: list[str]


@get("/me")
async def show_me(
    services: NamedDependency[Services], principal: NamedDependency[CitizenPrincipal]
) -> MeView:
    """Show the person what is kept of them."""
    async with services.db.begin() as session:
        citizen = await citizens.get(session, principal.citizen_id)
        case = await real_names.latest(session, principal.citizen_id)
    phone = None
    if citizen.phone_sealed:
        phone = open_sealed(
            services.ring,
            citizen.phone_sealed,
            table="people_citizen",
            column="phone",
            row_id=citizen.id,
        ).decode()
    return MeView(
        citizen.id, mask_phone(phone) if phone else None, citizen.pin_hash is not None, _state(case)
    )


@put("/me/phone", responses=refuses(SignInCodeRefused, ProviderUnavailable, StepUpRequired))
async def bind_phone_number(
    data: JSONBody[PhoneRequest],
    services: NamedDependency[Services],
    principal: NamedDependency[CitizenPrincipal],
    request: AnyRequest,
) -> PhoneView:
    """Keep the phone number that the provider vouches for; changing it needs a step-up."""
    phone = await services.sign_in_providers[data.provider].phone_of(data.proof())
    index = blind_index(services.ring, "phone", phone)
    async with services.db.begin() as session:
        citizen = await citizens.get(session, principal.citizen_id, for_update=True)
        if citizen.phone_index is not None and citizen.phone_index != index:
            await require_step_up(session, principal, request)
        citizen.phone_sealed = seal(
            services.ring,
            phone.encode(),
            table="people_citizen",
            column="phone",
            row_id=citizen.id,
        )
        citizen.phone_index = index
        actor = Actor("citizen", citizen.id)
        record(session, actor, "citizen.bind_phone_number", citizen.id, now=request.state.now)
    return PhoneView(mask_phone(phone))


@put(
    "/me/payment-pin",
    status_code=204,
    responses=refuses(PinWeak, PinRefused, PinLocked, PinNotSet, StepUpRequired),
)
async def set_payment_pin(
    data: JSONBody[PinRequest],
    services: NamedDependency[Services],
    principal: NamedDependency[CitizenPrincipal],
    request: AnyRequest,
) -> None:
    """Set the payment PIN; changing it needs the old one, or a step-up."""
    async with services.db.begin() as session:
        has_pin = (await citizens.get(session, principal.citizen_id)).pin_hash is not None
        if has_pin and data.old_pin is None:
            await require_step_up(session, principal, request)
    await payment_pins.set_pin(
        services.db,
        principal.citizen_id,
        data.pin,
        data.old_pin,
        had_pin=has_pin,
        pepper=services.ring.pin_pepper.reveal(),
        now=request.state.now,
    )


@post("/step-ups", responses=refuses(PinRefused, PinLocked, PinNotSet))
async def create_step_up(
    data: JSONBody[StepUpRequest],
    services: NamedDependency[Services],
    principal: NamedDependency[CitizenPrincipal],
    request: AnyRequest,
) -> StepUpView:
    """Prove again who is asking; good for five minutes in this session."""
    now = request.state.now
    await payment_pins.check(
        services.db,
        principal.citizen_id,
        data.pin,
        pepper=services.ring.pin_pepper.reveal(),
        now=now,
    )
    async with services.db.begin() as session:
        token = step_ups.open_step_up(
            session, principal.citizen_id, sid=principal.sid, way="pin", now=now
        )
    return StepUpView(token, int(step_ups.LIFE.total_seconds()))


@post(
    "/me/real-name",
    status_code=202,
    request_max_body_size=PICTURES_BYTES_MAX,
    opt={TAKES_FORM: True},
    exception_handlers={UnicodeError: from_form, LookupError: from_form},
    responses=refuses(AlreadyVerified),
)
async def submit_real_name(
    data: MultipartBody[RealNameSubmission],
    services: NamedDependency[Services],
    principal: NamedDependency[CitizenPrincipal],
    request: AnyRequest,
) -> RealNameView:
    """Hand in name, number and pictures; passed by rule, or an operator decides."""
    pictures: dict[PictureKind, bytes] = {
        "id_front": await data.id_front.read(),
        "id_back": await data.id_back.read(),
    }
    if data.selfie:
        pictures["selfie"] = await data.selfie.read()
    case = await real_names.submit(
        services.db,
        principal.citizen_id,
        Submission(data.name, data.id_number, pictures),
        ring=services.ring,
        now=request.state.now,
    )
    return RealNameView(case.state, case.reasons)


@get("/me/real-name")
async def show_real_name(
    services: NamedDependency[Services], principal: NamedDependency[CitizenPrincipal]
) -> RealNameState:
    """Show how far the identity check is."""
    async with services.db.begin() as session:
        return _state(await real_names.latest(session, principal.citizen_id))


def mask_phone(phone: str) -> str:
    """Return a phone number with its middle hidden."""
    return f"{phone[:3]}****{phone[-4:]}"


def _state(case: RealNameCase | None) -> RealNameState:
    if case is None:
        return RealNameState("none", None, None, [])
    return RealNameState(case.state, case.name_masked, case.number_masked, case.reasons)


router = Router(
    "",
    route_handlers=[
        show_me,
        bind_phone_number,
        set_payment_pin,
        create_step_up,
        submit_real_name,
        show_real_name,
    ],
    tags=["citizen: me"],
)
