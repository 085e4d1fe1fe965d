"""Numbers on identity cards (公民身份号码): read, checked by form, made, shown masked.

A number that passes here is well formed, which proves nothing about a person: whether it belongs
to the name beside it is for the authority's service or an operator to say.

Two layouts are known, both 18 characters ending in the same check character:

- citizens, and residents from 港澳台 with a residence permit: 6 region, 8 birth date, 3 sequence.
  GB 11643-1999; permits carry 81, 82 or 83 (国务院办公厅 2018, 港澳台居民居住证申领发放办法, §3).
- foreign permanent residents since 2023-12-01: 9, 2 province of first issue, 3 nationality
  (GB/T 2659, the numeric code of ISO 3166-1), 8 birth date, 3 sequence.
  GA 2102-2023 and 国家移民管理局, 新版外国人永久居留身份证机读信息规则. Their older numbers (three
  letters and twelve digits) are refused for their length.

What the check character catches (ISO 7064 MOD 11-2): every single wrong character, and every two
different characters that changed places, unless exactly ten places lie between them. It stands
for the first seventeen with one of eleven values, so a number made up at random still has one
chance in eleven.
"""

from dataclasses import dataclass, field
from datetime import date
from typing import Final, Literal

from identity.kernel import Said

Problem = Literal["length", "alphabet", "province", "nationality", "birth-date", "checksum"]
Sex = Literal["female", "male"]
Holder = Literal["citizen", "foreign-resident"]

SENTENCES: Final[dict[Problem, Said]] = {
    "length": Said(
        "身份证号码应为18位，请核对后重新填写。",
        "An ID number has 18 characters. Check it and enter it again.",
    ),
    "alphabet": Said(
        "身份证号码只能是数字，最后一位可以是X，请核对后重新填写。",
        "An ID number is made of digits; only the last may be X. Check it and enter it again.",
    ),
    "province": Said(
        "身份证号码开头的地区代码不存在，请核对后重新填写。",
        "The ID number starts with a region that does not exist. Check it and enter it again.",
    ),
    "nationality": Said(
        "永居证号码第4至6位的国籍代码不正确，请核对后重新填写。",
        "Digits 4 to 6 of the number are not a foreign nationality. Check it and enter it again.",
    ),
    "birth-date": Said(
        "身份证号码中的出生日期不正确，请核对后重新填写。",
        "The birth date in the ID number is not possible. Check it and enter it again.",
    ),
    "checksum": Said(
        "身份证号码有误，请逐位核对后重新填写。",
        "One or more digits of the ID number are wrong. Compare it with your card.",
    ),
}
"""For each problem, what to tell the person."""

LENGTH: Final = 18
EARLIEST_BIRTH_YEAR: Final = 1900

# GB/T 2260, first two digits. 83 is no region of that table but is what the permits of Taiwan
# residents carry; 71 stays, since the table has it.
PROVINCES: Final = frozenset(
    str(code)
    for first, last in (
        (11, 15),
        (21, 23),
        (31, 37),
        (41, 46),
        (50, 54),
        (61, 65),
        (71, 71),
        (81, 83),
    )
    for code in range(first, last + 1)
)

_DIGITS: Final = frozenset("0123456789")
_CHECK_CHARACTERS: Final = "10X98765432"
_WEIGHTS: Final = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_CHINA: Final = "156"
_NO_NATIONALITY: Final = "000"

# Two-character family names, so that a mask shows the whole family name and nothing of the rest.
_LONG_FAMILY_NAMES: Final = (
    "欧阳 太史 端木 上官 司马 东方 独孤 南宫 万俟 闻人 夏侯 诸葛 尉迟 公羊 赫连 澹台 皇甫 宗政"
    " 濮阳 公冶 太叔 申屠 公孙 慕容 仲孙 钟离 长孙 宇文 司徒 鲜于 司空 闾丘 令狐 百里 呼延 东郭"
    " 南门 西门 第五"
)
_FAMILY_NAMES_OF_TWO: Final = frozenset(_LONG_FAMILY_NAMES.split())


class BadIdNumber(ValueError):
    """The number cannot be an ID number; `problem` says why, `said` tells the person.

    The number itself is not kept: an exception ends in logs.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.problem: Final = problem
        self.said: Final = SENTENCES[problem]


@dataclass(frozen=True, slots=True)
class IdNumber:
    """A well-formed number and what can be read from it."""

    number: str = field(repr=False)
    """All 18 characters, a final x in upper case. Not in the repr, which ends in logs."""
    holder: Holder
    region_code: str
    """Six digits of GB/T 2260; for foreign residents the province of first issue and `0000`."""
    nationality_code: str | None
    """Three digits of GB/T 2659 for foreign residents, as of first issue; None for citizens."""
    birth_on: date = field(repr=False)
    sex: Sex
    age: int
    """Whole years at the day asked about: up by one on the birthday itself, and for those born
    on 29 February on 1 March of common years."""


def parse(number: str, today: date) -> IdNumber:
    """Return what the number says about its holder, with the age as of `today`.

    A final `x` may be in lower case and spaces may stand around; anything else, as full-width
    digits, is refused and not repaired. Keep `IdNumber.number`, which has one spelling.
    Rule: GB 11643-1999 and GA 2102-2023, see the module's docstring.

    Raises:
        BadIdNumber: with the first problem, in the order in which `Problem` lists them.
    """
    number = number.strip()
    number = number.upper() if number.isascii() else number
    _check_characters(number)
    is_foreign = number.startswith("9")
    province = number[1:3] if is_foreign else number[:2]
    if province not in PROVINCES:
        raise BadIdNumber("province")
    if is_foreign and number[3:6] in {_CHINA, _NO_NATIONALITY}:
        raise BadIdNumber("nationality")
    birth_on = _read_birth_date(number[6:14], today)
    if check_character(number[:17]) != number[17]:
        raise BadIdNumber("checksum")
    return IdNumber(
        number=number,
        holder="foreign-resident" if is_foreign else "citizen",
        region_code=f"{province}0000" if is_foreign else number[:6],
        nationality_code=number[3:6] if is_foreign else None,
        birth_on=birth_on,
        sex="male" if int(number[16]) % 2 else "female",
        age=age_on(birth_on, today),
    )


def check_character(first_17: str) -> str:
    """Return the 18th character for seventeen digits: `0` to `9` or `X`.

    Rule: GB 11643-1999, which takes it from ISO 7064 MOD 11-2: weights are 2^(18-place) mod 11.
    """
    total = sum(int(digit) * weight for digit, weight in zip(first_17, _WEIGHTS, strict=True))
    return _CHECK_CHARACTERS[total % 11]


def make(*, region_code: str, birth_on: date, sequence: int) -> str:
    """Return the number of a made-up holder, for specimens and tests.

    `region_code` is six digits (for a foreign resident: 9, province, nationality), `sequence`
    0–999, odd for men. Nothing is checked but the lengths: a test may want a bad one.
    """
    first_17 = f"{region_code}{birth_on:%Y%m%d}{sequence:03d}"
    return first_17 + check_character(first_17)


def age_on(birth_on: date, day: date) -> int:
    """Return the whole years between a birth and a day (周岁)."""
    is_before_birthday = (day.month, day.day) < (birth_on.month, birth_on.day)
    return day.year - birth_on.year - is_before_birthday


def mask_id_number(number: str) -> str:
    """Return the number with all but its first and last character hidden: `3****************X`.

    The middle is the birthday and the district, which with a name find a person; first and last
    are enough for somebody to recognize their own. Shorter texts are hidden whole.
    """
    if len(number) != LENGTH:
        return "*" * len(number)
    return number[0] + "*" * (LENGTH - 2) + number[-1]


def mask_name(name: str) -> str:
    """Return the name with only the family name shown: `张*`, `欧阳**`; a single character as `*`.

    Names that are not Chinese show their first character. Separators of long names (`·`, spaces)
    are hidden as well, since their places say much about a name.
    """
    name = name.strip()
    is_long = len(name) > 2 and name[:2] in _FAMILY_NAMES_OF_TWO  # noqa: PLR2004 - 欧阳 alone is 欧*.
    shown = min(2 if is_long else 1, len(name) - 1)
    return name[: max(shown, 0)] + "*" * (len(name) - max(shown, 0))


def _check_characters(number: str) -> None:
    if len(number) != LENGTH:
        raise BadIdNumber("length")
    # Not str.isdigit, which is true of ٣ and ３ as well.
    if not (_DIGITS.issuperset(number[:17]) and number[17] in _CHECK_CHARACTERS):
        raise BadIdNumber("alphabet")


def _read_birth_date(digits: str, today: date) -> date:
    try:
        birth_on = date(int(digits[:4]), int(digits[4:6]), int(digits[6:]))
    except ValueError:
        raise BadIdNumber("birth-date") from None
    if birth_on.year < EARLIEST_BIRTH_YEAR or birth_on > today:
        raise BadIdNumber("birth-date")
    return birth_on
