"""Callers of the API (调用方): a citizen with a phone, a signing machine, an operator's browser.

They do what a client does, and nothing that a client could not: the tour, the benches and the
stories among the tests are told through them.
"""

import json
import secrets
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import httpx
import pyotp

from api.clock import Clock
from api.commands.access import OperatorAccess
from api.commands.phones import Phone, Signed
from api.replies import b64, unb64
from identity import signatures

WINDOWS_OF_A_NEW_PHONE = 4
TOTP_SECONDS = 30
UNAUTHORIZED = 401


class Refused(Exception):
    """An answer that the caller did not expect."""

    def __init__(self, answer: httpx.Response) -> None:
        super().__init__(
            f"{answer.request.method} {answer.request.url.path} → {answer.status_code}"
            f" {answer.text[:500]}"
        )
        self.answer = answer


def body_of(answer: httpx.Response, *expected: int) -> Any:
    """Return the JSON of an answer of an expected status.

    Raises:
        Refused: it has another status.
    """
    if answer.status_code not in (expected or (200, 201)):
        raise Refused(answer)
    return answer.json() if answer.content else None


class Citizen:
    """A person with a mini-program, signed in."""

    def __init__(self, http: httpx.AsyncClient, clock: Clock) -> None:
        self._http, self._clock = http, clock
        self.access_token = self.refresh_token = self.card_id = ""
        self.step_up_token = ""
        self.phone: Phone | None = None
        self.last_slot = -1

    async def call(
        self, method: str, path: str, *, key: str | None = None, **request: Any
    ) -> httpx.Response:
        """Send a request as this person; `key` is an Idempotency-Key."""
        headers = {"Authorization": f"Bearer {self.access_token}"}
        if key:
            headers["Idempotency-Key"] = key
        if self.step_up_token:
            headers["Yuanka-Step-Up"] = self.step_up_token
        return await self._http.request(method, f"/v1/citizen{path}", headers=headers, **request)

    async def sign_in(self, provider: str, name: str) -> dict[str, Any]:
        """Sign in as a person of the simulated provider."""
        body: dict[str, Any] = body_of(
            await self._http.post(
                "/v1/citizen/sign-ins", json={"provider": provider, "code": f"sim:{name}"}
            )
        )
        self.access_token, self.refresh_token = body["access_token"], body["refresh_token"]
        return body

    async def step_up(self, pin: str) -> None:
        """Prove again who this is, by the payment PIN."""
        body = body_of(await self.call("POST", "/step-ups", json={"pin": pin}))
        self.step_up_token = body["step_up_token"]

    async def get_card(self) -> dict[str, Any]:
        """Apply for a card."""
        body: dict[str, Any] = body_of(
            await self.call("POST", "/cards", json={"card_type": "standard"})
        )
        self.card_id = body["id"]
        return body

    async def card(self) -> dict[str, Any]:
        """Look at the card."""
        body: dict[str, Any] = body_of(await self.call("GET", f"/cards/{self.card_id}"))
        return body

    async def bind_phone(self) -> dict[str, Any]:
        """Bind a new phone to the card and fetch credentials for it."""
        bound: dict[str, Any] = body_of(
            await self.call(
                "PUT",
                f"/cards/{self.card_id}/phone",
                json={"device_id": secrets.token_hex(16), "model": "demo phone"},
            )
        )
        self.phone = Phone(
            issuer=bound["issuer"],
            suite=bound["suite"],
            card=unb64(bound["card_handle"]),
            gen=bound["gen"],
            key=unb64(bound["device_key"]),
        )
        self.last_slot = -1
        await self.fetch_credentials()
        return bound

    async def fetch_credentials(self) -> int:
        """Fetch credentials for the current window and the next ones; return how many came."""
        assert self.phone
        wanted = self.phone.draw(self._clock(), windows=WINDOWS_OF_A_NEW_PHONE)
        answer = await self.call(
            "POST",
            f"/cards/{self.card_id}/credentials",
            json={
                "credentials": [
                    {
                        "nbf": one.nbf,
                        "slen": one.slot_seconds,
                        "nsl": one.slots,
                        "anchor": b64(one.anchor),
                    }
                    for one in wanted
                ]
            },
        )
        items = body_of(answer)["items"]
        for item in items:
            self.phone.keep(item["nbf"], Signed(unb64(item["body"]), unb64(item["sig"])))
        return len(items)

    def show_code(self) -> str:
        """Show a code that was not shown before: of this slot, or the next right after a use."""
        assert self.phone
        now = self._clock()
        slot = max(self.phone.slot_at(now), self.last_slot + 1)
        self.last_slot = slot
        return self.phone.code_at(now, slots_ahead=slot - self.phone.slot_at(now))


class Machine:
    """A merchant's server or a gate, signing every call (RFC 9421, yuanka-v1)."""

    def __init__(
        self, http: httpx.AsyncClient, keyid: str, private_key_pem: str, clock: Clock
    ) -> None:
        self._http, self._keyid, self._clock = http, keyid, clock
        self._private_key = signatures.load_private_key(private_key_pem.encode())

    def signed(
        self, method: str, path: str, body: bytes = b"", *, now: datetime | None = None
    ) -> httpx.Request:
        """Return a signed request, not yet sent."""
        url = self._http.base_url.join(path)
        parts = urlsplit(str(url))
        headers = signatures.sign(
            self._private_key,
            keyid=self._keyid,
            method=method,
            authority=parts.netloc,
            path=parts.path,
            query=parts.query,
            body=body,
            now=now or self._clock(),
        )
        if body:
            headers["Content-Type"] = "application/json"
        return self._http.build_request(method, path, content=body, headers=headers)

    async def call(self, method: str, path: str, content: Any = None) -> httpx.Response:
        """Send a signed request."""
        body = b"" if content is None else json.dumps(content).encode()
        return await self._http.send(self.signed(method, path, body))


class OperatorBrowser:
    """An operator's browser: a cookie, and the CSRF token beside it."""

    def __init__(self, http: httpx.AsyncClient, clock: Clock) -> None:
        self._http, self._clock = http, clock
        self._csrf_token = ""

    async def sign_in(self, who: OperatorAccess, *, seconds_ahead: int = 0) -> bool:
        """Sign in with password and one-time code; return whether that was accepted."""
        totp = pyotp.TOTP(who.totp_secret).at(self._clock() + timedelta(seconds=seconds_ahead))
        answer = await self._http.post(
            "/v1/operator/sign-ins",
            json={"login": who.login, "password": who.password, "totp": totp},
        )
        if answer.status_code == UNAUTHORIZED:
            return False
        self._csrf_token = body_of(answer)["csrf_token"]
        return True

    async def call(self, method: str, path: str, **request: Any) -> httpx.Response:
        """Send a request in the session."""
        headers = {"X-CSRF-Token": self._csrf_token}
        return await self._http.request(method, f"/v1/operator{path}", headers=headers, **request)
