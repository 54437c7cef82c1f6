"""Start a server: its logs, the options on the command line, and its port."""

import argparse
import logging
import os
import socket
import sys
from contextlib import suppress

import uvicorn

from tasks import machine
from tasks.stage import LOUD

log = logging.getLogger(__name__)


def set_up_logging(style: str) -> None:
    """Log in a `style` such as `%(message)s`, without the noise of libraries."""
    logging.basicConfig(level=os.environ.get("LOG_LEVEL", "INFO"), format=style)
    # python_multipart warns of faults in a request; the client gets the same message.
    quiet = {"httpx": logging.WARNING, "python_multipart": logging.ERROR}
    for library, level in (LOUD | quiet).items():
        logging.getLogger(library).setLevel(level)
    machine.report_ignored(log.info)


def make_parser(
    prog: str, description: str, host: str | None, port: int
) -> argparse.ArgumentParser:
    """Return a parser with the options of both servers. `host` None: the environment decides."""
    parser = argparse.ArgumentParser(prog=prog, description=description)
    parser.add_argument(
        "--model",
        default=None if host is None else "champion",
        help="champion (default), another alias, a version, or a folder such as data/models/cnn_a",
    )
    parser.add_argument(
        "--name", help="name of the registered model; default: register.model of params.yaml"
    )
    parser.add_argument(
        "--host",
        default=host,
        help="address to listen at; default: 127.0.0.1, which only this machine can reach",
    )
    parser.add_argument(
        "--port",
        type=int,
        default=None if host is None else port,
        help=f"port to listen at; default: {port}",
    )
    return parser


def announce(model: str, held: socket.socket, protected: bool, remedy: str) -> None:
    """Log the address of a server, and a warning if it is open to other machines."""
    host, port = held.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    log.info("%s answers at http://%s:%d until Ctrl-C", model, shown, port)
    if host not in machine.LOOPBACK and not protected:
        log.warning("warn: everyone who can reach %s can use this server; %s", host, remedy)


def run(config: uvicorn.Config, held: socket.socket) -> None:
    """Serve on a held port until interrupted. Finish the accepted requests first.

    The port is held before the model is loaded: a taken port is reported at once.
    """
    server = uvicorn.Server(config)
    with suppress(KeyboardInterrupt):
        server.run(sockets=[held])
    if not server.started:
        sys.exit(1)
