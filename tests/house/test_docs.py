"""What the documents say is so.

Their commands exist, their links lead somewhere, their tables are the code's own.
"""

import re
from pathlib import Path
from typing import Annotated, get_args, get_origin

import msgspec
import pytest

from api.cli import FILE_OF_COMMAND
from api.settings import Alipay, Settings, WeChat, WeChatPay
from docs import generate
from tests.house.sources import ROOT, name_of, text_files
from wallet.invariants import INVARIANTS
from wallet.ledger.chart import CHART

DOCUMENTS = [path for path in text_files() if path.suffix == ".md"]
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z-]+):", MAKEFILE, flags=re.MULTILINE))
README = (ROOT / "README.md").read_text()
SETTINGS = (ROOT / "docs" / "settings.md").read_text()
MONEY = (ROOT / "docs" / "money.md").read_text()

GROUPS: dict[str, type[msgspec.Struct]] = {
    "WECHAT_PAY_": WeChatPay,
    "WECHAT_": WeChat,
    "ALIPAY_": Alipay,
}


def _code(path: Path) -> str:
    """Return what a document sets as code."""
    return "\n".join(re.findall(r"```.*?```|`[^`\n]+`", path.read_text(), flags=re.DOTALL))


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_commands_in_documents_exist(path: Path) -> None:
    named = set(re.findall(r"\bmake ([a-z][a-z-]*)\b", _code(path)))
    assert named - TARGETS == set()
    if name_of(path) == "style.md":
        return  # It also says what is to come.
    commands = set(re.findall(r"\byuanka ([a-z][a-z-]*)\b", _code(path)))
    assert commands - set(FILE_OF_COMMAND) == set()


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_links_lead_somewhere(path: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text())
    lost = [
        link
        for link in links
        if "://" not in link
        and not link.startswith("mailto:")
        and not (path.parent / link).exists()
    ]
    assert lost == []


def test_the_readme_begins_with_the_two_commands() -> None:
    first = re.findall(r"^```sh\n(.+)\n```", README, re.MULTILINE)
    assert first[:2] == ["make demo", "make test"]
    assert README.index("make test\n```") < README.index("\n## ")


@pytest.mark.parametrize("name", sorted(generate.DOCUMENTS))
def test_generated_documents_are_up_to_date(name: str) -> None:
    assert (ROOT / name).read_text() == generate.DOCUMENTS[name](), "run `make docs`"


def _is_group(field: msgspec.structs.FieldInfo) -> bool:
    kind = get_args(field.type)[0] if get_origin(field.type) is Annotated else field.type
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def test_every_setting_is_documented_with_its_default() -> None:
    for field in msgspec.structs.fields(Settings):
        if _is_group(field):
            continue
        row = re.search(rf"^\| `YUANKA_{field.name.upper()}` \|([^|]*)\|", SETTINGS, re.MULTILINE)
        assert row, f"docs/settings.md does not list {field.name}"
        has_default = field.default is not msgspec.NODEFAULT
        default = f"`{field.default}`" if has_default and field.default != "" else ""
        assert default in row[1], f"{field.name} has the default {default}"
        assert ("required" in row[1]) == (not has_default)


@pytest.mark.parametrize("prefix", GROUPS)
def test_every_setting_of_a_provider_is_documented(prefix: str) -> None:
    wanted = {prefix + name.upper() for name in GROUPS[prefix].__struct_fields__}
    assert wanted - set(re.findall(r"^\| `([A-Z0-9_]+)`", SETTINGS, re.MULTILINE)) == set()


def test_no_setting_is_documented_that_is_none() -> None:
    known = {f"YUANKA_{name.upper()}" for name in Settings.__struct_fields__}
    known |= {
        prefix + name.upper()
        for prefix, group in GROUPS.items()
        for name in group.__struct_fields__
    }
    known.add("YUANKA_PROVIDERS_FILE")
    assert set(re.findall(r"^\| `([A-Z0-9_]+)`", SETTINGS, re.MULTILINE)) - known == set()


def test_the_chart_of_accounts_is_documented() -> None:
    rows = re.findall(r"^\| (\d{4}) \| `([a-z_.]+)` \| (\w+) \| (\S+) \|", MONEY, re.MULTILINE)
    ours = {
        (
            str(rule.number),
            kind.value,
            rule.side,
            "none" if rule.floor_fen is None else str(rule.floor_fen),
        )
        for kind, rule in CHART.items()
    }
    assert set(rows) == ours


def test_every_invariant_is_documented() -> None:
    named = set(re.findall(r"^\| `([A-Za-z0-9]+)` \|", MONEY, re.MULTILINE))
    assert {invariant.name for invariant in INVARIANTS} <= named


def test_every_kind_of_transfer_is_documented() -> None:
    kinds = {
        kind
        for path in (ROOT / "wallet").rglob("*.py")
        for kind in re.findall(r'"((?:recharge|charge|pass)\.[a-z_]+)"', path.read_text())
    }
    documented = set(re.findall(r"^\| `([a-z]+\.[a-z_]+)` \|", MONEY, re.MULTILINE))
    assert len(documented) >= 7
    assert kinds - {account.value for account in CHART} == documented
