"""Opens Aim's UI on loopback and photographs it with headless Chromium."""

import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
CHROMEDRIVER = shutil.which("chromedriver")
QUIET = [
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    # Aim's pages ask public hosts for fonts and draw without them.
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
]  # fmt: skip


@contextmanager
def aim_up(repo: Path) -> Iterator[str]:
    """Runs ``aim up`` in a session of its own, which ends with its worker; yields its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    aim = Path(sys.executable).with_name("aim")
    command = [aim, "up", "--repo", repo, "--host", "127.0.0.1", "--port", str(port)]
    environment = os.environ | {"AIM_UI_TELEMETRY_ENABLED": "0"}
    server = subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
    )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(120):
            try:
                urllib.request.urlopen(f"{address}/api/projects/", timeout=2).read()
                break
            except OSError:
                time.sleep(0.5)
        else:
            raise TimeoutError("aim up did not answer within a minute")
        yield address
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=20)


def metrics_link(query: str, group_by: str = "run.props.name") -> str:
    """Path of the metrics page with a query, curves in one chart a metric name, coloured by a key."""

    def encoded(value: object) -> str:
        text = urllib.parse.quote(json.dumps(value, separators=(",", ":")), safe="~()*!.'-_;,/?:@&=+$#")
        return "O-" + base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    select = {"options": [], "query": "", "advancedMode": True, "advancedQuery": query}
    grouping = {"color": [group_by], "stroke": ["context.name", "context.net"], "chart": ["name"]}
    return f"/metrics?select={encoded(select)}&grouping={encoded(grouping)}"


@contextmanager
def browser() -> Iterator[Any]:
    """A headless Chromium under selenium."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in [*QUIET, "--window-size=1400,1000"]:
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(CHROMEDRIVER))
    try:
        yield driver
    finally:
        driver.quit()


def curves(driver: Any, address: str, link: str, expected: int, picture: Path | None = None) -> int:
    """Opens a metrics link and waits for that many curves; returns how many are drawn, and keeps a picture."""
    driver.get(address)
    driver.execute_script("localStorage.setItem('communityPopupSeen', 'true')")
    driver.get(address + link)
    drawn = 0
    for _ in range(60):
        drawn = len(driver.find_elements("css selector", "path.Line"))
        if drawn >= expected:
            time.sleep(1)  # The axes follow the lines.
            break
        time.sleep(0.5)
    if picture is not None:
        driver.save_screenshot(str(picture))
    return drawn
