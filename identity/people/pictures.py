"""Pictures people send of their card and of themselves: checked, and made harmless.

Whatever comes in is bytes from a stranger. What goes on is a JPEG that this file wrote itself,
upright, in RGB, at most `OUTPUT_SIDE_MAX` long, without metadata or anything else that rode along
(places, thumbnails, further frames, an archive behind the last byte).

One upload goes `bytes → size → content → header → pixels → looks → Picture`. Each step is cheap
enough to be let loose on what the step before let through, and nothing is decoded before its
dimensions are known: docs, security A4, "upload bomb, EXIF, polyglot".

A look between the bad and the good threshold is a doubt, not a refusal: the picture is kept and a
person decides. All figures of looks were measured, see `_THRESHOLDS`.
"""

import asyncio
import math
import struct
import zlib
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from io import BytesIO
from itertools import accumulate, combinations, pairwise
from typing import Final, Literal, NamedTuple

from PIL import Image, ImageChops, ImageFilter, ImageStat
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from identity.kernel import Said

Kind = Literal["id_front", "id_back", "selfie"]
Doubt = Literal["dark", "bright", "flat", "blurred"]
Problem = Literal[
    "empty",
    "too-many-bytes",
    "format",
    "corrupt",
    "too-many-pixels",
    "too-small",
    "shape",
    Doubt,
    "same",
]

SENTENCES: Final[dict[Problem, Said]] = {
    "empty": Said("没有收到照片，请重新上传。", "No picture arrived. Send it again."),
    "too-many-bytes": Said(
        "照片文件超过8MB，请用普通模式重新拍摄。",
        "The file is larger than 8 MB. Take the picture again in the camera's normal mode.",
    ),
    "format": Said(
        "只支持JPG或PNG格式的照片，请重新拍摄或选择。",
        "Only JPEG and PNG pictures can be read. Take the picture again or choose another.",
    ),
    "corrupt": Said(
        "照片文件已损坏或不完整，请重新拍摄后上传。",
        "The file is damaged or incomplete. Take the picture again and send it.",
    ),
    "too-many-pixels": Said(
        "照片像素过高，请关闭高像素模式后重新拍摄。",
        "The picture has too many pixels. Switch off the high-resolution mode and take it again.",
    ),
    "too-small": Said(
        "照片太小，看不清内容，请靠近一些重新拍摄，不要使用缩略图。",
        "The picture is too small to read. Move closer and take it again; do not send a thumbnail.",
    ),
    "shape": Said(
        "照片过于狭长，或不像证件照片，请把证件横放、拍满画面后重试。",
        "The picture is too long or too square. Let the card fill the frame and take it again.",
    ),
    "dark": Said("照片太暗，请在光线充足处重新拍摄。", "Too dark. Take it again in more light."),
    "bright": Said("照片过亮，请避开强光和反光重拍。", "Too bright. Take it again without glare."),
    "flat": Said(
        "照片内容不清晰，几乎没有明暗变化，请对准后重新拍摄。",
        "Hardly anything can be made out in the picture. Clean the lens, aim, and take it again.",
    ),
    "blurred": Said(
        "照片模糊，请拿稳手机、对焦清楚后重新拍摄。",
        "The picture is blurred. Hold still, let the camera focus, and take it again.",
    ),
    "same": Said(
        "上传了重复的照片，请分别拍摄人像面、国徽面和本人照片。",
        "The same picture was sent twice. Take one of each side of the card and one of yourself.",
    ),
}
"""For each problem, what to tell the person and what they can do."""

BYTES_MAX: Final = 8 * 1024 * 1024
PIXELS_MAX: Final = 25_000_000
"""A phone's usual 12 or 24 megapixels pass, its 50-megapixel mode does not."""
SHORT_SIDE_MIN: Final = 300
LONG_SIDE_MIN: Final = 480
OUTPUT_SIDE_MAX: Final = 2000

# Long side by short side. A card is 85.6 × 54 mm, 1.59; a phone's frame around it 1.33 to 2.22.
_RATIO_MIN: Final[dict[Kind, float]] = {"id_front": 1.2, "id_back": 1.2, "selfie": 1.0}
_RATIO_MAX: Final = 2.3

# A progressive JPEG may hold thousands of scans, each 40 bytes to send and a pass over all pixels
# to decode, 20 ms. Cameras write ten at most, and some embed a second and a third picture.
_SCANS_MAX: Final = 50
_START_OF_SCAN: Final = b"\xff\xda"

_ORIENTATION: Final = 0x0112
_TURNS: Final[dict[int, Image.Transpose]] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# What Pillow and zlib raise for bytes that are not what they pretend to be, found by feeding them
# damaged files; Warning for where warnings are errors.
_UNREADABLE: Final = (
    OSError,
    SyntaxError,
    ValueError,
    ArithmeticError,
    LookupError,
    TypeError,
    EOFError,
    AttributeError,
    struct.error,
    zlib.error,
    Warning,
)


class BadPicture(ValueError):
    """The picture cannot be used; `problem` says why, `said` tells the person what to do."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.problem: Final = problem
        self.said: Final = SENTENCES[problem]


@dataclass(frozen=True, slots=True)
class Picture:
    """A clean picture."""

    kind: Kind
    jpeg: bytes = field(repr=False)
    """Written here: no metadata, one frame, RGB, upright."""
    width: int
    height: int
    sha256: bytes
    """Of `jpeg`."""
    doubts: tuple[str, ...]
    """Each a `Doubt`: looks that are neither good nor bad; with any, a person decides."""


class Looks(NamedTuple):
    """What is measured of a picture, in grey and at `_MEASURED_SIDE_MAX` pixels; more is better."""

    light: float
    """Grey that a tenth of the picture exceeds: paper, a wall, a face."""
    ink: float
    """Distance from white of the darkest hundredth: letters, hair."""
    contrast: float
    """Distance of the darkest and the lightest hundredth."""
    sharpness: float
    """Strength of fine edges by that of coarse ones, where the picture has most of them."""


# In the order of `Looks`. Measured 2026-11 on drawn cards (whole, and at half and four fifths of
# a noisy phone frame) and on photographs of people and things, all as JPEG: light, ink and
# contrast under gains of 0.05 to 1 with noise and offsets of 20 to 200; sharpness under Gaussian
# blur of 0 to 30 pixels with noise up to sigma 15. Clean cards: light from 236, ink from 165,
# contrast from 151, sharpness 0.82 to 1.18; photographs: sharpness 0.59 to 1.18.
_THRESHOLDS: Final[dict[Doubt, tuple[float, float]]] = {
    # A fifth and a third of full light on white paper.
    "dark": (50, 80),
    # Black ink washed out to grey 170 and 130.
    "bright": (85, 125),
    "flat": (40, 70),
    # Cards of 1000 pixels blurred by about 4 pixels (strokes of small characters run into each
    # other) and by 2. Noise up to sigma 8 lifts no such blur above the first; 15 does.
    "blurred": (0.45, 0.62),
}
"""Bad below the first, good from the second; between them in doubt."""
_MEASURED_SIDE_MAX: Final = 1000
_EDGE_RADII: Final = (1, 2, 4)
_TILES: Final = 8
_TILES_RICH, _TILES_POOR = 12, 16
_FAINT_EDGE: Final = 1.0
"""Coarse edges of fewer grey levels are noise: they count as blurred, whatever their ratio."""

_SIGNATURE_SIDE: Final = 16
# Of 256 bits. One picture saved again (quality 40, half size, brighter, dimmer, blurred, noisy,
# turned) differs in up to 32 of them, front and back of one card on one desk in 80 and more.
_SAME_BITS_MAX: Final = 40


def check(data: bytes, *, kind: Kind) -> Picture:
    """Return the picture in `data`, rewritten clean, or refuse it.

    Takes 0.1 to 1.5 s of CPU and 15 to 250 MB, most for PNG of the largest size: call it in a
    thread or a worker. Rule: docs, security A4; the figures are those of this module.

    Raises:
        BadPicture: with the first problem, in the order in which `Problem` lists them.
    """
    image = _open(data)
    _check_frame(image.size, kind)
    clean = _decode(image)
    doubts = _doubts(measure(clean))
    buffer = BytesIO()
    clean.save(buffer, "JPEG", quality=90)
    jpeg = buffer.getvalue()
    return Picture(
        kind=kind,
        jpeg=jpeg,
        width=clean.width,
        height=clean.height,
        sha256=sha256(jpeg).digest(),
        doubts=doubts,
    )


async def check_in_thread(data: bytes, *, kind: Kind) -> Picture:
    """Do as `check`, in a thread: decoding leaves the other requests their turn."""
    return await asyncio.to_thread(check, data, kind=kind)


def check_different(*pictures: Picture) -> None:
    """Refuse pictures of which two are one, also saved again, resized, turned or brightened.

    Two photographs of one side of a card are different pictures here; reading them tells.

    Raises:
        BadPicture: `same`.
    """
    signatures = [_signatures(picture) for picture in pictures]
    for first, second in combinations(signatures, 2):
        if any((first[0] ^ turned).bit_count() <= _SAME_BITS_MAX for turned in second):
            raise BadPicture("same")


def measure(image: Image.Image) -> Looks:
    """Return how light, contrasted and sharp an image is, for thresholds to judge."""
    grey = image.convert("L")
    grey.thumbnail((_MEASURED_SIDE_MAX, _MEASURED_SIDE_MAX), Image.Resampling.LANCZOS)
    histogram = grey.histogram()
    darkest, lightest = _percentile(histogram, 0.01), _percentile(histogram, 0.99)
    return Looks(
        light=_percentile(histogram, 0.9),
        ink=255 - darkest,
        contrast=lightest - darkest,
        sharpness=_sharpness(grey),
    )


def _open(data: bytes) -> ImageFile:
    """Return the picture with its header read and its pixels not."""
    if not data:
        raise BadPicture("empty")
    if len(data) > BYTES_MAX:
        raise BadPicture("too-many-bytes")
    # The two readers by name and not Image.open, which would let strangers' bytes reach all of
    # Pillow's forty, and warns of a bomb only after its own, larger, limit.
    reader: Callable[[BytesIO], ImageFile]
    if data.startswith(b"\xff\xd8\xff"):
        reader = JpegImageFile
    elif data.startswith(b"\x89PNG\r\n\x1a\n"):
        reader = PngImageFile
    else:
        raise BadPicture("format")
    try:
        image = reader(BytesIO(data))
    except _UNREADABLE:
        raise BadPicture("corrupt") from None
    if reader is JpegImageFile and data.count(_START_OF_SCAN) > _SCANS_MAX:
        raise BadPicture("corrupt")
    return image


def _check_frame(size: tuple[int, int], kind: Kind) -> None:
    short, long = sorted(size)
    if short * long > PIXELS_MAX:
        raise BadPicture("too-many-pixels")
    if short < SHORT_SIDE_MIN or long < LONG_SIDE_MIN:
        raise BadPicture("too-small")
    if not _RATIO_MIN[kind] <= long / short <= _RATIO_MAX:
        raise BadPicture("shape")


def _decode(image: ImageFile) -> Image.Image:
    """Return the first frame upright in RGB on white, at most `OUTPUT_SIDE_MAX` long."""
    try:
        # Lets the JPEG reader skip detail that would be thrown away below; others ignore it.
        image.draft("RGB", (OUTPUT_SIDE_MAX, OUTPUT_SIDE_MAX))
        image.load()
        pixels = _to_colors(image)
    except _UNREADABLE:
        raise BadPicture("corrupt") from None
    pixels.thumbnail((OUTPUT_SIDE_MAX, OUTPUT_SIDE_MAX), Image.Resampling.LANCZOS)
    turn = _TURNS.get(_orientation(image.info.get("exif", b"")))
    if turn is not None:
        pixels = pixels.transpose(turn)
    # A new image, since the comment, profile and whatnot of the old one would be written again.
    clean = Image.new("RGB", pixels.size, "white")
    clean.paste(pixels, mask=pixels.getchannel("A") if pixels.mode == "RGBA" else None)
    return clean


def _to_colors(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # Grey of 16 bits: Pillow's own conversion would not scale it but cut it off at 255.
        return image.point(lambda grey: grey * (1 / 257)).convert("L").convert("RGB")
    mode = "RGBA" if image.has_transparency_data else "RGB"
    return image if image.mode == mode else image.convert(mode)


def _orientation(exif: bytes) -> int:
    """Return how the camera was held, 1 to 8; 1 (upright) if it does not say so legibly.

    Read by hand, since a picture must not fail for its metadata. Rule: Exif 2.32, 4.6.4 A.
    """
    tiff = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(f"{order}4xI", tiff)
        (count,) = struct.unpack_from(f"{order}H", tiff, start)
        for entry in range(count):
            tag, value = struct.unpack_from(f"{order}H6xH", tiff, start + 2 + 12 * entry)
            if tag == _ORIENTATION:
                return int(value)
    except struct.error:
        return 1
    return 1


def _doubts(looks: Looks) -> tuple[Doubt, ...]:
    judged = list(zip(looks, _THRESHOLDS.items(), strict=True))
    for value, (doubt, (bad_below, _)) in judged:
        if value < bad_below:
            raise BadPicture(doubt)
    return tuple(doubt for value, (doubt, (_, good_from)) in judged if value < good_from)


def _percentile(histogram: list[int], share: float) -> int:
    return bisect_left(list(accumulate(histogram)), share * sum(histogram))


def _sharpness(grey: Image.Image) -> float:
    """Return the ratio of two bands of edges, fine by coarse, over the tiles rich in coarse ones.

    A ratio, so that neither dim light nor little text reads as blur; above what the poor tiles
    have of each band, since that is noise and everywhere.
    """
    levels = [grey.filter(ImageFilter.GaussianBlur(radius)) for radius in _EDGE_RADII]
    fine, coarse = (
        _tile_energies(ImageChops.difference(one, next_)) for one, next_ in pairwise(levels)
    )
    fine_noise, coarse_noise = sorted(fine)[_TILES_POOR], sorted(coarse)[_TILES_POOR]
    richest = sorted(zip(coarse, fine, strict=True), reverse=True)[:_TILES_RICH]
    fine_energy = sum(tile[1] - fine_noise for tile in richest)
    coarse_energy = sum(tile[0] - coarse_noise + _FAINT_EDGE**2 for tile in richest)
    return math.sqrt(max(0.0, fine_energy) / coarse_energy)


def _tile_energies(edges: Image.Image) -> list[float]:
    """Return the mean square of each tile, row by row."""
    columns = [edges.width * place // _TILES for place in range(_TILES + 1)]
    rows = [edges.height * place // _TILES for place in range(_TILES + 1)]
    return [
        ImageStat.Stat(edges.crop((left, top, right, bottom))).rms[0] ** 2
        for top, bottom in pairwise(rows)
        for left, right in pairwise(columns)
    ]


def _signatures(picture: Picture) -> list[int]:
    """Return a difference hash of the picture as it is and turned by each quarter."""
    image = JpegImageFile(BytesIO(picture.jpeg))
    image.draft("L", (_MEASURED_SIDE_MAX, _MEASURED_SIDE_MAX))
    grey = image.convert("L").resize((512, 512), Image.Resampling.BOX)
    grey = grey.filter(ImageFilter.GaussianBlur(2))
    turns = (grey, *(grey.transpose(turn) for turn in (_TURNS[3], _TURNS[6], _TURNS[8])))
    return [_difference_hash(turned) for turned in turns]


def _difference_hash(grey: Image.Image) -> int:
    side = _SIGNATURE_SIDE
    pixels = grey.resize((side + 1, side), Image.Resampling.BOX).tobytes()
    bits = 0
    for row in range(0, len(pixels), side + 1):
        for left, right in pairwise(pixels[row : row + side + 1]):
            bits = bits << 1 | (left > right)
    return bits
