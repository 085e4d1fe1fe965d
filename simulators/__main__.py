"""`python -m simulators`: all providers on one port of this machine, until it is stopped."""

import argparse
import socket
import sys
from pathlib import Path

import uvicorn

from simulators import keys
from simulators.app import create_app


class Server(uvicorn.Server):
    """A server that says when it accepts."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then print the one line that whoever started us is waiting for."""
        await super().startup(sockets=sockets)
        for listening in sockets or []:
            sys.stdout.write(f"simulators ready on {_url(listening)}\n")
        sys.stdout.flush()


def main() -> None:
    """Make or read the keys, bind the port, write `providers.env`, serve."""
    parser = argparse.ArgumentParser(prog="simulators", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="a loopback address")
    parser.add_argument("--port", type=int, required=True, help="0 takes any free port")
    parser.add_argument("--dir", type=Path, required=True, help="keys and memory, kept for later")
    parser.add_argument(
        "--time-scale", type=float, default=0.02, help="what the providers' pauses shrink to"
    )
    options = parser.parse_args()
    made = keys.make(options.dir)
    app = create_app(made, time_scale=options.time_scale)
    with socket.create_server((options.host, options.port)) as listening:
        keys.write_env(made, _url(listening))
        config = uvicorn.Config(app, log_level="warning", access_log=False, lifespan="on")
        Server(config).run(sockets=[listening])


def _url(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://{host}:{port}"


if __name__ == "__main__":
    main()
