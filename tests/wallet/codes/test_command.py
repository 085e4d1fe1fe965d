"""`yuanka code` through the parser that the command line builds, and the shared vectors by it."""

import argparse
import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zxingcpp
from PIL import Image

from api.commands import codes
from api.commands.codes import Case, CaseGroup, judge_case
from tests.wallet.codes.issuing import DEVICE_KEY, NOW_UNIX, SEED, SLOT, START_UNIX, Issuer
from wallet.codes.suites import STANDARD_VECTORS
from wallet.codes.wire import encode, parse

VECTORS = Path(__file__).parents[2] / "vectors" / "yk1.json"
SHARED = Path(__file__).parents[4] / "shared" / "vectors" / "yk1.json"
GROUPS = msgspec.json.decode(VECTORS.read_bytes(), type=list[CaseGroup])
CASES = [(group, case) for group in GROUPS for case in group.cases]


def run(*words: str | Path) -> int:
    parser = argparse.ArgumentParser(prog="yuanka")
    codes.register(parser.add_subparsers(required=True))
    args = parser.parse_args(["code", *map(str, words)])
    exit_code: int = args.run(args)
    return exit_code


@pytest.fixture
def trust_file(issuer: Issuer, tmp_path: Path) -> Path:
    key = {
        "kid": 7,
        "suite": issuer.suite.number,
        "pub": issuer.suite.public_key(issuer.private_key).hex(),
        "types": [0, 1],
        "verify_until": 1830650400,
    }
    path = tmp_path / "trust.json"
    path.write_text(json.dumps({"issuers": [{"iss": 32020001, "keys": [key]}]}))
    return path


def line(capsys: pytest.CaptureFixture[str]) -> Any:
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    return json.loads(out)


def test_our_copy_of_the_vectors_is_the_shared_one() -> None:
    if not SHARED.exists():
        pytest.skip("../shared/vectors/yk1.json is not beside this checkout, nothing to compare")
    assert VECTORS.read_bytes() == SHARED.read_bytes()


def test_there_are_as_many_cases_as_ever() -> None:
    assert len(CASES) == 56


@pytest.mark.parametrize(
    ("group", "case"), CASES, ids=[f"{group.suite}: {case.name}" for group, case in CASES]
)
def test_every_case_of_the_vectors_holds(group: CaseGroup, case: Case) -> None:
    assert judge_case(group, case) == case.reason


def test_a_file_of_cases_gives_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("check", "--cases", VECTORS) == 0
    lines = [json.loads(text) for text in capsys.readouterr().out.splitlines()]
    assert lines == [
        {"suite": group.suite, "name": case.name, "reason": case.reason} for group, case in CASES
    ]


def test_a_case_that_differs_fails_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    groups = json.loads(VECTORS.read_text())[:1]
    groups[0]["cases"] = groups[0]["cases"][:2]
    groups[0]["cases"][0]["reason"] = 204
    del groups[0]["cases"][1]["reason"]
    path = tmp_path / "cases.json"
    path.write_text(json.dumps(groups))
    assert run("check", "--cases", path) == 1
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_a_good_code_is_judged_by_files_alone(
    issuer: Issuer, trust_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = encode(issuer.code())
    always = ("check", "--trust", trust_file, "--now", str(NOW_UNIX))
    key = ("--device-key", DEVICE_KEY.hex())
    assert run(*always, *key, "--last-slot", str(SLOT - 1), text) == 0
    answer = line(capsys)
    assert (answer["reason"], answer["name"], answer["slots_off"]) == (0, "OK", 0)
    assert answer["code"]["card"] == "0123456789abcdef"
    assert answer["code"]["flags"] == ["PAY", "GATE"]

    deny_file = tmp_path / "deny.json"
    deny_file.write_text('[["0123456789ABCDEF", 2]]')
    assert run(*always, "--deny", deny_file, text) == 0
    assert line(capsys)["reason"] == 401
    assert run(*always, "--last-slot", str(SLOT), text) == 0
    assert line(capsys)["reason"] == 305
    assert run(*always, "--device-key", bytes(32).hex(), text) == 0
    answer = line(capsys)
    assert (answer["reason"], answer["is_security_event"]) == (206, True)
    assert "code" not in answer


def test_a_signed_deny_list_is_read(
    issuer: Issuer, trust_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = issuer.code()
    head = b"YKD1" + struct.pack(">IIIIBBI", 32020001, 1, 0, 0, 7, issuer.suite.number, 1)
    data = head + struct.pack(">8sBBI", code.card, 255, 1, NOW_UNIX + 60)
    path = tmp_path / "deny.bin"
    path.write_bytes(data + issuer.suite.sign(issuer.private_key, b"YK1D" + data))
    words = ("check", "--trust", trust_file, "--now", str(NOW_UNIX), "--deny", path, encode(code))
    assert run(*words) == 0
    assert line(capsys)["reason"] == 401
    path.write_bytes(data + bytes(64))
    assert run(*words) == 2


def test_offline_windows_are_wider(
    issuer: Issuer, trust_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    always = ("check", "--trust", trust_file, "--now", str(NOW_UNIX), encode(issuer.code(SLOT - 4)))
    assert run(*always) == 0
    assert line(capsys)["reason"] == 303
    assert run(*always, "--offline") == 0
    assert line(capsys)["reason"] == 0


def test_a_foreign_pay_code_is_named(
    issuer: Issuer, trust_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("check", "--trust", trust_file, "134567890123456789") == 0
    answer = line(capsys)
    assert (answer["reason"], answer["provider"]) == (103, "wechat")


def test_without_an_instant_the_clock_is_asked(
    issuer: Issuer, trust_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make = ("make", "--issuer-private", issuer.private_key.hex(), "--seed", SEED.hex())
    suite = ("--suite", str(issuer.suite.number), "--device-key", DEVICE_KEY.hex())
    assert run(*make, *suite) == 0
    text = capsys.readouterr().out.strip()
    assert run("check", "--trust", trust_file, "--device-key", DEVICE_KEY.hex(), text) == 0
    assert line(capsys)["reason"] == 0


@pytest.mark.parametrize("raw", json.loads(VECTORS.read_text()), ids=lambda raw: raw["suite"])
def test_a_header_and_keys_make_the_code_of_the_vectors(
    raw: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    made = run(
        "make",
        *("--issuer-private", raw["issuer_private"], "--header", raw["header"]),
        *("--seed", raw["seed"], "--device-key", raw["device_key"], "--slot", str(raw["slot"])),
    )
    code = parse(capsys.readouterr().out)
    assert made == 0
    assert (code.anchor.hex(), code.proof.hex()) == (raw["anchor"], raw["proof"])
    if code.suite == 1:  # SM2 draws a random number for each signature.
        assert encode(code) == raw["code"]


@pytest.mark.parametrize(
    ("options", "modules", "length"),
    [(("--seed", SEED.hex(), "--device-key", DEVICE_KEY.hex()), 49, 219), (("--static",), 41, 152)],
)
def test_the_picture_is_a_real_qr_code(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    modules: int,
    length: int,
) -> None:
    path = tmp_path / "code.png"
    header = ("--nbf", str(START_UNIX), "--nsl", "365", "--flags", "GATE,PHOTO")
    private = STANDARD_VECTORS[0].private_key.hex()
    assert run("make", "--issuer-private", private, *header, *options, "--qr", path) == 0
    text = capsys.readouterr().out.strip()
    with Image.open(path) as picture:
        assert picture.size == ((modules + 8) * 8, (modules + 8) * 8)
        (found,) = zxingcpp.read_barcodes(picture)
    assert (found.text, len(text)) == (text, length)


@pytest.mark.parametrize(
    "words",
    [
        ("check",),
        ("check", "YK1"),
        ("check", "--cases", "absent.json"),
        ("check", "--trust", "absent.json", "YK1"),
        ("make", "--issuer-private", "01" * 32),
        ("make", "--issuer-private", "01" * 32, "--static", "--cap", "256"),
        ("make", "--issuer-private", "01" * 32, "--header", "11c3" + "00" * 27),
    ],
)
def test_bad_usage_exits_with_two(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*words) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err[:12]) == ("", "yuanka code:")


@pytest.mark.parametrize(
    "option", [("--device-key", "00"), ("--device-key", "zz"), ("--now", "noon")]
)
def test_options_are_checked_as_they_are_read(option: tuple[str, str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run("check", *option, "YK1")
    assert ended.value.code == 2


def test_unknown_flags_are_bad_usage() -> None:
    with pytest.raises(SystemExit):
        run("make", "--issuer-private", "01" * 32, "--flags", "PAY,FLY")


def test_a_gate_needs_neither_server_nor_database() -> None:
    lists = "import sys, wallet.codes.verifier, api.commands.codes; print(*sys.modules)"
    root = Path(__file__).parents[3]
    ran = subprocess.run(
        [sys.executable, "-c", lists], cwd=root, check=True, capture_output=True, text=True
    )
    loaded = {name.split(".")[0] for name in ran.stdout.split()}
    assert loaded.isdisjoint({"litestar", "sqlalchemy", "asyncpg", "psycopg", "identity"})
