"""What tools/compare.py prints opens in Aim as it says."""

import numpy as np
import pytest
from aim_pages import SEARCHING, aim_up
from chromium import chromium, find_chromium, kept
from PIL import Image

from registry import load_plugins
from stylenat.commands._command import ASIDE, CORE
from stylenat.comparison.aim_links import links
from stylenat.comparison.find import found_runs
from stylenat.comparison.results import compared_runs

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(find_chromium() is None, reason="there is no Chromium on this machine"),
]
pytest.importorskip("aim", reason="Aim is not installed")

CURVES = "[...document.querySelectorAll('.LineChart path.AggrLine')]"
AREAS = "document.querySelectorAll('.LineChart path.AggrArea').length"
IMAGES = "[...document.querySelectorAll('img')].filter(i => i.naturalWidth > 60).length"


def test_every_link_shows_each_variants_curves_and_images(ablated, tmp_path):
    found = found_runs(load_plugins(core=CORE, aside=ASIDE), [ablated], None)
    comparison = compared_runs(found.runs, found.name, (), found.order)
    with aim_up(ablated.parents[1]) as address, chromium() as page:
        script = "localStorage.setItem('communityPopupSeen', 'true')"
        page.call("Page.addScriptToEvaluateOnNewDocument", source=script)
        # A page takes five seconds: each kind of page and each grouping, not all pairs of them.
        for group_by, title, count in ((None, "losses", 4), ("block.hydra.partition", "frechet_random_features", 2)):
            pages = links(comparison, group_by, address).pages
            # One curve a variant, the mean over its seeds, with a colour of its own and an area around it.
            page.open(pages[title], f"{CURVES}.length === {count} && {AREAS} === {count} && !{SEARCHING}")
            colours = page.evaluate(f"[...new Set({CURVES}.map(p => p.style.stroke || p.getAttribute('stroke')))]")
            assert len(colours) == 2, colours
            page.screenshot(tmp_path / f"aim-{title}.png")
            kept(tmp_path / f"aim-{title}.png")
            page.open(pages["samples"], f"{IMAGES} >= 3 && !{SEARCHING}")  # Rows below the window are not drawn.
            text = page.evaluate("document.body.innerText")
            words = ("near", "far") if group_by is None else ("@partition.uniform()", "@partition.global()")
            assert all(word in text for word in words)
            shown = " ".join(text.split())
            assert "run.labels.seed = 0" in shown and "record.step = 4" in shown, text
            page.screenshot(tmp_path / "aim-samples.png")
            kept(tmp_path / "aim-samples.png")
    assert len(np.unique(np.asarray(Image.open(tmp_path / "aim-samples.png")).reshape(-1, 3), axis=0)) > 500
