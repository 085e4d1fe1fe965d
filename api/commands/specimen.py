"""`yuanka specimen DIR [--review]`: the papers of a made-up person, to try registration with.

Draws both sides of an identity card and a stand-in for a selfie, and writes `person.json` with
what a person would type. Everything says 样本/SPECIMEN and nothing of it can be anybody's: the
number is well formed, but its region, 320299, was never given to a district. The national emblem
is left out, since 国徽法 §13 keeps it for the real thing.

Without `--review` the pictures are good and the registration passes by rule; with it the front is
a little out of focus, which is a doubt and waits for an operator.
"""

import argparse
import json
import math
import secrets
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Final, Protocol, TypeVar

from PIL import Image, ImageDraw, ImageFilter, ImageFont

from identity.people import id_numbers

T = TypeVar("T")
Color = tuple[int, int, int]


class Randomness(Protocol):
    """The part of `random.Random` used here, which `secrets.SystemRandom` has too."""

    def choice(self, seq: Sequence[T], /) -> T:
        """Return one of `seq`."""
        ...

    def randrange(self, start: int, stop: int, /) -> int:
        """Return an integer of `start` to `stop` - 1."""
        ...


@dataclass(frozen=True, slots=True)
class Specimen:
    """A made-up person and the files that were written about them."""

    name: str
    id_number: str
    id_front: Path
    id_back: Path
    selfie: Path
    person: Path
    """`person.json`: name, id_number, files (names beside it)."""


class NoChineseFont(RuntimeError):
    """No font here can draw Chinese; a card in Latin letters would not match its person.json."""


class _Fonts:
    """The one typeface of all drawings, by size."""

    def __init__(self) -> None:
        self._file = _find_font()

    def of(self, size: int) -> ImageFont.FreeTypeFont:
        # The basic layout engine, so that the same text gives the same pixels on every machine.
        return ImageFont.truetype(self._file, size, layout_engine=ImageFont.Layout.BASIC)


@dataclass(frozen=True, slots=True)
class _Person:
    name: str
    number: id_numbers.IdNumber
    hair: Color
    shirt: Color


CARD: Final = (1265, 800)
SELFIE: Final = (900, 1200)

_REGION_CODE: Final = "320299"
_STREET: Final = "江苏省无锡市样本区园卡路"
_AUTHORITY: Final = "无锡市公安局样本分局"
_LONGEST_AGO: Final = date(1978, 1, 1)
_BIRTH_DAYS: Final = 16 * 365
# Valid for twenty years, as cards of people between 26 and 45 are (居民身份证法 §5).
_ISSUED_YEAR, _EXPIRES_YEAR = 2021, 2041

_FAMILY_NAMES: Final = "王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗梁宋郑谢韩唐冯于董萧"
_GIVEN_NAMES: Final = {
    "male": "伟强磊军洋勇杰涛明超刚平辉鹏华飞鑫波斌宇浩凯健俊帆帅旭宁龙林",
    "female": "芳娜敏静丽艳娟霞秀燕玲丹萍红玉梅莉兰婷雪慧莹倩颖洁云琳晶妍欣",
}

# File names only: Pillow looks for them where the system keeps its fonts.
_SYSTEM_FONTS: Final = (
    "NotoSansSC-Regular.otf",
    "NotoSansCJK-Regular.ttc",
    "NotoSansCJKsc-Regular.otf",
    "SourceHanSansSC-Regular.otf",
    "wqy-microhei.ttc",
    "wqy-zenhei.ttc",
    "PingFang.ttc",
    "msyh.ttc",
    "simhei.ttf",
)

_INK: Final = (24, 26, 30)
_LABEL: Final = (52, 104, 158)
_MARK: Final = (206, 44, 44)
_PAPER: Final = (232, 240, 243)
_DESK: Final = (112, 96, 82)
_SKIN: Final = (233, 197, 168)

# Between the two thresholds of sharpness in identity/people/pictures.py, in pixels.
_REVIEW_BLUR: Final = 2.6


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `specimen` to the commands of `yuanka`."""
    parser = subparsers.add_parser(
        "specimen", help="draw the papers of a made-up person, to try registration with"
    )
    parser.add_argument("directory", type=Path, metavar="DIR", help="where to; made if missing")
    parser.add_argument(
        "--review", action="store_true", help="a doubtful picture, which waits for an operator"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write one specimen and say where; 1 if it cannot be drawn or written."""
    directory: Path = args.directory
    try:
        specimen = make_specimen(directory, review=args.review, rng=secrets.SystemRandom())
    except (NoChineseFont, OSError) as problem:
        print(f"specimen: {problem}", file=sys.stderr)
        return 1
    print(f"{specimen.name} {specimen.id_number}: {specimen.person}")
    return 0


def make_specimen(directory: Path, *, review: bool, rng: Randomness) -> Specimen:
    """Draw a made-up adult's papers into `directory` and return what was written.

    The person is born 1978 to 1993. With `review` the front is doubtful (`blurred`), never bad.

    Raises:
        NoChineseFont: neither the font package nor a known font of the system is there.
        OSError: the directory cannot be made or written.
    """
    fonts = _Fonts()
    person = _make_person(rng)
    front = _draw_front(person, fonts, rng)
    specimen = Specimen(
        name=person.name,
        id_number=person.number.number,
        id_front=directory / "id_front.jpg",
        id_back=directory / "id_back.jpg",
        selfie=directory / "selfie.jpg",
        person=directory / "person.json",
    )
    directory.mkdir(parents=True, exist_ok=True)
    if review:
        front = front.filter(ImageFilter.GaussianBlur(_REVIEW_BLUR))
    front.save(specimen.id_front, "JPEG", quality=92)
    _draw_back(fonts, rng).save(specimen.id_back, "JPEG", quality=92)
    _draw_selfie(person, fonts).save(specimen.selfie, "JPEG", quality=92)
    told = {
        "name": specimen.name,
        "id_number": specimen.id_number,
        "files": {
            "id_front": specimen.id_front.name,
            "id_back": specimen.id_back.name,
            "selfie": specimen.selfie.name,
        },
    }
    specimen.person.write_text(json.dumps(told, ensure_ascii=False, indent=2) + "\n", "utf-8")
    return specimen


def _find_font() -> str:
    try:
        # Noto Sans SC under the SIL Open Font License 1.1, as data in a package.
        from pylopdf_fonts_zh_cn import sans_path
    except ImportError:
        return _find_system_font()
    return str(sans_path())


def _find_system_font() -> str:
    for name in _SYSTEM_FONTS:
        try:
            ImageFont.truetype(name, 20)
        except OSError:
            continue
        return name
    raise NoChineseFont("no Chinese font found; install the package pylopdf-fonts-zh-cn")


def _make_person(rng: Randomness) -> _Person:
    birth_on = date.fromordinal(_LONGEST_AGO.toordinal() + rng.randrange(0, _BIRTH_DAYS))
    number = id_numbers.make(
        region_code=_REGION_CODE, birth_on=birth_on, sequence=rng.randrange(1, 1000)
    )
    read = id_numbers.parse(number, today=date(_ISSUED_YEAR, 1, 1))
    given = "".join(rng.choice(_GIVEN_NAMES[read.sex]) for _ in range(rng.randrange(1, 3)))
    return _Person(
        name=rng.choice(_FAMILY_NAMES) + given,
        number=read,
        hair=(rng.randrange(16, 52), rng.randrange(14, 40), rng.randrange(12, 36)),
        shirt=(rng.randrange(30, 120), rng.randrange(50, 130), rng.randrange(80, 170)),
    )


def _draw_front(person: _Person, fonts: _Fonts, rng: Randomness) -> Image.Image:
    card = _draw_card(rng)
    draw = ImageDraw.Draw(card)
    _draw_mark(card, fonts, (560, 570), 58)
    born = person.number.birth_on
    sex = "男" if person.number.sex == "male" else "女"
    _write_field(draw, fonts, (100, 104), "姓名", person.name, size=52)
    _write_field(draw, fonts, (100, 198), "性别", sex)
    _write_field(draw, fonts, (390, 198), "民族", "汉")
    _write_field(draw, fonts, (100, 292), "出生", f"{born.year}")
    for center, text, color in (
        (352, "年", _LABEL),
        (424, f"{born.month}", _INK),
        (490, "月", _LABEL),
        (552, f"{born.day}", _INK),
        (614, "日", _LABEL),
    ):
        draw.text((center, 292), text, color, fonts.of(40 if color == _LABEL else 44), anchor="ma")
    house, block, door = rng.randrange(1, 300), rng.randrange(1, 30), rng.randrange(101, 2000)
    _write_field(draw, fonts, (100, 386), "住址", _STREET)
    draw.text((226, 450), f"{house}号样本花园{block}幢{door}室", _INK, fonts.of(44))
    _write_field(draw, fonts, (100, 660), "公民身份号码", "")
    for place, character in enumerate(person.number.number):
        draw.text((410 + 41 * place, 682), character, _INK, fonts.of(58), anchor="mm")
    card.paste(_draw_portrait(person, (330, 410)), (842, 128))
    _write_banner(draw, fonts)
    return card


def _draw_back(fonts: _Fonts, rng: Randomness) -> Image.Image:
    card = _draw_card(rng)
    draw = ImageDraw.Draw(card)
    _draw_mark(card, fonts, (740, 380), 96)
    draw.ellipse((96, 120, 296, 320), outline=_MARK, width=7)
    draw.text((196, 220), "样本", _MARK, fonts.of(64), anchor="mm")
    draw.text((740, 160), "中华人民共和国", _INK, fonts.of(66), anchor="mm")
    draw.text((740, 274), "居 民 身 份 证", _INK, fonts.of(88), anchor="mm")
    day = f"{rng.randrange(1, 13):02d}.{rng.randrange(1, 29):02d}"
    _write_field(draw, fonts, (240, 560), "签发机关", _AUTHORITY, gap=36)
    term = f"{_ISSUED_YEAR}.{day}-{_EXPIRES_YEAR}.{day}"
    _write_field(draw, fonts, (240, 648), "有效期限", term, gap=36)
    _write_banner(draw, fonts)
    return card


def _draw_selfie(person: _Person, fonts: _Fonts) -> Image.Image:
    selfie = _draw_portrait(person, SELFIE, wall=(196, 202, 206))
    draw = ImageDraw.Draw(selfie)
    draw.text((450, 1120), "样本 SPECIMEN", (255, 255, 255), fonts.of(64), anchor="mm")
    return selfie


def _draw_card(rng: Randomness) -> Image.Image:
    """Return an empty card on a desk, with the fine waves that such cards carry."""
    width, height = CARD
    desk = Image.new("RGB", CARD, _DESK)
    paper = Image.new("RGB", CARD, _PAPER)
    draw = ImageDraw.Draw(paper)
    phase = rng.randrange(0, 360)
    for line in range(-4, height // 11 + 4):
        points = [
            (x, line * 11 + 26 * math.sin(math.radians(x * 0.55 + line * 7 + phase)))
            for x in range(0, width + 8, 8)
        ]
        draw.line(points, (206, 222, 230) if line % 2 else (226, 216, 222), width=2)
    shape = Image.new("L", CARD, 0)
    ImageDraw.Draw(shape).rounded_rectangle((28, 16, width - 29, height - 17), 44, fill=255)
    desk.paste(paper, mask=shape)
    return desk


def _draw_mark(card: Image.Image, fonts: _Fonts, center: tuple[int, int], size: int) -> None:
    """Write SPECIMEN across the card, faint enough to read what stands on it."""
    mark = Image.new("L", card.size, 0)
    draw = ImageDraw.Draw(mark)
    draw.text(center, "样本 SPECIMEN", 64, fonts.of(size), anchor="mm")
    card.paste(_MARK, mask=mark.rotate(7, Image.Resampling.BICUBIC, center=center))


def _write_banner(draw: ImageDraw.ImageDraw, fonts: _Fonts) -> None:
    text = "样本 SPECIMEN · 非真实证件"
    draw.text((CARD[0] // 2, 52), text, _MARK, fonts.of(34), anchor="mm")


def _write_field(
    draw: ImageDraw.ImageDraw,
    fonts: _Fonts,
    place: tuple[int, int],
    label: str,
    value: str,
    *,
    size: int = 44,
    gap: int = 46,
) -> None:
    """Write a label and its value on one line; `gap` pixels lie between them."""
    left, top = place
    draw.text((left, top + (size - 40) // 2), label, _LABEL, fonts.of(40))
    after = left + round(fonts.of(40).getlength(label))
    draw.text((after + gap, top), value, _INK, fonts.of(size))


def _draw_portrait(
    person: _Person, size: tuple[int, int], wall: Color = (250, 250, 250)
) -> Image.Image:
    """Return a drawn head and shoulders, the same for the card and the selfie of one person."""
    # Drawn four times as large and shrunk, since Pillow draws shapes without smooth edges.
    big = Image.new("RGB", (1320, 1640), wall)
    draw = ImageDraw.Draw(big)
    if person.number.sex == "female":
        draw.rounded_rectangle((330, 300, 990, 1180), 300, fill=person.hair)
    draw.ellipse((120, 1130, 1200, 2200), fill=person.shirt)
    draw.polygon([(500, 1140), (820, 1140), (660, 1400)], fill=(244, 244, 240))
    draw.rounded_rectangle((540, 960, 780, 1220), 90, fill=(216, 178, 150))
    draw.ellipse((366, 286, 954, 800), fill=person.hair)
    draw.ellipse((380, 360, 940, 1080), fill=_SKIN)
    draw.pieslice((360, 290, 960, 830), 190, 350, fill=person.hair)
    for left in (490, 720):
        draw.line((left, 640, left + 110, 630), fill=person.hair, width=22)
        draw.ellipse((left + 5, 670, left + 105, 722), fill=(252, 252, 252))
        draw.ellipse((left + 32, 672, left + 78, 720), fill=(40, 28, 22))
    draw.line((660, 700, 646, 820, 690, 826), fill=(196, 150, 122), width=14, joint="curve")
    draw.arc((560, 800, 760, 950), 25, 155, fill=(176, 82, 78), width=20)
    scale = max(size[0] / big.width, size[1] / big.height)
    fitted = big.resize(
        (math.ceil(big.width * scale), math.ceil(big.height * scale)), Image.Resampling.LANCZOS
    )
    left = (fitted.width - size[0]) // 2
    return fitted.crop((left, 0, left + size[0], size[1]))
