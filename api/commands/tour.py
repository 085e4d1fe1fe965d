"""`yuanka tour`: the main job from sign-in to closure against a running server, with its proof.

Every step says what it did and how it knows; the last line is `all steps held` only if all did.
"""

import argparse
import asyncio
import secrets
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import monotonic
from typing import NamedTuple

import httpx
import zxingcpp
from PIL import Image

from api.clock import utc_now
from api.commands import tour_acts as acts
from api.commands.access import Access, read_access
from api.commands.callers import Citizen, Machine, Refused, body_of
from api.commands.codes import draw_qr
from api.commands.tour_acts import NotHeld, hold
from wallet.codes.wire import Kind

HELD = "all steps held"
PIN = "204816"


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    says = "run the main job against a running server"
    parser = subparsers.add_parser("tour", help=says, description=says)
    parser.add_argument(
        "--access", type=Path, default=Path("var/demo/access.json"), help="who may do what"
    )
    parser.set_defaults(run=run_tour)


def run_tour(arguments: argparse.Namespace) -> int:
    """Run the tour; exit 0 only if every step held."""
    if not arguments.access.exists():
        print(f"yuanka: {arguments.access} is not there; start `make demo` first", file=sys.stderr)
        return 1
    try:
        return asyncio.run(take_tour(read_access(arguments.access)))
    except httpx.ConnectError as problem:
        address = problem.request.url
        print(f"yuanka: nothing answers at {address}; start `make demo` first", file=sys.stderr)
        return 1


async def take_tour(access: Access) -> int:
    """Run every step in order; return 0 if all held."""
    began = monotonic()
    async with (
        httpx.AsyncClient(base_url=access.api, trust_env=False, timeout=20) as http,
        httpx.AsyncClient(base_url=access.simulators.control, trust_env=False) as control,
    ):
        tour = Tour(access, http, control)
        for number, step in enumerate(tour.steps(), 1):
            title = (step.__doc__ or "").rstrip(".")
            try:
                proof = await step()
            except httpx.ConnectError:
                raise
            except (NotHeld, Refused, httpx.HTTPError) as problem:
                print(f"{number:>2}. ✗ {title}\n      {type(problem).__name__}: {problem}")
                return 1
            print(f"{number:>2}. ✓ {title}\n      {proof}", flush=True)
    print(f"{monotonic() - began:.1f} s")
    print(HELD)
    return 0


Step = Callable[[], Awaitable[str]]


class Seen(NamedTuple):
    """What a step leaves for later ones."""

    order_no: str
    charge_id: str
    code: str


class Tour:
    """The steps, and what they pass on to each other."""

    def __init__(self, access: Access, http: httpx.AsyncClient, control: httpx.AsyncClient) -> None:
        self._access, self._http, self._control = access, http, control
        self._name = f"tour-{secrets.token_hex(4)}"
        self._ann, self._bo = Citizen(http, utc_now), Citizen(http, utc_now)
        self._shop, self._shop2 = (
            Machine(http, one.keyid, one.private_key_pem, utc_now) for one in access.merchants[:2]
        )
        self._gate, self._closed_gate = (
            Machine(http, one.keyid, one.private_key_pem, utc_now)
            for one in (access.gates[0], access.gates[3])
        )
        self._seen = Seen("", "", "")

    def steps(self) -> list[Step]:
        """Return every step; its docstring is its title."""
        return [
            self.sign_in,
            self.verify,
            self.review,
            self.get_cards,
            self.bind_phones,
            self.recharge_wechat_pay,
            self.recharge_alipay,
            self.buy_pass,
            self.charge,
            self.repeat,
            self.replay,
            self.stale,
            self.refund,
            self.lose,
            self.take_back,
            self.enter,
            self.closed_park,
            self.reissue,
            self.read_statement,
            self.close,
            self.prove,
        ]

    async def sign_in(self) -> str:
        """Sign in with WeChat and with Alipay 登录."""
        first = await self._ann.sign_in("wechat", self._name)
        other = await self._bo.sign_in("alipay", self._name)
        hold(first["citizen"]["is_new"] and other["citizen"]["is_new"], "both are new")
        hold(first["citizen"]["id"] != other["citizen"]["id"], "two people until merged")
        again = await self._ann.sign_in("wechat", self._name)
        hold(again["citizen"]["id"] == first["citizen"]["id"], "the same person again")
        return f"citizens {first['citizen']['id']} and {other['citizen']['id']}"

    async def verify(self) -> str:
        """Verify an identity by rule 实名（规则通过）."""
        refused = await self._ann.call("POST", "/cards", json={"card_type": "standard"})
        hold(refused.json()["code"] == "real-name-required", "no card without a checked identity")
        view = await acts.submit_real_name(self._ann, review=False)
        hold(view["state"] == "passed", f"passes by rule, not {view}")
        me = body_of(await self._ann.call("GET", "/me"))
        return f"passed at once as {me['real_name']['name_masked']}; without it: 403"

    async def review(self) -> str:
        """Verify an identity by an operator 实名（人工审核）."""
        view = await acts.submit_real_name(self._bo, review=True)
        hold(view["state"] == "in_review", f"waits for an operator, not {view}")
        who, browser = await acts.sign_in_operator(self._http, self._access)
        waiting = body_of(await browser.call("GET", "/real-name-cases"))["items"]
        case = body_of(await browser.call("GET", f"/real-name-cases/{waiting[-1]['id']}"))
        picture = await browser.call("GET", f"/real-name-cases/{case['id']}/pictures/id_front")
        hold(picture.headers["content-type"] == "image/jpeg", "the operator sees the picture")
        decision = {"decision": "passed", "reasons": []}
        path = f"/real-name-cases/{case['id']}/decisions"
        body_of(await browser.call("POST", path, json=decision))
        state = body_of(await self._bo.call("GET", "/me/real-name"))["state"]
        hold(state == "passed", "the decision reaches the person")
        return f"{view['reasons']} → operator {who.login} (password and one-time code) passed it"

    async def get_cards(self) -> str:
        """Get cards, bind phone numbers, set a PIN 领卡."""
        for person, provider in ((self._ann, "wechat"), (self._bo, "alipay")):
            await person.get_card()
            code = await acts.press_phone_button(self._control, provider, self._name)
            bound = {"provider": provider, "code": code}
            body_of(await person.call("PUT", "/me/phone", json=bound))
            body_of(await person.call("PUT", "/me/payment-pin", json={"pin": PIN}), 204)
        card = await self._ann.card()
        return f"card {card['card_no']}, balance {card['balance_fen']} fen"

    async def bind_phones(self) -> str:
        """Bind phones and fetch credentials 绑定手机."""
        bound = await self._ann.bind_phone()
        await self._bo.bind_phone()
        return f"generation {bound['gen']}, suite {bound['suite']}, issuer {bound['issuer']}"

    async def recharge_wechat_pay(self) -> str:
        """Recharge through WeChat Pay 微信充值."""
        return await acts.recharge(self._control, self._ann, "wechat_pay", 20_000)

    async def recharge_alipay(self) -> str:
        """Recharge through Alipay 支付宝充值."""
        return await acts.recharge(self._control, self._bo, "alipay", 8_800)

    async def buy_pass(self) -> str:
        """Buy a pass from the balance 购买年票."""
        types = body_of(await self._ann.call("GET", "/pass-types"))["items"]
        gate_park = self._access.gates[0].park
        parks = body_of(await self._ann.call("GET", "/parks"))["items"]
        park_id = next(park["id"] for park in parks if park["name"] == gate_park)
        wanted = next(one for one in types if park_id in one["park_ids"])
        bought = body_of(
            await self._ann.call(
                "POST",
                "/passes",
                key=secrets.token_hex(16),
                json={
                    "card_id": self._ann.card_id,
                    "pass_type_id": wanted["id"],
                    "pay_by": "balance",
                },
            )
        )
        card = await self._ann.card()
        hold(card["balance_fen"] == 20_000 - wanted["price_fen"], "the price left the balance")
        return (
            f"{wanted['name']} {bought['pass_no']} until {bought['valid_until_on']},"
            f" balance {card['balance_fen']} fen"
        )

    async def charge(self) -> str:
        """Show a code as a QR picture, scan it, charge 扫码消费."""
        shown = self._ann.show_code()
        with tempfile.TemporaryDirectory() as folder:
            picture = Path(folder) / "code.png"
            draw_qr(shown, Kind.CHAIN, picture)
            with Image.open(picture) as image:
                found = zxingcpp.read_barcodes(image)
                pixels = f"{image.width}×{image.height}"
        hold(len(found) == 1 and found[0].text == shown, "the scanner reads what the phone shows")
        before_fen = (await self._ann.card())["balance_fen"]
        order_no = secrets.token_hex(8)
        charge = body_of(await acts.take(self._shop, order_no, found[0].text, 3_600), 201)
        hold(charge["state"] == "succeeded", f"charged, not {charge}")
        after_fen = (await self._ann.card())["balance_fen"]
        hold(after_fen == before_fen - 3_600, "the money left the card once")
        self._seen = Seen(order_no, charge["id"], shown)
        return (
            f"{len(shown)} characters in a {pixels} picture → {charge['charge_no']},"
            f" balance {after_fen} fen"
        )

    async def repeat(self) -> str:
        """Send the same charge again 重发同一笔."""
        again = await acts.take(self._shop, self._seen.order_no, self._seen.code, 3_600)
        hold(again.status_code == 200, "a retry is answered 200")
        hold(again.headers.get("idempotency-replayed") == "true", "and says that it is one")
        hold(again.json()["id"] == self._seen.charge_id, "the same charge comes back")
        other = await acts.take(self._shop, self._seen.order_no, self._seen.code, 3_700)
        hold(other.status_code == 422, "the same number with another amount is refused")
        return "200 with the same charge; another amount under that number: 422"

    async def replay(self) -> str:
        """Replay the code at another till: 305 重放."""
        return await acts.be_declined(self._shop2, self._seen.code, 305)

    async def stale(self) -> str:
        """Show a screenshot a minute old: 303 截屏."""
        assert self._ann.phone
        # Byte for byte what a screenshot of a minute ago shows, without waiting the minute.
        old = self._ann.phone.code_at(utc_now(), slots_ahead=-4)
        return await acts.be_declined(self._shop, old, 303)

    async def refund(self) -> str:
        """Give part of it back 部分退款."""
        path = f"/v1/merchant/charges/{self._seen.charge_id}/refunds"
        asked = {"refund_no": secrets.token_hex(8), "amount_fen": 1_600, "reason": "退一份茶点"}
        refund = body_of(await self._shop.call("POST", path, asked), 201)
        hold(refund["refunded_fen"] == 1_600, "the charge knows what was given back")
        asked = {"refund_no": secrets.token_hex(8), "amount_fen": 2_001, "reason": "过多"}
        refused = await self._shop.call("POST", path, asked)
        hold(refused.json()["code"] == "refund-exceeds", "never more than was taken")
        return "1600 of 3600 fen back on the card; 2001 more: refused"

    async def lose(self) -> str:
        """Report loss: 402 within a second 挂失."""
        code = self._ann.show_code()
        path = f"/cards/{self._ann.card_id}/loss"
        card = body_of(await self._ann.call("POST", path, json={}))
        began = monotonic()
        hold(card["state"] == "lost", "the card is lost")
        said = await acts.be_declined(self._shop, code, 402)
        took = monotonic() - began
        hold(took < 1, f"refused within a second, not {took:.2f} s")
        gate = await acts.scan(self._gate, code)
        hold(gate["decision"] == "deny" and gate["reason"] == 402, f"402 at the gate, not {gate}")
        return f"{said}; at the gate too; {took * 1000:.0f} ms after the report"

    async def take_back(self) -> str:
        """Take the loss back 解除挂失."""
        path = f"/cards/{self._ann.card_id}/loss"
        refused = await self._ann.call("DELETE", path)
        hold(refused.json()["code"] == "step-up-required", "not without a proof of who asks")
        await self._ann.step_up(PIN)
        card = body_of(await self._ann.call("DELETE", path))
        hold(card["state"] == "active", "the card is good again")
        return "403 without a step-up, active with the PIN"

    async def enter(self) -> str:
        """Enter a park with the pass 入园."""
        answer = await acts.scan(self._gate, await acts.fresh_code(self._ann))
        hold(answer["decision"] == "allow", f"let in, not {answer}")
        path = f"/v1/gate/admissions/{answer['admission_id']}/result"
        passed = {"result": "passed", "at": utc_now().isoformat()}
        body_of(await self._gate.call("POST", path, passed))
        return f"{answer['display_name']} passed, {answer['left']} entries left here today"

    async def closed_park(self) -> str:
        """Be refused at a closed park: 506 闭园."""
        answer = await acts.scan(self._closed_gate, self._bo.show_code())
        hold(answer["reason"] == 506, f"closed now, not {answer}")
        return f"{answer['reason']} {answer['reason_text']}"

    async def reissue(self) -> str:
        """Reissue with the balance intact 补卡."""
        assert self._ann.phone
        # Used or not does not matter: that the card is another one now is said before that.
        old_code, before = self._ann.phone.code_at(utc_now()), await self._ann.card()
        path = f"/cards/{self._ann.card_id}/reissue"
        key = secrets.token_hex(16)
        card = body_of(await self._ann.call("POST", path, key=key, json={}), 201)
        again = await self._ann.call("POST", path, key=key, json={})
        hold(again.json() == card and again.status_code == 200, "reissued once")
        hold(card["balance_fen"] == before["balance_fen"], "the balance is intact")
        hold(card["passes"] == before["passes"], "so are the passes")
        hold(card["card_no"] != before["card_no"], "the number is new")
        await acts.be_declined(self._shop, old_code, 402)
        await self._ann.bind_phone()
        order_no = secrets.token_hex(8)
        charge = body_of(await acts.take(self._shop2, order_no, self._ann.show_code(), 800), 201)
        hold(charge["state"] == "succeeded", f"the new code pays, not {charge}")
        return f"{before['card_no']} → {card['card_no']}, {card['balance_fen']} fen; old code: 402"

    async def read_statement(self) -> str:
        """Read a statement that adds up 账单."""
        path = f"/cards/{self._ann.card_id}/entries?limit=200"
        lines = body_of(await self._ann.call("GET", path))["items"]
        card = await self._ann.card()
        hold(sum(line["amount_fen"] for line in lines) == card["balance_fen"], "it adds up")
        hold(lines[0]["balance_after_fen"] == card["balance_fen"], "and ends at the balance")
        titles = " · ".join(f"{line['title']} {line['amount_fen']}" for line in reversed(lines))
        return f"{titles} = {card['balance_fen']} fen"

    async def close(self) -> str:
        """Close a card, every fen back 销卡."""
        await self._bo.step_up(PIN)
        path = f"/cards/{self._bo.card_id}/closure"
        key = secrets.token_hex(16)
        body_of(await self._bo.call("POST", path, key=key, json={}))

        async def is_closed() -> bool:
            return bool((await self._bo.card())["state"] == "closed")

        await acts.until(is_closed, "the provider pays everything out")
        card = await self._bo.card()
        hold(card["balance_fen"] == 0, "nothing is left on it")
        return "8800 fen back through Alipay, card closed"

    async def prove(self) -> str:
        """Let the books prove themselves 账务自证."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "api.cli", "prove", stdout=asyncio.subprocess.PIPE
        )
        said, _ = await process.communicate()
        hold(process.returncode == 0, said.decode())
        return said.decode().strip().splitlines()[-1]
