"""``tools/serve.py``: a page on this machine that shows a generator."""

import argparse
import errno
import os
import socket
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec

from registry import UserError
from registry.wording import printable
from stylenat.commands._arguments import Parser
from stylenat.commands._command import command
from stylenat.commands._generator import add_run, opened_on_device

EXAMPLES = """examples:
  python tools/serve.py runs/NAME
  python tools/serve.py runs/NAME --port 8000 --device cuda

Then open the printed address in a browser on this machine. The page has controls for seed, truncation, class and style
mixing, a walk between two seeds, and shows what the attention heads look at from the pixel that is clicked; what the
generator lacks is not there. It listens on 127.0.0.1 only and requests nothing from other hosts. Ctrl-C ends it. For a
machine elsewhere, forward the port: ssh -L 7860:127.0.0.1:7860 HOST. Needs Gradio (pip install 'stylenat[serve]').
"""
HOST = "127.0.0.1"


def parser() -> argparse.ArgumentParser:
    parser = Parser(prog="serve", description="Show a generator on a local page.", epilog=EXAMPLES)
    add_run(parser)
    parser.add_argument("--port", type=int, default=7860, metavar="N", help="0: any free one (default: %(default)s)")
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    if find_spec("gradio") is None:
        raise UserError("the page needs Gradio, which is not installed: pip install 'stylenat[serve]'")
    with listening(arguments.port) as connections, tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        opened, _ = opened_on_device(arguments, "serve", argv)
        # Before Gradio is imported. Its copies of the pictures disappear with the folder.
        os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": folder}

        import uvicorn

        from stylenat.commands._page import application, page
        from stylenat.commands._viewer import Viewer
        from stylenat.pixels import NotFinite

        try:
            viewer = Viewer(opened)
        except NotFinite as error:
            raise UserError(str(error)) from error
        name = printable(f"{type(opened.generator).__name__}, {arguments.run}")
        port = connections.getsockname()[1]
        app = application(page(viewer, name), HOST, port)
        print(printable(f"{name}: http://{HOST}:{port}"), flush=True)
        # A page that stays open keeps its connection; the server does not wait for it.
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
        try:
            server.run(sockets=[connections])
        except KeyboardInterrupt:  # It raises Ctrl-C and SIGTERM again when it has ended.
            print("ended")
    return 0


def listening(port: int) -> socket.socket:
    """A socket that listens on this port of 127.0.0.1. Raises UserError where that is impossible."""
    if not 0 <= port < 65536:
        raise UserError(f"--port must be 0 to 65535; got {port}")
    found = socket.socket()
    try:
        # Connections of a server that has just ended are no obstacle.
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((HOST, port))
        found.listen()
    except OSError as error:
        found.close()
        if error.errno == errno.EADDRINUSE:
            raise UserError(f"port {port} is in use; choose another --port, or 0 for any free one") from error
        raise UserError(f"cannot listen on {HOST}:{port}: {error.strerror}; choose another --port") from error
    return found
