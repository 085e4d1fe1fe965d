"""What an ID number's form guarantees, over made numbers and every small mistake in them."""

from contextlib import suppress
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from identity.people import id_numbers
from identity.people.id_numbers import BadIdNumber, parse

TODAY = date(2026, 11, 20)
ALPHABET = "0123456789X"

births = st.dates(date(1900, 1, 1), TODAY)
sequences = st.integers(0, 999)
provinces = st.sampled_from(sorted(id_numbers.PROVINCES))
citizen_regions = st.builds("{}{:04d}".format, provinces, st.integers(0, 9999))
nationalities = st.integers(1, 999).filter(lambda code: code != 156).map("{:03d}".format)
foreign_regions = st.builds("9{}{}".format, provinces, nationalities)


@st.composite
def numbers(draw: st.DrawFn) -> str:
    region_code = draw(st.one_of(citizen_regions, foreign_regions))
    return id_numbers.make(region_code=region_code, birth_on=draw(births), sequence=draw(sequences))


def problem_of(number: str, today: date = TODAY) -> str:
    with pytest.raises(BadIdNumber) as refused:
        parse(number, today)
    assert refused.value.said == id_numbers.SENTENCES[refused.value.problem]
    return refused.value.problem


@given(region_code=citizen_regions, birth_on=births, sequence=sequences)
def test_a_made_number_says_what_it_was_made_of(
    region_code: str, birth_on: date, sequence: int
) -> None:
    number = id_numbers.make(region_code=region_code, birth_on=birth_on, sequence=sequence)
    read = parse(number, TODAY)
    assert (read.number, read.holder, read.nationality_code) == (number, "citizen", None)
    assert (read.region_code, read.birth_on) == (region_code, birth_on)
    assert read.sex == ("male" if sequence % 2 else "female")
    birthdays = (date(TODAY.year - age, TODAY.month, TODAY.day) for age in range(127))
    assert read.age == sum(birth_on <= birthday for birthday in birthdays) - 1


@given(region_code=foreign_regions, birth_on=births, sequence=sequences)
def test_a_foreign_residents_number_has_a_layout_of_its_own(
    region_code: str, birth_on: date, sequence: int
) -> None:
    read = parse(
        id_numbers.make(region_code=region_code, birth_on=birth_on, sequence=sequence), TODAY
    )
    assert read.holder == "foreign-resident"
    assert read.region_code == f"{region_code[1:3]}0000"
    assert read.nationality_code == region_code[3:]
    assert read.birth_on == birth_on


@given(number=numbers(), place=st.integers(0, 17), character=st.sampled_from(ALPHABET))
def test_one_wrong_character_is_refused(number: str, place: int, character: str) -> None:
    changed = number[:place] + character + number[place + 1 :]
    if changed != number:
        problem_of(changed)


@given(number=numbers())
def test_two_characters_that_changed_places_are_refused(number: str) -> None:
    # Whatever lies between them, but for ten places: 2^10 is 1 modulo 11. See the next test.
    for left in range(18):
        for right in range(left + 1, 18):
            if number[left] != number[right] and right - left != 10:
                swapped = list(number)
                swapped[left], swapped[right] = swapped[right], swapped[left]
                problem_of("".join(swapped))


def test_the_check_character_is_blind_to_a_swap_over_ten_places() -> None:
    number = id_numbers.make(region_code="320211", birth_on=date(1990, 3, 11), sequence=7)
    swapped = number[:3] + number[13] + number[4:13] + number[3] + number[14:]
    assert swapped != number
    assert id_numbers.check_character(swapped[:17]) == number[17]


@given(text=st.text(max_size=24) | st.text("0123456789xX ", min_size=17, max_size=19))
def test_any_text_is_read_or_refused(text: str) -> None:
    # Nothing but BadIdNumber may come out, so nothing else is suppressed.
    with suppress(BadIdNumber):
        assert parse(text, TODAY).number == text.strip().upper()


@pytest.mark.parametrize(
    "number",
    [
        # GB 11643-1999 prints these two, of a woman of 1949 and a man of 1880.
        "11010519491231002X",
        "440524188001010014",
    ],
)
def test_the_standards_own_check_characters_hold(number: str) -> None:
    assert id_numbers.check_character(number[:17]) == number[17]


def test_a_small_x_and_spaces_around_are_accepted() -> None:
    read = parse(" 11010519491231002x　", TODAY)
    assert (read.number, read.sex, read.age) == ("11010519491231002X", "female", 76)


def test_a_foreign_number_of_2023_is_read() -> None:
    read = parse("932682198501010017", TODAY)
    assert (read.region_code, read.nationality_code) == ("320000", "682")
    assert (read.birth_on, read.sex) == (date(1985, 1, 1), "male")


@pytest.mark.parametrize(
    ("number", "problem"),
    [
        ("", "length"),
        ("11010519491231002", "length"),
        ("11010519491231002XX", "length"),
        ("110105491231002", "length"),
        ("USA320085010112", "length"),
        ("1101051949123100 X", "alphabet"),
        ("11010519491231002Y", "alphabet"),
        ("1101051949123100X2", "alphabet"),
        ("１１０１０５１９４９１２３１００２Ｘ", "alphabet"),
        ("٣٢٠٢١١١٩٩٠٠٣١١٠٠٧٠", "alphabet"),
        ("160105194912310020", "province"),
        ("010105194912310020", "province"),
        ("840105194912310020", "province"),
        ("990682198501010010", "province"),
        ("932156198501010010", "nationality"),
        ("932000198501010010", "nationality"),
        ("110105199002300020", "birth-date"),
        ("110105199013010020", "birth-date"),
        ("110105189912310020", "birth-date"),
        ("110105202611210020", "birth-date"),
        ("110105000001010020", "birth-date"),
        ("110105190002290020", "birth-date"),
        ("110105194912310020", "checksum"),
        ("440524188001010014", "birth-date"),
    ],
)
def test_each_problem_has_its_code(number: str, problem: str) -> None:
    assert problem_of(number) == problem


def test_a_child_born_today_is_of_age_zero_and_one_of_tomorrow_is_refused() -> None:
    born_today = id_numbers.make(region_code="320211", birth_on=TODAY, sequence=1)
    assert parse(born_today, TODAY).age == 0
    assert problem_of(born_today, TODAY - timedelta(days=1)) == "birth-date"


@pytest.mark.parametrize(
    ("birth_on", "day", "age"),
    [
        (date(2008, 11, 20), date(2026, 11, 19), 17),
        (date(2008, 11, 20), date(2026, 11, 20), 18),
        (date(2008, 2, 29), date(2026, 2, 28), 17),
        (date(2008, 2, 29), date(2026, 3, 1), 18),
        (date(2008, 2, 29), date(2028, 2, 29), 20),
    ],
)
def test_age_goes_up_on_the_birthday(birth_on: date, day: date, age: int) -> None:
    assert id_numbers.age_on(birth_on, day) == age


def test_the_number_is_neither_in_the_repr_nor_in_the_refusal() -> None:
    number = "11010519491231002X"
    read = repr(parse(number, TODAY))
    assert number not in read
    assert "1949" not in read
    with pytest.raises(BadIdNumber) as refused:
        parse(number[:17] + "1", TODAY)
    assert "19491231" not in f"{refused.value!r} {refused.value}"


@given(number=numbers())
def test_a_masked_number_shows_its_ends_only(number: str) -> None:
    assert id_numbers.mask_id_number(number) == f"{number[0]}{'*' * 16}{number[17]}"


@pytest.mark.parametrize(
    ("name", "masked"),
    [
        ("张三", "张*"),
        ("张无忌", "张**"),
        ("欧阳修", "欧阳*"),
        ("欧阳娜娜", "欧阳**"),
        ("欧阳", "欧*"),
        ("买买提·艾力", "买*****"),
        ("John Smith", "J*********"),
        (" 李四 ", "李*"),
        ("张", "*"),
        ("", ""),
    ],
)
def test_a_masked_name_shows_the_family_name_only(name: str, masked: str) -> None:
    assert id_numbers.mask_name(name) == masked


def test_a_mask_of_no_id_number_shows_nothing() -> None:
    assert id_numbers.mask_id_number("12345") == "*****"
