"""What is installed is what was looked at: pinned, hashed, and from nowhere in particular."""

import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.house.sources import ROOT

LOCKS = ("requirements.lock", "requirements-dev.lock")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def _blocks(lock: str) -> dict[str, str]:
    """Return each package of a lock file with the text that belongs to it."""
    text = re.sub(r"^ *#.*$", "", (ROOT / lock).read_text(), flags=re.MULTILINE)
    blocks = re.split(r"^(?=\S)", text, flags=re.MULTILINE)
    return {canonicalize_name(re.split(r"[=\[ ]", one)[0]): one for one in blocks if one.strip()}


@pytest.mark.parametrize("lock", LOCKS)
def test_every_package_is_pinned_with_its_hashes(lock: str) -> None:
    blocks = _blocks(lock)
    assert len(blocks) > 50
    loose = [
        name
        for name, text in blocks.items()
        if not re.match(r"[A-Za-z0-9._-]+(\[[^]]+\])?==[^ ;\\]+", text)
        or not re.search(r"--hash=sha256:[0-9a-f]{64}\b", text)
    ]
    assert loose == []


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_file_names_no_index(lock: str) -> None:
    text = (ROOT / lock).read_text()
    assert re.findall(r"://|--index|--extra-index|--find-links|--trusted-host| @ ", text) == []


@pytest.mark.parametrize(
    ("lock", "wanted"),
    [
        ("requirements.lock", PROJECT["dependencies"]),
        ("requirements-dev.lock", PROJECT["dependencies"]),
        ("requirements-dev.lock", PROJECT["optional-dependencies"]["dev"]),
    ],
    ids=["product", "product-in-dev", "dev"],
)
def test_the_lock_holds_what_the_project_asks_for(lock: str, wanted: list[str]) -> None:
    blocks = _blocks(lock)
    unmet = []
    for line in wanted:
        requirement = Requirement(line)
        block = blocks.get(canonicalize_name(requirement.name), "")
        pinned = re.search(r"==([^ ;\\\n]+)", block)
        if pinned is None or not requirement.specifier.contains(pinned[1], prereleases=True):
            unmet.append(line)
    assert unmet == []


def test_both_locks_agree() -> None:
    product, development = (_blocks(lock) for lock in LOCKS)
    pins = {name: text.split()[0] for name, text in product.items()}
    assert pins == {name: development[name].split()[0] for name in pins}
