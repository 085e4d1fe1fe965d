"""What the documentation says, held against every answer that a test receives."""

import re
from functools import cache
from typing import Any

import httpx
import jsonschema_rs
import msgspec

from api.app import create_app
from api.clock import utc_now
from api.openapi import made_true
from api.problems import FAULT, MEDIA_TYPE


@cache
def document() -> dict[str, Any]:
    """Return the OpenAPI document, as it is served."""

    def never() -> Any:
        raise AssertionError("nothing is served")

    app = create_app(never, utc_now, has_page=False)
    raw = msgspec.json.encode(app.openapi_schema.to_schema(), enc_hook=str)
    return made_true(msgspec.json.decode(raw))


def operation_of(method: str, path: str) -> dict[str, Any] | None:
    """Return what is documented for a request; fixed paths go before those with ids."""
    for template, operations in sorted(document()["paths"].items(), key=lambda one: "{" in one[0]):
        pattern = re.sub(r"\\{[^}]*\\}", "[^/]+", re.escape(template))
        if re.fullmatch(pattern, path) and method.lower() in operations:
            found: dict[str, Any] = operations[method.lower()]
            return found
    return None


def validator(schema: dict[str, Any]) -> jsonschema_rs.Draft202012Validator:
    """Return what holds values against a schema of the document."""
    return jsonschema_rs.Draft202012Validator(
        {**schema, "components": document()["components"]}, validate_formats=True
    )


_of_answer: dict[tuple[str, str], jsonschema_rs.Draft202012Validator] = {}


async def check_documented(answer: httpx.Response) -> None:
    """Refuse an answer that the documentation does not know: a hook of test clients."""
    request = answer.request
    operation = operation_of(request.method, request.url.path)
    if operation is None:
        return
    await answer.aread()
    where = f"{request.method} {request.url.path} → {answer.status_code} {answer.text[:300]}"
    media_type = answer.headers.get("content-type", "").partition(";")[0]
    if media_type == MEDIA_TYPE and answer.json()["code"] == FAULT[0]:
        return
    said = operation["responses"].get(str(answer.status_code))
    assert said, f"undocumented status: {where}"
    content = said.get("content", {})
    assert media_type in (content or {""}), f"undocumented type {media_type}: {where}"
    if media_type == MEDIA_TYPE:
        assert answer.json()["code"] in content[MEDIA_TYPE]["examples"], f"undocumented: {where}"
    if media_type.endswith("json"):
        key = (operation["operationId"], str(answer.status_code))
        if key not in _of_answer:
            _of_answer[key] = validator(content[media_type]["schema"])
        problems = [str(problem) for problem in _of_answer[key].iter_errors(answer.json())]
        assert not problems, f"not as documented: {where}: {problems}"
