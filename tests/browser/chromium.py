"""Drives a headless Chromium over its debugging pipe: no port, no driver, no library beyond the standard one."""

import base64
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def find_chromium() -> str | None:
    """Where Chromium is, if it is."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@contextmanager
def in_own_session(command: list[str], **options: Any) -> Iterator[subprocess.Popen]:
    """A process that is ended together with all that it started."""
    process = subprocess.Popen(command, start_new_session=True, **options)
    try:
        yield process
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, number)
                process.wait(timeout=10)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue


class Page:
    """One page of a running Chromium. Every method raises TimeoutError where Chromium stays silent for a minute.

    Attributes:
        requests: the URLs that the page has asked for, those that failed or were refused among them.
    """

    def __init__(self, commands: int, answers: int) -> None:
        self._commands, self._answers = commands, answers
        self._number, self._read = 0, b""
        self._session: str | None = None
        self.requests: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.call("Page.enable")
        self.call("Network.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the DevTools protocol. Raises RuntimeError with Chromium's words when it fails."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("method") == "Network.requestWillBeSent":
                self.requests.append(answer["params"]["request"]["url"])
            elif answer.get("method") == "Network.webSocketCreated":
                self.requests.append(answer["params"]["url"])
            if answer.get("id") == self._number:  # Anything else is an event.
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._read:
            if not select.select([self._answers], [], [], 60)[0]:
                raise TimeoutError("Chromium does not answer")
            data = os.read(self._answers, 1 << 20)
            if not data:
                raise RuntimeError("Chromium has ended")
            self._read += data
        message, _, self._read = self._read.partition(b"\0")
        return json.loads(message)

    def evaluate(self, expression: str) -> Any:
        """A JavaScript expression's plain value, None where it throws."""
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def open(self, url: str, until: str, seconds: float = 90, reload_after: float = 15) -> None:
        """Opens the page and waits until a JavaScript expression holds, loading it anew now and then."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.call("Page.navigate", url=url)
            again = min(end, time.monotonic() + reload_after)
            while time.monotonic() < again:
                if self.evaluate(until):
                    return
                time.sleep(0.2)
        raise TimeoutError(f"{url} does not come to {until}; it says: {self.evaluate('document.body.innerText')!r}")

    def wait(self, until: str, seconds: float = 60) -> None:
        """Waits until a JavaScript expression holds. Raises TimeoutError."""
        end = time.monotonic() + seconds
        while not self.evaluate(until):
            if time.monotonic() > end:
                text = self.evaluate("document.body.innerText")
                raise TimeoutError(f"the page does not come to {until}; it says: {text!r}")
            time.sleep(0.1)

    def click(self, element: str, x: float = 0.5, y: float = 0.5) -> None:
        """Clicks into the element of a JavaScript expression. x, y: where in it, from 0 at the left and at the top."""
        box = (
            f"(({element}).scrollIntoView(), (b => [b.x, b.y, b.width, b.height])(({element}).getBoundingClientRect()))"
        )
        left, top, width, height = self.evaluate(box)
        where = {"x": left + x * width, "y": top + y * height, "button": "left", "clickCount": 1}
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, **where)

    def screenshot(self, path: Path) -> None:
        """Writes what is to be seen as a PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))


def kept(path: Path) -> None:
    """Copies a screenshot to where the one who runs the tests asks for it."""
    if folder := os.environ.get("STYLENAT_SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder)


@contextmanager
def chromium(width: int = 1600, height: int = 1000) -> Iterator[Page]:
    """A blank page in a fresh profile, from which no host but this one can be reached."""
    command_end, commands = os.pipe()
    answers, answer_end = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = [
            "--headless=new",
            "--remote-debugging-pipe",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--no-proxy-server",
            "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
            f"--user-data-dir={profile}",
            f"--window-size={width},{height}",
        ]
        # Chromium expects the pipe at descriptors 3 and 4.
        script = f'exec "$@" 3<&{command_end} 4>&{answer_end}'
        command = ["bash", "-c", script, "chromium", str(find_chromium()), *options]
        with in_own_session(command, pass_fds=(command_end, answer_end), stderr=subprocess.DEVNULL):
            os.close(command_end)
            os.close(answer_end)
            try:
                yield Page(commands, answers)
            finally:
                os.close(commands)
                os.close(answers)
