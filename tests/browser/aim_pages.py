"""Photographs pages of the Aim UI. ``python tests/browser/aim_pages.py REPO /runs OUT.png`` does so by hand.

Not called aim_ui: that is the name of the package which holds Aim's own pages.
"""

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from chromium import chromium, in_own_session

# JavaScript: how many curves of more than a few points are drawn; whether a search is still going on.
CURVES = "[...document.querySelectorAll('.LineChart path.Line')].filter(p => p.getAttribute('d').length > 50).length"
SEARCHING = "document.body.innerText.includes('Processing...')"


@contextmanager
def aim_up(repo: str | Path) -> Iterator[str]:
    """The address of an Aim UI of the repository on a loopback port of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start = "import sys; from aim.cli.cli import cli_entry_point; sys.exit(cli_entry_point())"
    options = ["up", "--repo", str(repo), "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command = [sys.executable, "-c", start, *options]
    with in_own_session(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        address = f"http://127.0.0.1:{port}"
        _wait(f"{address}/api/projects/", process)
        yield address


def _wait(address: str, process: subprocess.Popen, seconds: float = 60) -> None:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        try:
            direct.open(address, timeout=5).close()
            return
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            time.sleep(0.2)
    raise TimeoutError(f"aim up does not answer at {address}")


def screenshot(repo: str | Path, url_path: str, out_png: str | Path, until: str = "document.body.innerText") -> str:
    """Writes what a page of the Aim UI shows as a PNG, once the JavaScript expression ``until`` holds.

    Returns:
        The text to be read on the page.

    Raises:
        TimeoutError: Aim does not start, or the page does not come to ``until``; with the page's text.
    """
    with aim_up(repo) as address, chromium() as page:
        # The first visit's invitation would lie over the page.
        script = "localStorage.setItem('communityPopupSeen', 'true')"
        page.call("Page.addScriptToEvaluateOnNewDocument", source=script)
        page.open(address + url_path, f"({until}) && !{SEARCHING}")
        time.sleep(2)  # Charts, images and menus move into place.
        page.screenshot(Path(out_png))
        return page.evaluate("document.body.innerText")


if __name__ == "__main__":
    print(screenshot(*sys.argv[1:4]))
