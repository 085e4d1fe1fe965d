"""The OpenAPI document is valid, complete, and closed."""

from typing import Any

import httpx
import jsonschema_rs
import pytest

from api.examples import EXAMPLES
from api.problems import MEDIA_TYPE
from identity.kernel import Refusal
from tests.documented import document, validator

OPERATIONS = [
    pytest.param(path, method, operation, id=f"{method} {path}")
    for path, operations in document()["paths"].items()
    for method, operation in operations.items()
]
UNSIGNED = {
    "/v1/citizen/sign-ins",
    "/v1/citizen/sign-ins/refresh",
    "/v1/operator/sign-ins",
}
Operation = dict[str, Any]
AUDIENCES = ("citizen", "merchant", "gate", "operator")


async def test_the_served_document_is_the_tested_one_every_time(client: httpx.AsyncClient) -> None:
    first = await client.get("/schema/openapi.json")
    again = await client.get("/schema/openapi.json")
    assert first.json() == document()
    assert first.content == again.content


async def test_the_page_needs_no_other_host(client: httpx.AsyncClient) -> None:
    page = await client.get("/schema/docs")
    assert page.status_code == 200
    assert "https://" not in page.text.replace("https://swagger.io", "").partition("<body>")[0]
    assert (await client.get("/schema/assets/swagger-ui.css")).status_code == 200


def test_the_document_is_openapi_3_1() -> None:
    assert document()["openapi"] == "3.1.0"
    schemas = document()["components"]["schemas"]
    for schema in schemas.values():
        jsonschema_rs.meta.validate({**schema, "components": {"schemas": schemas}})
    paths = document()["paths"].values()
    ids = [operation["operationId"] for found in paths for operation in found.values()]
    assert len(set(ids)) == len(ids)


def test_no_object_takes_unknown_members() -> None:
    for name, schema in document()["components"]["schemas"].items():
        if schema.get("type") == "object" and name != "ProblemDocument":
            assert schema["additionalProperties"] is False, name


def test_no_pattern_is_in_pythons_dialect() -> None:
    assert "\\\\Z" not in str(document())


@pytest.mark.parametrize(("path", "method", "operation"), OPERATIONS)
def test_an_operation_says_what_it_does(path: str, method: str, operation: Operation) -> None:
    assert operation["summary"]
    assert operation["description"]
    assert operation["tags"]
    audience = path.split("/")[2]
    wanted: list[dict[str, list[str]]] | None = [{audience: []}]
    if path in UNSIGNED and method == "post":
        wanted = None
    assert audience in AUDIENCES
    assert operation.get("security") == wanted


@pytest.mark.parametrize(("path", "method", "operation"), OPERATIONS)
def test_every_example_is_what_the_schema_says(
    path: str, method: str, operation: Operation
) -> None:
    bodies = [operation["requestBody"]] if "requestBody" in operation else []
    for body in [*bodies, *operation["responses"].values()]:
        for media_type, content in body.get("content", {}).items():
            if media_type == "image/jpeg":
                continue
            examples = (
                [one["value"] for one in content["examples"].values()]
                if media_type == MEDIA_TYPE
                else [content["example"]]
            )
            assert examples
            for example in examples:
                validator(content["schema"]).validate(example)


def test_no_example_is_of_nothing() -> None:
    assert EXAMPLES.keys() <= document()["components"]["schemas"].keys()


@pytest.mark.parametrize(("path", "method", "operation"), OPERATIONS)
def test_every_documented_refusal_is_one_of_ours(
    path: str, method: str, operation: Operation
) -> None:
    for status, answer in operation["responses"].items():
        content = answer.get("content", {})
        if int(status) >= 400:
            assert set(content) == {MEDIA_TYPE}
            for code in content[MEDIA_TYPE]["examples"]:
                assert Refusal.by_code[code].status == int(status)
                assert f"`{code}`" in answer["description"]


@pytest.mark.parametrize(("path", "method", "operation"), OPERATIONS)
def test_an_id_in_the_path_may_lead_nowhere(path: str, method: str, operation: Operation) -> None:
    assert ("{" in path) <= ("404" in operation["responses"])
