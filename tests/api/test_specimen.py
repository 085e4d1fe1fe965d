"""Specimens: what a newcomer's first registration is made with."""

import argparse
import json
import secrets
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import TypeVar

import pytest
from PIL import Image, ImageFont

from api.commands import specimen
from api.commands.specimen import NoChineseFont, Specimen, make_specimen
from identity.people import id_numbers, pictures

TODAY = date(2026, 11, 20)
T = TypeVar("T")


class Counting:
    """Randomness that is none: counts on from a start, so that a failing specimen comes again."""

    def __init__(self, start: int) -> None:
        self.state = start

    def randrange(self, start: int, stop: int, /) -> int:
        self.state = (self.state * 6364136223846793005 + 1442695040888963407) % 2**64
        return start + (self.state >> 33) % (stop - start)

    def choice(self, seq: Sequence[T], /) -> T:
        return seq[self.randrange(0, len(seq))]


def check_all(made: Specimen) -> list[pictures.Picture]:
    return [
        pictures.check(made.id_front.read_bytes(), kind="id_front"),
        pictures.check(made.id_back.read_bytes(), kind="id_back"),
        pictures.check(made.selfie.read_bytes(), kind="selfie"),
    ]


@pytest.mark.parametrize("start", range(4))
def test_a_specimen_passes_every_check(tmp_path: Path, start: int) -> None:
    made = make_specimen(tmp_path, review=False, rng=Counting(start))
    checked = check_all(made)
    pictures.check_different(*checked)
    assert [picture.doubts for picture in checked] == [(), (), ()]
    assert 18 <= id_numbers.parse(made.id_number, TODAY).age <= 120


@pytest.mark.parametrize("start", range(4))
def test_a_specimen_for_review_is_in_doubt_and_not_refused(tmp_path: Path, start: int) -> None:
    made = make_specimen(tmp_path, review=True, rng=Counting(start))
    checked = check_all(made)
    pictures.check_different(*checked)
    assert [picture.doubts for picture in checked] == [("blurred",), (), ()]


def test_person_json_names_the_files_beside_it(tmp_path: Path) -> None:
    made = make_specimen(tmp_path / "new" / "folder", review=False, rng=secrets.SystemRandom())
    told = json.loads(made.person.read_text("utf-8"))
    assert set(told) == {"name", "id_number", "files"}
    assert (told["name"], told["id_number"]) == (made.name, made.id_number)
    assert set(told["files"]) == {"id_front", "id_back", "selfie"}
    for file in told["files"].values():
        assert (made.person.parent / file).is_file()


def test_people_differ_and_are_nobodys(tmp_path: Path) -> None:
    rng = secrets.SystemRandom()
    made = [make_specimen(tmp_path / str(each), review=False, rng=rng) for each in range(5)]
    assert len({one.id_number for one in made}) == len(made)
    # 320299 was never given to a district, so no number of a living person starts with it.
    assert all(one.id_number.startswith("320299") for one in made)
    assert all(2 <= len(one.name) <= 3 for one in made)


def test_every_character_that_may_be_drawn_is_in_the_font() -> None:
    font = ImageFont.truetype(specimen._find_font(), 40)
    missing = bytes(font.getmask("\U0010ffff"))
    words = "姓名性别民族出生年月日住址公民身份号码签发机关有效期限样本"
    given = "".join(specimen._GIVEN_NAMES.values())
    for character in words + specimen._FAMILY_NAMES + given + specimen._STREET:
        assert bytes(font.getmask(character)) != missing, character


def test_the_command_writes_and_says_where(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = argparse.ArgumentParser()
    specimen.register(parser.add_subparsers())
    args = parser.parse_args(["specimen", str(tmp_path), "--review"])
    assert args.run(args) == 0
    assert str(tmp_path / "person.json") in capsys.readouterr().out
    with Image.open(tmp_path / "id_front.jpg") as front:
        assert front.size == specimen.CARD


def test_a_place_that_cannot_be_written_is_said_not_raised(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.touch()
    assert specimen.run(argparse.Namespace(directory=file, review=False)) == 1
    assert "specimen:" in capsys.readouterr().err


def test_without_a_chinese_font_nothing_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(specimen, "_SYSTEM_FONTS", ("no-such-font.ttf",))
    with pytest.raises(NoChineseFont, match="pylopdf-fonts-zh-cn"):
        specimen._find_system_font()
