"""The page of ``tools/serve.py`` in a browser: what it draws, and that neither it nor its server asks another host."""

import io
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch
from chromium import chromium, find_chromium, in_own_session, kept
from PIL import Image, ImageSequence
from weights_folders import weights_folder

import stylenat
from stylenat.commands._attention_figure import overlay
from stylenat.commands.attention_maps import of_sample
from stylenat.trained import opened
from stylenat.video import enlarged

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(find_chromium() is None, reason="there is no Chromium on this machine"),
]
pytest.importorskip("gradio", reason="Gradio is not installed")

WATCHED = """
import sys
log = open(sys.argv[1], "w", buffering=1)
def watch(event, arguments):
    if event in ("socket.bind", "socket.connect", "socket.sendto"):
        print(event, arguments[-1][0], file=log)
    elif event == "socket.getaddrinfo":
        print(event, arguments[0], file=log)
sys.addaudithook(watch)
from stylenat.commands.serve import main
sys.exit(main(sys.argv[2:]))
"""
"""The command in a process that writes down each address that it binds to, connects to, or asks for."""
IMAGE = "[...document.querySelectorAll('img')].find(i => i.naturalWidth === 512)"
MAPS = "[...document.querySelectorAll('.grid-wrap img')].filter(i => i.complete && i.naturalWidth === 512)"
WALK = "[...document.querySelectorAll('img')].find(i => i.src.endsWith('.gif') && i.naturalWidth)"


def downloaded(url: str | urllib.request.Request) -> Image.Image:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(url, timeout=30) as answer:
        return Image.open(io.BytesIO(answer.read()))


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB"))


def as_shown(image: torch.Tensor) -> np.ndarray:
    return enlarged(image, 512).permute(1, 2, 0).numpy()


def test_the_page_draws_what_is_chosen_and_clicked_and_nothing_outside_is_requested(tmp_path):
    model = stylenat.load(weights_folder(tmp_path / "model"))
    command = [sys.executable, "-c", WATCHED, str(tmp_path / "log"), str(tmp_path / "model"), "--port", "0"]
    with in_own_session(command, stdout=subprocess.PIPE, text=True) as server, chromium() as page:
        address = server.stdout.readline().split()[-1]
        page.open(address, f"!!{IMAGE}", reload_after=60)
        assert np.array_equal(pixels(downloaded(page.evaluate(f"{IMAGE}.src"))), as_shown(model.sample(0)[0]))

        before = page.evaluate(f"{IMAGE}.src")
        page.click("document.querySelector('input[type=number]')")
        page.evaluate("document.querySelector('input[type=number]').select()")
        page.call("Input.insertText", text="12")
        page.wait(f"{IMAGE} && {IMAGE}.src !== '{before}'")
        image, groups = of_sample(opened(tmp_path / "model").sampler(1.0, 1), 12, (9, 6))
        assert np.array_equal(pixels(downloaded(page.evaluate(f"{IMAGE}.src"))), as_shown(image))

        page.click(IMAGE, x=6.5 / 16, y=9.5 / 16)
        last = [group for group in groups if group.layer == groups[-1].layer]
        page.wait(f"{MAPS}.length === {len(last)}")
        for number, group in enumerate(last):
            expected = as_shown(overlay(image, group.maps.mean(0), group.query))
            assert np.array_equal(pixels(downloaded(page.evaluate(f"{MAPS}[{number}].src"))), expected)

        page.click("[...document.querySelectorAll('button')].find(b => b.innerText === 'Walk there and back')")
        page.wait(f"!!{WALK}")
        frames = [pixels(frame) for frame in ImageSequence.Iterator(downloaded(page.evaluate(f"{WALK}.src")))]
        assert len(frames) > 2 and not np.array_equal(frames[0], frames[len(frames) // 2])
        page.screenshot(tmp_path / "serve.png")
        kept(tmp_path / "serve.png")

        assert len(page.requests) > 10
        assert {urlsplit(url).netloc for url in page.requests if not url.startswith(("data:", "blob:"))} == {
            urlsplit(address).netloc
        }
        # What would be found, and that the page's policy refuses it.
        refused = "fetch('http://192.0.2.1/font').catch(() => window.refused = true)"
        page.evaluate(
            f"document.addEventListener('securitypolicyviolation', e => window.blocked = e.blockedURI); {refused}"
        )
        page.wait("window.refused && window.blocked === 'http://192.0.2.1/font'")
        # A page elsewhere whose name was made to point here (DNS rebinding) gets nothing.
        with pytest.raises(urllib.error.HTTPError, match="400"):
            downloaded(urllib.request.Request(address, headers={"Host": "elsewhere.example"}))
        server.send_signal(signal.SIGINT)
        assert server.wait(timeout=30) == 0
    contacts = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    assert ["socket.bind", "127.0.0.1"] in contacts
    assert {host for _, host in contacts} <= {"127.0.0.1", "localhost"}
