"""Pictures: a corpus of bad files, of odd but honest ones, and of poor photographs."""

import asyncio
import struct
import warnings
import zlib
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from io import BytesIO
from typing import Any
from zipfile import ZipFile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont, ImageStat, PngImagePlugin

from identity.people import pictures
from identity.people.pictures import SENTENCES, BadPicture, Kind, Picture, check

CANARY = b"canary-3202111990"


def card(text: str = "PEOPLE 3202", ratio: float = 1.58, long_side: int = 1000) -> Image.Image:
    """Draw something as a card: light paper, lines of print, a dark portrait."""
    image = Image.new("RGB", (1000, round(1000 / ratio)), (226, 232, 236))
    draw = ImageDraw.Draw(image)
    for line in range(7):
        draw.text((60, 40 + 78 * line), f"{text} {line}", (30, 30, 34), ImageFont.load_default(52))
    draw.rectangle((720, 90, 930, 380), (70, 50, 44))
    return image.resize((long_side, round(long_side / ratio)), Image.Resampling.LANCZOS)


def encoded(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def decoded(picture: Picture) -> Image.Image:
    return Image.open(BytesIO(picture.jpeg))


def difference(one: Image.Image, other: Image.Image) -> float:
    """Return the mean difference of two images in grey levels."""
    return ImageStat.Stat(ImageChops.difference(one.convert("L"), other.convert("L"))).mean[0]


def png(width: int, height: int, *chunks: bytes, depth: int = 8, color: int = 2) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(chunks) + chunk(b"IEND", b"")


def chunk(kind: bytes, body: bytes) -> bytes:
    crc = zlib.crc32(kind + body)
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", crc)


def zipped(name: str, body: bytes) -> bytes:
    buffer = BytesIO()
    with ZipFile(buffer, "w") as archive:
        archive.writestr(name, body)
    return buffer.getvalue()


def jpeg_of_many_scans() -> bytes:
    data = encoded(Image.new("L", (640, 480), 200), progressive=True)
    last_scan = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + last_scan * 1000 + data[-2:]


def problem_of(data: bytes, kind: Kind = "id_front") -> str:
    with pytest.raises(BadPicture) as refused:
        check(data, kind=kind)
    assert refused.value.said == SENTENCES[refused.value.problem]
    return refused.value.problem


GOOD = card()
JPEG = encoded(GOOD, quality=90)
PNG = encoded(GOOD, "PNG")
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="900" height="600"><script>x</script></svg>'

BAD_FILES: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "empty"),
    "one byte more than allowed": (JPEG + b"\0" * pictures.BYTES_MAX, "too-many-bytes"),
    "text": (b"not a picture", "format"),
    "zero bytes": (b"\0" * 4096, "format"),
    "svg": (SVG, "format"),
    "html": (b"<html><img src=x onerror=alert(1)></html>", "format"),
    "pdf": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "format"),
    "archive with a picture in it": (zipped("id.jpg", JPEG), "format"),
    "postscript, which Pillow would run a program for": (b"%!PS-Adobe-3.0 EPSF-3.0\n", "format"),
    "gif": (encoded(GOOD.convert("P"), "GIF"), "format"),
    "bmp": (encoded(GOOD, "BMP"), "format"),
    "tiff": (encoded(GOOD, "TIFF"), "format"),
    "ico": (encoded(GOOD, "ICO"), "format"),
    "jpeg behind one byte": (b"\n" + JPEG, "format"),
    "jpeg signature only": (b"\xff\xd8\xff", "corrupt"),
    "jpeg of start and end": (b"\xff\xd8\xff\xd9", "corrupt"),
    "jpeg signature before random text": (b"\xff\xd8\xff\xe0" + b"text " * 999, "corrupt"),
    "png signature only": (b"\x89PNG\r\n\x1a\n", "corrupt"),
    "png signature before a jpeg": (b"\x89PNG\r\n\x1a\n" + JPEG, "corrupt"),
    "half a jpeg": (JPEG[: len(JPEG) // 2], "corrupt"),
    "a jpeg's header": (JPEG[:600], "corrupt"),
    "half a png": (PNG[: len(PNG) // 2], "corrupt"),
    "png without pixels": (png(900, 600), "corrupt"),
    "png with garbage for pixels": (png(900, 600, chunk(b"IDAT", b"garbage")), "corrupt"),
    "png with a wrong checksum": (PNG[:29] + b"\0\0\0\0" + PNG[33:], "corrupt"),
    "png whose text unpacks to 20 MB": (
        png(900, 600, chunk(b"zTXt", b"a\0\0" + zlib.compress(b"\0" * 20_000_000))),
        "corrupt",
    ),
    "jpeg of a thousand scans": (jpeg_of_many_scans(), "corrupt"),
    "png header of 2.5 gigapixels": (png(50_000, 50_000), "too-many-pixels"),
    "png header of the largest size": (png(2**31 - 1, 2**31 - 1), "too-many-pixels"),
    "png bomb: 400 MB of one color in 400 kB": (
        png(20_000, 20_000, chunk(b"IDAT", zlib.compress(b"\0" * 60_000_000))),
        "too-many-pixels",
    ),
    "one pixel above the cap": (png(5_000, 5_001), "too-many-pixels"),
    "png of no width": (png(0, 600), "corrupt"),
    "one pixel": (encoded(Image.new("RGB", (1, 1))), "too-small"),
    "a thumbnail": (encoded(card(long_side=470)), "too-small"),
    "a strip": (encoded(Image.new("RGB", (3000, 310))), "shape"),
    "a square": (encoded(card(ratio=1.0)), "shape"),
    "all white": (encoded(Image.new("RGB", (900, 600), "white")), "bright"),
    "all black": (encoded(Image.new("RGB", (900, 600), "black")), "dark"),
    "all grey": (encoded(Image.new("RGB", (900, 600), "grey")), "flat"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_refused_with_its_problem(name: str) -> None:
    data, problem = BAD_FILES[name]
    assert problem_of(data) == problem


def test_every_problem_tells_the_person_what_to_do_in_both_languages() -> None:
    tried = {problem for _, problem in BAD_FILES.values()} | {"blurred", "same"}
    assert tried == set(SENTENCES)
    for said in SENTENCES.values():
        assert said.zh.endswith("。")
        assert said.en.endswith(".")


@settings(max_examples=150, deadline=None)
@given(
    seed=st.sampled_from([encoded(card(long_side=500)), encoded(card(long_side=500), "PNG")]),
    edits=st.lists(st.tuples(st.integers(0, 700), st.binary(max_size=6)), min_size=1, max_size=6),
    cut=st.none() | st.integers(0, 9000),
)
def test_a_damaged_file_never_raises_anything_else(
    seed: bytes, edits: list[tuple[int, bytes]], cut: int | None
) -> None:
    data = bytearray(seed)
    for place, put in edits:
        data[place : place + len(put)] = put
    with suppress(BadPicture):
        assert decoded(check(bytes(data[:cut]), kind="id_front")).mode == "RGB"


@pytest.mark.parametrize("data", [JPEG, PNG], ids=["jpeg", "png"])
def test_a_good_picture_comes_back_clean(data: bytes) -> None:
    picture = check(data, kind="id_front")
    clean = decoded(picture)
    assert (clean.format, clean.mode, clean.size) == ("JPEG", "RGB", GOOD.size)
    assert (picture.width, picture.height) == GOOD.size
    assert picture.sha256 == sha256(picture.jpeg).digest()
    assert picture.doubts == ()
    assert difference(clean, GOOD) < 2


def test_the_thread_returns_the_same_picture() -> None:
    in_thread = asyncio.run(pictures.check_in_thread(JPEG, kind="id_front"))
    assert in_thread == check(JPEG, kind="id_front")


def test_a_large_picture_is_made_smaller_and_keeps_its_proportions() -> None:
    picture = check(encoded(card(long_side=4200)), kind="id_front")
    assert picture.width == pictures.OUTPUT_SIDE_MAX
    assert picture.width / picture.height == pytest.approx(1.58, abs=0.01)


def with_metadata() -> dict[str, bytes]:
    """Return pictures in which the canary stands in every place metadata can."""
    exif = Image.Exif()
    exif[0x010E] = CANARY.decode()
    exif.get_ifd(0x8825)[0x1D] = CANARY.decode()
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", CANARY.decode())
    text.add_itxt("XML:com.adobe.xmp", CANARY.decode())
    extra: dict[str, Any] = {"exif": exif.tobytes(), "icc_profile": CANARY, "xmp": CANARY}
    return {
        "jpeg": encoded(GOOD, **extra, comment=CANARY),
        "png": encoded(GOOD, "PNG", exif=exif.tobytes(), icc_profile=CANARY, pnginfo=text),
        "jpeg with an archive behind": JPEG + zipped("run.sh", CANARY),
        "jpeg with html in a comment": encoded(GOOD, comment=b"<script>" + CANARY),
        "png with an archive behind": PNG + zipped("run.sh", CANARY),
        "jpeg with a second picture behind": JPEG + JPEG + CANARY,
    }


@pytest.mark.parametrize("name", with_metadata())
def test_nothing_rides_along(name: str) -> None:
    data = with_metadata()[name]
    assert CANARY in data or name == "png"
    picture = check(data, kind="id_front")
    clean = decoded(picture)
    assert CANARY not in picture.jpeg
    assert set(clean.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
    assert not clean.getexif()
    with pytest.raises(EOFError):
        clean.seek(1)


@pytest.mark.parametrize("kind", ["PNG", "MPO", "JPEG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_camera_gives_an_upright_picture(kind: str, orientation: int) -> None:
    # What the sensor saw is the upright picture under the inverse of the turn Exif asks for.
    inverse = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    turn = inverse.get(orientation)
    seen = GOOD if turn is None else GOOD.transpose(turn)
    clean = decoded(check(encoded(seen, kind, exif=exif.tobytes()), kind="id_front"))
    assert clean.size == GOOD.size
    assert difference(clean, GOOD) < 2


@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0MM\0*\0\0\0\x08\xff\xff",
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x63\0\0\0",
        b"garbage",
    ],
)
def test_illegible_orientation_is_upright(exif: bytes) -> None:
    with warnings.catch_warnings():
        # Pillow reports what it cannot read there; the picture is whole all the same.
        warnings.simplefilter("ignore")
        assert check(encoded(GOOD, exif=exif), kind="id_front").width == GOOD.width


def sixteen_bits(image: Image.Image) -> Image.Image:
    grey = image.convert("L")
    return Image.frombytes("I;16", grey.size, b"".join(bytes((0, v)) for v in grey.tobytes()))


def see_through(image: Image.Image) -> Image.Image:
    """Make the paper transparent over black, as a cut-out of a card would have it."""
    ink = image.convert("L").point(lambda grey: 255 if grey < 128 else 0)
    return Image.merge("RGBA", (*Image.new("RGB", image.size).split(), ink))


HONEST: dict[str, Callable[[], bytes]] = {
    "grey jpeg": lambda: encoded(GOOD.convert("L")),
    "cmyk jpeg": lambda: encoded(GOOD.convert("CMYK")),
    "progressive jpeg": lambda: encoded(GOOD, progressive=True),
    "grey png of 16 bits": lambda: encoded(sixteen_bits(GOOD), "PNG"),
    "palette png": lambda: encoded(GOOD.quantize(64), "PNG"),
    "palette png with a transparent color": lambda: encoded(
        GOOD.quantize(64), "PNG", transparency=63
    ),
    "grey png with alpha": lambda: encoded(GOOD.convert("LA"), "PNG"),
    "png with alpha": lambda: encoded(GOOD.convert("RGBA"), "PNG"),
    "black and white png": lambda: encoded(GOOD.convert("1", dither=Image.Dither.NONE), "PNG"),
    "cut-out png": lambda: encoded(see_through(GOOD), "PNG"),
    "animated png": lambda: encoded(
        GOOD, "PNG", save_all=True, append_images=[Image.new("RGB", GOOD.size)]
    ),
    "jpeg of two pictures": lambda: encoded(
        GOOD, "MPO", save_all=True, append_images=[Image.new("RGB", GOOD.size)]
    ),
}


@pytest.mark.parametrize("name", HONEST)
def test_an_unusual_encoding_gives_the_same_picture(name: str) -> None:
    picture = check(HONEST[name](), kind="id_front")
    assert decoded(picture).mode == "RGB"
    # Black on white differs from dark on light by 28, an inverted or empty picture by 180.
    assert difference(decoded(picture), GOOD) < 40
    assert picture.doubts == ()


def test_a_card_upright_in_the_frame_of_a_phone_is_accepted() -> None:
    frame = Image.new("RGB", (900, 1600), (120, 104, 90))
    frame.paste(card(long_side=800), (50, 500))
    assert check(encoded(frame), kind="id_back").doubts == ()


def test_a_selfie_may_be_square_and_a_card_may_not() -> None:
    square = encoded(card(ratio=1.0))
    assert check(square, kind="selfie").doubts == ()
    assert problem_of(square, "id_back") == "shape"


def blurred(radius: float) -> Image.Image:
    return GOOD.filter(ImageFilter.GaussianBlur(radius))


def dimmed(gain: float) -> Image.Image:
    return GOOD.point(lambda value: round(value * gain))


def washed_out(added: int) -> Image.Image:
    return GOOD.point(lambda value: min(255, value + added))


def fogged(share: float) -> Image.Image:
    return GOOD.point(lambda value: round(value * share + 150 * (1 - share)))


@pytest.mark.parametrize(
    ("image", "doubts"),
    [
        (dimmed(0.5), ()),
        (dimmed(0.34), ("dark",)),
        (dimmed(0.25), ("dark", "flat")),
        (washed_out(80), ()),
        (washed_out(130), ("bright",)),
        (fogged(0.5), ()),
        (fogged(0.25), ("flat",)),
        (blurred(1), ()),
        (blurred(2.8), ("blurred",)),
    ],
)
def test_a_poor_photograph_is_kept_in_doubt(image: Image.Image, doubts: tuple[str, ...]) -> None:
    assert check(encoded(image, quality=90), kind="id_front").doubts == doubts


@pytest.mark.parametrize(
    ("image", "problem"),
    [
        (dimmed(0.1), "dark"),
        (washed_out(190), "bright"),
        (fogged(0.1), "flat"),
        (blurred(6), "blurred"),
        (blurred(40), "blurred"),
    ],
)
def test_a_bad_photograph_is_refused(image: Image.Image, problem: str) -> None:
    assert problem_of(encoded(image, quality=90)) == problem


def grainy(radius: float, sigma: float) -> bytes:
    noise = Image.merge("RGB", [Image.effect_noise(GOOD.size, sigma)] * 3)
    return encoded(ImageChops.add(blurred(radius), noise, offset=-128), quality=90)


@pytest.mark.parametrize("sigma", [2, 4, 8])
@pytest.mark.parametrize("radius", [6, 10, 20])
def test_noise_does_not_pass_for_sharpness(radius: float, sigma: float) -> None:
    assert problem_of(grainy(radius, sigma)) == "blurred"


def test_a_noisy_but_sharp_picture_is_good() -> None:
    assert check(grainy(0, 10), kind="id_front").doubts == ()


def test_front_and_back_are_different_pictures() -> None:
    front = check(JPEG, kind="id_front")
    back = check(encoded(card("AUTHORITY 9", ratio=1.5)), kind="id_back")
    pictures.check_different(front, back)
    pictures.check_different(front)
    pictures.check_different()


@pytest.mark.parametrize(
    "again",
    [
        JPEG,
        encoded(GOOD, quality=35),
        encoded(GOOD.resize((600, 380))),
        encoded(dimmed(0.6)),
        encoded(blurred(1)),
        encoded(GOOD.rotate(180)),
        encoded(GOOD.transpose(Image.Transpose.ROTATE_90)),
        encoded(GOOD.transpose(Image.Transpose.ROTATE_270)),
    ],
)
def test_one_picture_sent_twice_is_refused(again: bytes) -> None:
    front = check(JPEG, kind="id_front")
    other = check(encoded(card("AUTHORITY 9", ratio=1.5)), kind="selfie")
    with pytest.raises(BadPicture, match="same"):
        pictures.check_different(front, other, check(again, kind="id_back"))
