"""Run an application on a port that was held before the model was loaded, so that nobody is told of one that is taken."""

import socket
import sys
from contextlib import suppress

import uvicorn
from fastapi import FastAPI


def run(app: FastAPI, held: socket.socket, **options: object) -> None:
    """Serve until interrupted, and finish what was accepted; end with an error where the application did not start."""
    server = uvicorn.Server(uvicorn.Config(app, **options))
    with suppress(KeyboardInterrupt):
        server.run(sockets=[held])
    if not server.started:
        sys.exit(1)
