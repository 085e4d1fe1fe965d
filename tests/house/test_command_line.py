"""`yuanka` starts light: the tool for acceptors needs neither the server nor the database."""

import subprocess
import sys

import pytest

from tests.house.sources import ROOT

HEAVY = ("litestar", "sqlalchemy", "asyncpg", "alembic", "uvicorn", "procrastinate")

LEFT_BEHIND = f"print(sorted({{*{HEAVY!r}}} & set(sys.modules)))"


def _modules_after(source: str) -> str:
    ran = subprocess.run(
        [sys.executable, "-c", f"import sys\n{source}\n{LEFT_BEHIND}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return ran.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    "source",
    [
        "import api.cli",
        "from api.cli import main; main(['code', 'check', '--cases', 'tests/vectors/yk1.json'])",
        "from api.cli import make_parser; make_parser('code')",
    ],
    ids=["import", "check", "parser"],
)
def test_checking_a_code_loads_no_server(source: str) -> None:
    assert _modules_after(source) == "[]"


def test_the_rule_sees_a_server() -> None:
    assert _modules_after("import litestar") == "['litestar']"
