"""No file names where packages come from, or a folder of one machine.

Installing is the machine's affair, mirrors included; a repository that names a host works only
where that host is reached. The names are put together here, so that this file holds none.
"""

import re

import pytest

from tests.house.sources import ROOT, name_of, text_files

HOSTS = (
    ("py", "pi", ".org"),
    ("python", "hosted", ".org"),
    ("registry.", "npm", "js"),
    ("registry.", "yarn", "pkg"),
    ("npm", "mirror", ".com"),
    ("deb.", "debian", ".org"),
    ("security.", "debian", ".org"),
    ("archive.", "ubuntu", ".com"),
    ("proxy.", "golang", ".org"),
    ("static.", "crates", ".io"),
    ("index.", "crates", ".io"),
    ("repo.", "anaconda", ".com"),
    ("mirrors.", "[a-z]+", "[.]"),
)
PACKAGE_HOST = re.compile("|".join("".join(parts).replace(".org", "[.]org") for parts in HOSTS))
HOME = re.compile("/(" + "|".join(("home", "Users")) + r")/\w|/" + "ro" + r"ot/\w")

FILES = text_files()


def _found(pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{name_of(path)}:{number}"
        for path in FILES
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if pattern.search(line)
    ]


def test_there_is_something_to_look_at() -> None:
    names = {name_of(path) for path in FILES}
    assert {"README.md", "Makefile", "requirements.lock", "pyproject.toml", ".ci/run"} <= names


def test_no_file_names_a_package_host() -> None:
    assert _found(PACKAGE_HOST) == []


def test_no_file_names_a_folder_of_one_machine() -> None:
    assert _found(HOME) == []
    assert _found(re.compile(re.escape(str(ROOT)) + r"\b")) == []


@pytest.mark.parametrize("parts", HOSTS[:6], ids=lambda parts: parts[1])
def test_the_rule_knows_a_host_when_it_sees_one(parts: tuple[str, ...]) -> None:
    assert PACKAGE_HOST.search("https://" + "".join(parts) + "/simple")
