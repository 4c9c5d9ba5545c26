import numpy as np
import pytest
from aim_pages import CURVES, screenshot
from chromium import find_chromium
from PIL import Image

from plugins.trackers.aim_tracker import AimTracker
from stylenat.comparison.aim_links import metrics_path
from stylenat.testing.tracker import DETAILS
from stylenat.training.run import Run

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(find_chromium() is None, reason="there is no Chromium on this machine"),
]
aim = pytest.importorskip("aim", reason="Aim is not installed")


@pytest.fixture(scope="module")
def tracked(tmp_path_factory):
    """A repository with one finished run in it, and the run's identity there."""
    folder = tmp_path_factory.mktemp("aim")
    run = Run("faces", "browser", folder, 500, 4, "train.iterations = 500\n", {"train": {"seed": 7}}, {})
    tracker = AimTracker(str(folder), every=10)
    tracker.run_started(run)
    for step in range(1, 501):
        scalars = {
            "loss/generator": 1 + np.sin(step / 50),
            "loss/discriminator": 50 / step,
            "augmentation/p": step / 500,
        }
        tracker.step_ended(run, step, scalars)
        if step % 100 == 0:
            tracker.metrics_evaluated(run, step, {"fid": 100 / step}, DETAILS | {"spread": {}})
    Image.new("RGB", (64, 64), (200, 30, 30)).save(folder / "grid.png")
    tracker.images_sampled(run, 500, folder / "grid.png")
    tracker.run_ended(run, "finished")
    return folder, tracker.state_dict()["hash"]


def test_the_metrics_page_draws_each_networks_curve_and_the_metrics(tracked, tmp_path):
    repo, _ = tracked
    path = metrics_path("run.experiment == 'browser'", ["name", "context.net"])
    text = screenshot(repo, path, tmp_path / "metrics.png", until=f"{CURVES} === 4")
    for name, net in (("loss", '"generator"'), ("loss", '"discriminator"'), ("fid", '"ema"'), ("augmentation/p", "--")):
        assert f'metric.name="{name}", metric.context.net={net}' in text
    pixels = np.asarray(Image.open(tmp_path / "metrics.png").convert("RGB"))
    assert pixels.shape[1] == 1600 and len(np.unique(pixels.reshape(-1, 3), axis=0)) > 100


def test_the_runs_own_page_shows_its_sample_grid(tracked, tmp_path):
    repo, identity = tracked
    shown = "[...document.querySelectorAll('img')].some(i => i.naturalWidth === 64 && i.naturalHeight === 64)"
    screenshot(repo, f"/runs/{identity}/images", tmp_path / "images.png", until=shown)
    pixels = np.asarray(Image.open(tmp_path / "images.png").convert("RGB"))
    assert (pixels == (200, 30, 30)).all(axis=2).sum() > 1000
