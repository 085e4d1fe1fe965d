"""Papers of made-up people, drawn once: drawing takes seconds, and a number is all that differs."""

import random
from datetime import date
from pathlib import Path
from typing import NamedTuple

import httpx

from api.commands.callers import Citizen
from api.commands.specimen import make_specimen
from identity.people import id_numbers


class Papers(NamedTuple):
    """What a person would upload; the pictures are good, but for `blurred`."""

    name: str
    id_number: str
    id_front: bytes
    id_back: bytes
    selfie: bytes
    blurred: bytes

    async def submit(self, caller: Citizen, **other: object) -> httpx.Response:
        """Hand the papers in, with some members replaced; None leaves a picture out."""
        said = {**self._asdict(), **other}
        files = {
            kind: (f"{kind}.jpg", said[kind], "image/jpeg")
            for kind in ("id_front", "id_back", "selfie")
            if said[kind] is not None
        }
        fields = {"name": said["name"], "id_number": said["id_number"]}
        return await caller.call("POST", "/me/real-name", data=fields, files=files)


def number_of_age(years: int, on: date, *, sequence: int = 7) -> str:
    """Return a well-formed number of somebody who is so old on a day."""
    return id_numbers.make(
        region_code="320299", birth_on=on.replace(year=on.year - years), sequence=sequence
    )


def draw_papers(folder: Path) -> Papers:
    """Return papers drawn anew."""
    made = make_specimen(folder / "good", review=False, rng=random.Random(11))
    blurred = make_specimen(folder / "blurred", review=True, rng=random.Random(11))
    return Papers(
        made.name,
        made.id_number,
        made.id_front.read_bytes(),
        made.id_back.read_bytes(),
        made.selfie.read_bytes(),
        blurred.id_front.read_bytes(),
    )
