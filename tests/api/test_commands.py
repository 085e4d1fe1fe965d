"""The command line: it helps, it says what to mend, and its exit code tells how it went."""

import asyncio
import os
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

import asyncpg
import pytest

from api.cli import FILE_OF_COMMAND, main
from tests.conftest import SCHEMA, ProviderKeys
from tests.simulators.running import REPOSITORY

CONFIG = 78


class Said(NamedTuple):
    """What a command answered."""

    code: int | None
    out: str
    err: str


async def yuanka(*arguments: str, folder: Path, **settings: str) -> Said:
    """Run the command line in an empty folder, with these settings and no others."""
    inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "api.cli",
        *arguments,
        cwd=folder,
        env={**inherited, "PYTHONPATH": str(REPOSITORY), **settings},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    return Said(process.returncode, out.decode(), err.decode())


@pytest.fixture
async def settings_of_a_process(environment: dict[str, str], database_url: str) -> dict[str, str]:
    """Return the environment of a process on this test's database."""
    return {**environment, "YUANKA_DATABASE_URL": database_url}


@pytest.fixture
def environment(key_ring_file: Path, provider_keys: ProviderKeys) -> dict[str, str]:
    """Return the environment of a process on a database that is not there."""
    return {
        "YUANKA_ENVIRONMENT": "development",
        "YUANKA_DATABASE_URL": "postgresql://nobody@127.0.0.1:9/none",
        "YUANKA_SCHEMA": SCHEMA,
        "YUANKA_KEY_RING_FILE": str(key_ring_file),
        "WECHAT_BASE_URL": "http://127.0.0.1:9",
        "WECHAT_APP_ID": "wx-test",
        "WECHAT_APP_SECRET": "not-a-secret",
        "WECHAT_PAY_BASE_URL": "http://127.0.0.1:9",
        "WECHAT_PAY_MCH_ID": "1900000001",
        "WECHAT_PAY_MCH_SERIAL": "5157F09EFDC096DE15EBE81A47057A7232F1B8E1",
        "WECHAT_PAY_MCH_KEY_FILE": str(provider_keys.private),
        "WECHAT_PAY_API_V3_KEY": "0" * 32,
        "WECHAT_PAY_PUBLIC_KEY_ID": "PUB_KEY_ID_0116",
        "WECHAT_PAY_PUBLIC_KEY_FILE": str(provider_keys.public),
        "ALIPAY_GATEWAY_URL": "http://127.0.0.1:9/gateway.do",
        "ALIPAY_APP_ID": "2021000000000001",
        "ALIPAY_APP_KEY_FILE": str(provider_keys.private),
        "ALIPAY_PUBLIC_KEY_FILE": str(provider_keys.public),
        "ALIPAY_SELLER_ID": "2088000000000001",
        "ALIPAY_AES_KEY": "AAAAAAAAAAAAAAAAAAAAAA==",
    }


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--help"], ["-h"], ["prove", "--help"]):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 0
        said = capsys.readouterr().out.split()
        assert set(said) >= (FILE_OF_COMMAND.keys() if len(arguments) == 1 else {"recompute"})


def test_an_unknown_command_is_told_the_usage(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["prov"], ["--nothing"], ["prove", "--nothing"]):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 2
        assert "usage: yuanka" in capsys.readouterr().err


def test_settings_that_cannot_be_are_said_in_one_line(
    tmp_path: Path,
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    wrong: dict[str, tuple[str, str | None]] = {
        "YUANKA_NONSENSE": ("YUANKA_NONSENSE", "1"),
        "port": ("YUANKA_PORT", "eighty"),
        "schema": ("YUANKA_SCHEMA", "city; DROP"),
        "environment": ("YUANKA_ENVIRONMENT", "test"),
        "nowhere.env": ("YUANKA_PROVIDERS_FILE", str(tmp_path / "nowhere.env")),
        "database_url": ("YUANKA_DATABASE_URL", None),
    }
    for word, (name, other_value) in wrong.items():
        with monkeypatch.context() as other:
            if other_value is None:
                other.delenv(name)
            else:
                other.setenv(name, other_value)
            for command in ("prove", "migrate", "serve"):
                assert main([command]) == CONFIG
                said = capsys.readouterr().err
                assert said.startswith("yuanka: ")
                assert said.count("\n") == 1
                assert word in said


async def test_a_key_ring_that_may_not_be_used_is_said_in_one_line(
    tmp_path: Path, environment: dict[str, str], key_ring_file: Path
) -> None:
    open_to_all, broken = tmp_path / "open.json", tmp_path / "broken.json"
    shutil.copyfile(key_ring_file, open_to_all)
    open_to_all.chmod(0o644)
    broken.write_bytes(b"{}")
    broken.chmod(0o600)
    for command, other in (
        ("serve", {"YUANKA_KEY_RING_FILE": str(open_to_all)}),
        ("work", {"YUANKA_KEY_RING_FILE": str(broken)}),
        ("serve", {"YUANKA_ENVIRONMENT": "production"}),
    ):
        said = await yuanka(command, folder=tmp_path, **{**environment, **other})
        assert said.code == CONFIG, (command, other, said)
        assert said.err.startswith("yuanka: ")
        assert said.err.count("\n") == 1


async def test_prove_exits_1_with_the_account_and_the_difference(
    tmp_path: Path, settings_of_a_process: dict[str, str], database_url: str
) -> None:
    said = await yuanka("prove", folder=tmp_path, **settings_of_a_process)
    assert said.code == 0, said
    assert "✗" not in said.out
    connection = await asyncpg.connect(database_url)
    account = await connection.fetchval(
        f"UPDATE {SCHEMA}.ledger_account SET balance_fen = balance_fen + 7"
        f" WHERE id = (SELECT min(id) FROM {SCHEMA}.ledger_account) RETURNING id"
    )
    await connection.close()
    said = await yuanka("prove", folder=tmp_path, **settings_of_a_process)
    assert said.code == 1
    assert f"account {account}: off by 7" in said.err
    assert "✗ I3" in said.out
    assert "✗ I2" in said.out


async def test_migrate_brings_an_empty_schema_up_to_date(
    tmp_path: Path, settings_of_a_process: dict[str, str]
) -> None:
    settings = {**settings_of_a_process, "YUANKA_SCHEMA": "town"}
    said = await yuanka("migrate", folder=tmp_path, **settings)
    assert (said.code, said.out.strip()) == (0, "schema town is up to date"), said


async def test_no_server_is_said_in_one_line(tmp_path: Path, environment: dict[str, str]) -> None:
    said = await yuanka("prove", folder=tmp_path, **environment)
    assert said.code == CONFIG, said
    assert "Traceback" not in said.err
