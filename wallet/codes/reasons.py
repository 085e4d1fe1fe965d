"""The answers a code can get (原因码), in one table that every acceptor and every screen shares.

The numbers are fixed by the code format, section 5; 0 accepts, everything else refuses, refers or
asks for one step more. A member carries what the screen says and what the person can do next, in
Chinese and in English, so that a number without its sentences cannot be written down.
"""

from enum import IntEnum
from typing import NamedTuple, Self


class Sentence(NamedTuple):
    """What one screen shows in one language."""

    says: str
    """The answer itself."""
    next: str
    """What the person standing there can do now."""


class Reason(IntEnum):
    """Why a code was accepted or not."""

    zh: Sentence
    en: Sentence

    def __new__(cls, number: int, zh: tuple[str, str], en: tuple[str, str]) -> Self:
        """Make the member of this number with its two pairs of sentences."""
        reason = int.__new__(cls, number)
        reason._value_ = number
        reason.zh = Sentence(*zh)
        reason.en = Sentence(*en)
        return reason

    @classmethod
    def of(cls, number: int) -> "Reason":
        """Return the reason of a number that was stored as one."""
        return _BY_NUMBER[number]

    @property
    def is_security_event(self) -> bool:
        """Somebody may be forging: to be logged and counted as such (code format, section 5)."""
        return self in _SECURITY_EVENTS

    OK = (0, ("验证通过。", "请通行。"), ("Accepted.", "Please go ahead."))

    MALFORMED = (
        101,
        ("无法识别此码。", "请在园卡小程序中刷新二维码后重试。"),
        ("This code cannot be read.", "Refresh it in the Yuanka mini-program and try again."),
    )
    UNSUPPORTED_VERSION = (
        102,
        ("此码的版本不受支持。", "请更新小程序，或请工作人员更新设备。"),
        ("This code's version is not supported.", "Update the mini-program, or ask the staff."),
    )
    FOREIGN_CODE = (
        103,
        ("这是微信或支付宝的付款码，不是园卡码。", "请打开园卡小程序出示园卡码。"),
        ("This is a WeChat or Alipay pay code.", "Open the Yuanka mini-program, show its code."),
    )

    UNKNOWN_ISSUER = (
        201,
        ("此处不受理该城市的园卡。", "请向工作人员咨询受理城市。"),
        ("Cards of this city are not accepted here.", "Ask the staff which cities are."),
    )
    UNKNOWN_KEY = (
        202,
        ("此码的签发密钥未知或已停用。", "请联网打开小程序，刷新二维码。"),
        ("The key behind this code is unknown or retired.", "Go online and refresh the code."),
    )
    SUITE_MISMATCH = (
        203,
        ("此码的算法与签发方不符。", "请联网刷新二维码，仍不行请找工作人员。"),
        ("The code's algorithm is not its issuer's.", "Refresh it online, or ask the staff."),
    )
    BAD_SIGNATURE = (
        204,
        ("此码的签名无效。", "请使用本人小程序中的二维码，或找工作人员。"),
        ("The code's signature is not valid.", "Use the code of your own phone, or ask the staff."),
    )
    BAD_PROOF = (
        205,
        ("此码的动态凭据无效。", "请刷新二维码，仍不行请重新绑定手机。"),
        ("The code's proof is not valid.", "Refresh it; if that fails bind your phone again."),
    )
    BAD_TAG = (
        206,
        ("此码的设备校验无效。", "请重新绑定手机后再试。"),
        ("The code is not from the bound phone.", "Bind your phone again and retry."),
    )
    TEST_CODE = (
        207,
        ("这是测试码，此处不受理。", "请出示正式的园卡码。"),
        ("This is a test code.", "Show the code of a real card."),
    )
    KEY_NOT_FOR_TYPE = (
        208,
        ("签发密钥不能用于此类码。", "请出示手机上的动态码，或找工作人员。"),
        ("The key may not sign codes of this type.", "Show your phone's code, or ask the staff."),
    )
    TRUST_STALE = (
        209,
        ("本设备的信任名单已过期。", "请换一台设备，或请工作人员将本设备联网。"),
        ("This device's trust list is too old.", "Use another device; staff: connect this one."),
    )
    NOT_IN_ISSUANCE_LOG = (
        210,
        ("签发记录中没有此码。", "请联网刷新二维码，或找工作人员。"),
        ("This code was never issued.", "Refresh it online, or ask the staff."),
    )

    NOT_YET_VALID = (
        301,
        ("此码尚未生效。", "请校准手机时间，刷新后重试。"),
        ("This code is not valid yet.", "Set your phone's clock, then refresh the code."),
    )
    EXPIRED = (
        302,
        ("此码已过期。", "请联网打开小程序，刷新二维码。"),
        ("This code has expired.", "Go online and refresh the code."),
    )
    STALE_CODE = (
        303,
        ("此码已失效，截图不能使用。", "请出示实时二维码；如手机时间偏慢请校准。"),
        ("This code is too old; pictures do not work.", "Show it live; check the phone's clock."),
    )
    FUTURE_CODE = (
        304,
        ("手机时间偏快。", "请将手机设为自动校时，刷新后重试。"),
        ("The phone's clock is fast.", "Set the time automatically and refresh the code."),
    )
    REPLAYED = (
        305,
        ("此码已使用过。", "请等待二维码刷新后再出示。"),
        ("This code was used already.", "Wait for the next code and show that."),
    )
    TERMINAL_CLOCK = (
        306,
        ("本设备的时间不可靠。", "请换一台设备，或请工作人员校时。"),
        ("This device's clock cannot be trusted.", "Use another device; staff: set its clock."),
    )

    REVOKED = (
        401,
        ("此卡或此手机的码已停用。", "请打开小程序查看卡状态，或到服务点办理。"),
        ("This card or phone has been stopped.", "See the card in the mini-program, or a counter."),
    )
    LOST = (
        402,
        ("此卡已挂失。", "如已找回请在小程序中解除挂失，否则请补卡。"),
        ("This card was reported lost.", "Found it? Take the report back; else order a new one."),
    )
    FROZEN = (
        403,
        ("此卡已冻结。", "请联系客服或到服务点办理。"),
        ("This card is frozen.", "Call the service line or visit a counter."),
    )
    CLOSED = (
        404,
        ("此卡已注销。", "请在小程序中重新申请园卡。"),
        ("This card is closed.", "Apply for a card in the mini-program."),
    )
    PHONE_REPLACED = (
        405,
        ("此卡已绑定到另一部手机。", "请用新手机出示；若非本人操作请立即挂失。"),
        ("This card moved to another phone.", "Use that phone; not you? Report the card lost."),
    )
    DENYLIST_STALE = (
        406,
        ("本设备的拒绝名单已过期。", "请换一台设备，或请工作人员处理。"),
        ("This device's deny list is too old.", "Use another device, or ask the staff."),
    )

    NOT_ENTITLED = (
        501,
        ("此卡没有入园权益。", "请在小程序中购买年票，或购票入园。"),
        ("This card holds no pass for entry.", "Buy a pass in the mini-program, or a ticket."),
    )
    WRONG_PARK = (
        502,
        ("权益不包含本园区。", "请在小程序中查看适用园区。"),
        ("The pass does not cover this park.", "See the parks it covers in the mini-program."),
    )
    PASS_INACTIVE = (
        503,
        ("年票未生效、已过期或已暂停。", "请在小程序中查看年票状态。"),
        ("The pass is not active.", "See its dates and state in the mini-program."),
    )
    DAILY_LIMIT = (
        504,
        ("今日入园次数已用完。", "请明日再来，或购票入园。"),
        ("Today's entries are used up.", "Come again tomorrow, or buy a ticket."),
    )
    TOTAL_LIMIT = (
        505,
        ("入园总次数已用完。", "请续购年票，或购票入园。"),
        ("All entries of this pass are used up.", "Renew the pass, or buy a ticket."),
    )
    CLOSED_NOW = (
        506,
        ("园区当前未开放。", "请在开放时间内再来。"),
        ("The park is closed now.", "Come again during opening hours."),
    )
    FULL = (
        507,
        ("园内人数已达上限。", "请稍候，有人离园后再试。"),
        ("The park is full.", "Please wait until others have left."),
    )
    RESERVATION_NEEDED = (
        508,
        ("今日入园需要预约。", "请在小程序中预约时段。"),
        ("A reservation is needed today.", "Reserve a slot in the mini-program."),
    )
    WRONG_TIME = (
        509,
        ("不在预约或可用时段内。", "请按预约时段入园，或改约。"),
        ("This is not your time slot.", "Come at the reserved time, or change it."),
    )
    BLACKOUT_DAY = (
        510,
        ("今日年票不可用。", "请另选日期，或购票入园。"),
        ("The pass is not valid today.", "Choose another day, or buy a ticket."),
    )
    PASSBACK = (
        511,
        ("此卡已在园内。", "如未入园请找工作人员。"),
        ("This card is inside already.", "If you are not, ask the staff."),
    )

    INSUFFICIENT = (
        601,
        ("余额不足。", "请充值后再付，或换一种方式支付。"),
        ("The balance is too low.", "Recharge the card, or pay another way."),
    )
    LIMIT_SINGLE = (
        602,
        ("超过单笔限额。", "请换一种方式支付。"),
        ("Over the limit for one payment.", "Pay another way."),
    )
    LIMIT_DAY = (
        603,
        ("超过当日限额。", "请明日再付，或换一种方式支付。"),
        ("Over today's limit.", "Pay tomorrow, or another way."),
    )
    OFFLINE_CAP = (
        604,
        ("超过离线支付额度。", "请等设备联网后再付，或换一种方式支付。"),
        ("Over the limit for offline payment.", "Wait until the till is online, or pay otherwise."),
    )
    ONLINE_REQUIRED = (
        605,
        ("此笔交易须联网。", "请等设备联网后重试。"),
        ("This needs a connection.", "Try again when the device is online."),
    )
    MERCHANT_BLOCKED = (
        606,
        ("该商户暂不能收款。", "请换一种方式支付。"),
        ("This merchant cannot take payments now.", "Pay another way."),
    )
    CARD_CEILING = (
        608,
        ("超过此卡的余额上限。", "请减少金额后重试。"),
        ("Over the most this card may hold.", "Try a smaller amount."),
    )

    NEEDS_PIN = (
        701,
        ("需要支付密码。", "请输入支付密码。"),
        ("A payment PIN is needed.", "Enter your PIN."),
    )
    NEEDS_FACE_OR_STAFF = (
        702,
        ("需要核对本人。", "请看镜头，或请工作人员核对。"),
        ("We must see that it is you.", "Look at the camera, or ask the staff."),
    )
    FACE_NO_MATCH = (
        703,
        ("人脸与持卡人不符。", "请重试，或请工作人员核对证件。"),
        ("The face does not match the holder.", "Try again, or show the staff your ID."),
    )
    STAFF_PHOTO = (
        704,
        ("请工作人员比对照片。", "请稍候，由工作人员核对。"),
        ("The staff must compare the photo.", "Please wait for the staff."),
    )
    PIN_WRONG = (
        705,
        ("支付密码错误。", "请重新输入。"),
        ("The PIN is wrong.", "Enter it again."),
    )
    PIN_LOCKED = (
        706,
        ("支付密码已锁定。", "请在小程序中重置支付密码。"),
        ("The PIN is locked.", "Reset it in the mini-program."),
    )

    ISSUER_TIMEOUT = (
        801,
        ("发卡城市未及时应答。", "请稍后重试，或找工作人员。"),
        ("The card's city did not answer in time.", "Try again shortly, or ask the staff."),
    )
    ISSUER_DECLINED = (
        802,
        ("发卡城市拒绝了此次请求。", "请联系发卡城市的客服。"),
        ("The card's city declined.", "Ask that city's service line."),
    )
    NO_AGREEMENT = (
        803,
        ("与发卡城市没有此项互通。", "请换一种方式入园或支付。"),
        ("No agreement with the card's city for this.", "Enter or pay another way."),
    )
    SYSTEM = (
        901,
        ("系统繁忙。", "请稍后重试，或找工作人员。"),
        ("Something went wrong on our side.", "Try again shortly, or ask the staff."),
    )


_SECURITY_EVENTS = frozenset(
    {
        Reason.SUITE_MISMATCH,
        Reason.BAD_SIGNATURE,
        Reason.BAD_PROOF,
        Reason.BAD_TAG,
        Reason.NOT_IN_ISSUANCE_LOG,
    }
)

_BY_NUMBER = {int(reason): reason for reason in Reason}


class Refused(Exception):
    """A code got a "no"; `facts` are what else may be told, e.g. which foreign wallet it is of."""

    def __init__(self, reason: Reason, **facts: str) -> None:
        super().__init__(f"{reason.value} {reason.name}")
        self.reason = reason
        self.facts = facts
