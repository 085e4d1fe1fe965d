import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from wechatpy.exceptions import WeChatClientException

from tests.simulators.clients import mini_program
from tests.simulators.running import Simulators


@pytest.fixture
def client(simulators: Simulators) -> Iterator[Any]:
    made = mini_program(simulators.env)
    yield made
    made._http.close()


def token(simulators: Simulators, **asked: object) -> dict[str, Any]:
    env = simulators.env
    app = {"appid": env["WECHAT_APP_ID"], "secret": env["WECHAT_APP_SECRET"]}
    body = {"grant_type": "client_credential", **app, **asked}
    answer = httpx.post(f"{simulators.url}/cgi-bin/stable_token", json=body, trust_env=False)
    told: dict[str, Any] = answer.json()
    return told


def phone(simulators: Simulators, access_token: str, code: str) -> dict[str, Any]:
    url = f"{simulators.url}/wxa/business/getuserphonenumber"
    params = {"access_token": access_token} if access_token else {}
    answer = httpx.post(url, params=params, json={"code": code}, trust_env=False)
    told: dict[str, Any] = answer.json()
    return told


def test_wechatpy_signs_somebody_in_and_learns_the_phone(client: Any) -> None:
    first = client.wxa.code_to_session("sim:zhang")
    again = client.wxa.code_to_session("sim:zhang")
    other = client.wxa.code_to_session("sim:李四")
    assert first["openid"] == again["openid"] != other["openid"]
    assert len(first["openid"]) == len(other["openid"]) == 28
    assert first["session_key"] != again["session_key"]
    assert "unionid" not in first
    told = client.wxa.get_phone_number("sim:zhang")
    number = told["phone_info"]["purePhoneNumber"]
    assert re.fullmatch(r"139\d{8}", number)
    assert client.wxa.get_phone_number("sim:zhang")["phone_info"]["phoneNumber"] == number


@pytest.mark.parametrize("code", ["", "sim:", "zhang", "SIM:zhang", "sim:" + "x" * 101])
def test_no_other_code_signs_anybody_in(client: Any, code: str) -> None:
    with pytest.raises(WeChatClientException) as refused:
        client.wxa.code_to_session(code)
    assert refused.value.errcode == 40029
    with pytest.raises(WeChatClientException) as refused:
        client.wxa.get_phone_number(code)
    assert refused.value.errcode == 40029


def test_another_app_or_secret_is_refused(simulators: Simulators) -> None:
    assert token(simulators, appid="wx0")["errcode"] == 40013
    assert token(simulators, secret="0")["errcode"] == 40125
    assert token(simulators, grant_type="")["errcode"] == 40002


def test_the_stable_token_stays_until_a_new_one_is_insisted_on(simulators: Simulators) -> None:
    first, again = token(simulators), token(simulators)
    assert first["access_token"] == again["access_token"]
    assert 300 < first["expires_in"] <= 7200
    assert phone(simulators, first["access_token"], "sim:a")["errcode"] == 0
    forced = token(simulators, force_refresh=True)
    assert forced["access_token"] != first["access_token"]
    assert phone(simulators, first["access_token"], "sim:a")["errcode"] == 40001
    assert phone(simulators, forced["access_token"], "sim:a")["errcode"] == 0


def test_a_new_plain_token_voids_the_one_before_and_no_stable_one(
    simulators: Simulators, client: Any
) -> None:
    stable = token(simulators)["access_token"]
    first = client.fetch_access_token()["access_token"]
    second = client.fetch_access_token()["access_token"]
    assert phone(simulators, first, "sim:a")["errcode"] == 40001
    assert phone(simulators, second, "sim:a")["errcode"] == 0
    assert phone(simulators, stable, "sim:a")["errcode"] == 0
    assert phone(simulators, "", "sim:a")["errcode"] == 41001
