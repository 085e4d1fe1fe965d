"""Starting the simulators as the process they are; the API's tests start them here too."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx

REPOSITORY = Path(__file__).parents[2]
READY = "simulators ready on "


@dataclass(frozen=True)
class Simulators:
    """Running simulators: where they are, and the settings they wrote for our app."""

    url: str
    control: str
    env: dict[str, str]
    process: subprocess.Popen[str]

    def tell(self, action: str, **told: object) -> httpx.Response:
        """Post to the control plane, whatever it answers."""
        return httpx.post(f"{self.control}/{action}", json=told, trust_env=False)

    def now(self) -> datetime:
        """Return the time by their clock, whole seconds."""
        answer = httpx.get(f"{self.control}/messages", trust_env=False)
        return parsedate_to_datetime(answer.headers["date"])

    def kill(self) -> None:
        """End the process without a warning (kill -9)."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@contextmanager
def start_simulators(directory: Path, time_scale: float = 0.02) -> Iterator[Simulators]:
    """Run simulators on a free port, their keys and memory in `directory`, until the block ends.

    Raises:
        RuntimeError: they did not start; their own words are on stderr.
    """
    command = [sys.executable, "-m", "simulators", "--port", "0", "--dir", str(directory)]
    with subprocess.Popen(
        [*command, "--time-scale", str(time_scale)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            if not line.startswith(READY):
                raise RuntimeError(f"the simulators did not start: {line!r}")
            env = read_env(directory / "providers.env")
            url = line.removeprefix(READY).strip()
            yield Simulators(url, env["SIMULATORS_CONTROL_URL"], env, process)
        finally:
            process.terminate()


def read_env(path: Path) -> dict[str, str]:
    lines = path.read_text().splitlines()
    return dict(line.split("=", maxsplit=1) for line in lines)
