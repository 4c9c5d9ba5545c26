"""A killed evaluation goes on where it was, and finds the bits of one that was not interrupted."""

import os
from pathlib import Path

import pytest
import torch
from image_sets import Images
from torch import distributed, multiprocessing, nn

from plugins.features.random_convolution import RandomConvolution
from plugins.metrics.frechet import FrechetRandomFeatures
from plugins.metrics.kernel import KID
from plugins.metrics.sliced_wasserstein import SlicedWasserstein
from plugins.metrics.spectrum import Spectrum
from stylenat.evaluation import unfinished
from stylenat.evaluation.cache import StatisticsCache
from stylenat.evaluation.evaluate import Evaluator, digest_of
from stylenat.testing.contract import pictures

COUNT = 73
FAKE, REAL = pictures(COUNT, 16, seed=1), pictures(60, 16)


class Killed(BaseException):
    """As a kill, it lets nothing be written."""


def killed(*_):
    raise Killed


class Generated:
    """Given images, as of a generator; the process is killed when it draws so many more."""

    def __init__(self, kill_after=10**9, weight=0.0):
        self.generator = nn.Linear(1, 1)
        nn.init.constant_(self.generator.weight, weight)
        nn.init.zeros_(self.generator.bias)
        self.drawn, self.kill_after = [], kill_after

    def __call__(self, start, count):
        if len(self.drawn) >= self.kill_after:
            raise Killed
        self.drawn.append(start)
        return FAKE[torch.arange(start, start + count).clamp_max(COUNT - 1)]

    def protocol(self):
        return {"seed": 0}


class Embedded(RandomConvolution):
    """Counts the images that it embeds."""

    images = 0

    def __call__(self, images):
        Embedded.images += len(images)
        return super().__call__(images)


@pytest.fixture(autouse=True)
def every_block(monkeypatch):
    monkeypatch.setattr(unfinished, "EVERY", 0.0)


def metrics():
    return [FrechetRandomFeatures(), KID(RandomConvolution(), subsets=3, subset_size=8), SlicedWasserstein(),
            Spectrum()]  # fmt: skip


def evaluated(folder, generate, said=None, kept_as=None, of=metrics, real=REAL):
    say = [].append if said is None else said.append
    kept_as = {"config": "one"} if kept_as is None else kept_as
    evaluator = Evaluator(Images(real, "content"), of(), cache=StatisticsCache(folder, say), kept_as=kept_as)
    found = evaluator.evaluate(generate, COUNT)
    return found.metrics, found.spread, found.protocol


def files(folder):
    return sorted((folder / "unfinished").glob("*"))


def test_an_evaluation_that_is_killed_goes_on_and_finds_the_same_bits(tmp_path):
    expected = evaluated(tmp_path / "other", Generated())
    for blocks in (2, 1):  # Killed twice.
        with pytest.raises(Killed):
            evaluated(tmp_path, Generated(kill_after=blocks))
    last = Generated()
    assert evaluated(tmp_path, last) == expected
    assert last.drawn == [48, 64] and files(tmp_path) == []
    assert not (tmp_path / "other" / "unfinished").exists() or files(tmp_path / "other") == []


def test_one_killed_while_it_computes_values_draws_no_image_again(tmp_path, monkeypatch):
    with monkeypatch.context() as context:
        context.setattr(Spectrum, "compare", killed)
        with pytest.raises(Killed):
            evaluated(tmp_path, Generated())
    again = Generated()
    assert evaluated(tmp_path, again) == evaluated(tmp_path / "other", Generated())
    assert again.drawn == []


class DiesAt(Images):
    """Real images, of which number ``last`` cannot be reached alive."""

    last = 10**9

    def __getitem__(self, index):
        if index >= self.last:
            raise Killed
        return super().__getitem__(index)


def test_real_images_are_embedded_once_though_they_are_read_again_for_their_checksum(tmp_path):
    def of():
        return [FrechetRandomFeatures(Embedded()), SlicedWasserstein()]

    expected = evaluated(tmp_path / "other", Generated(), of=of)
    Embedded.images = 0
    evaluator = Evaluator(
        DiesAt(REAL, "content"), of(), cache=StatisticsCache(tmp_path, print), kept_as={"config": "one"}
    )
    evaluator.real.dataset.last = 40
    with pytest.raises(Killed):
        evaluator.evaluate(Generated(), COUNT)
    assert Embedded.images == 32
    assert evaluated(tmp_path, Generated(), of=of) == expected
    assert Embedded.images == 64 + 80 and files(tmp_path) == []


@pytest.mark.parametrize(
    "changes", [{"generate": Generated(weight=1.0)}, {"kept_as": {"config": "two"}}, {"folder": "elsewhere"}]
)
def test_other_weights_or_settings_begin_anew(tmp_path, changes):
    with pytest.raises(Killed):
        evaluated(tmp_path, Generated(kill_after=3))
    generate = changes.get("generate", Generated())
    generate.drawn.clear()
    evaluated(tmp_path / changes.get("folder", ""), generate, kept_as=changes.get("kept_as"))
    assert generate.drawn == [0, 16, 32, 48, 64]


@pytest.mark.parametrize("damage", ["cut", "missing", "another"])
def test_damaged_parts_are_computed_again_with_those_that_follow(tmp_path, damage):
    expected = evaluated(tmp_path / "other", Generated())
    with pytest.raises(Killed):
        evaluated(tmp_path, Generated(kill_after=3))
    parts = files(tmp_path)
    assert len(parts) == 3 * 3 + 2 * 4  # Images and two kinds of vectors; of the real images, the vectors.
    for part in parts:
        match damage:
            case "cut":
                part.write_bytes(part.read_bytes()[:-5])
            case "missing":
                part.unlink()
            case "another":
                part.write_bytes(parts[0].read_bytes())
    said, generate = [], Generated()
    assert evaluated(tmp_path, generate, said) == expected
    assert generate.drawn[0] == 0 and all("is damaged" in line for line in said)
    assert bool(said) is (damage != "missing")


def test_a_full_disk_is_one_line_and_the_evaluation_goes_on(tmp_path):
    (tmp_path / "unfinished").write_text("in the way of the folder")
    said: list[str] = []
    assert evaluated(tmp_path, Generated(), said) == evaluated(tmp_path / "other", Generated())
    assert len([line for line in said if "an unfinished evaluation cannot be kept" in line]) <= 2


def test_images_beyond_what_is_kept_are_drawn_again_and_not_embedded_again(tmp_path, monkeypatch):
    monkeypatch.setattr(unfinished, "IMAGES_BYTES", 1)  # One block.

    def of():
        return [FrechetRandomFeatures(Embedded()), SlicedWasserstein()]

    expected = evaluated(tmp_path / "other", Generated(), of=of)
    Embedded.images = 0
    with pytest.raises(Killed):
        evaluated(tmp_path, Generated(kill_after=3), of=of)
    again = Generated()
    assert evaluated(tmp_path, again, of=of) == expected
    assert again.drawn == [16, 32, 48, 64] and Embedded.images == 64 + 80  # Real and generated images, once each.


def test_a_minute_passes_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(unfinished, "EVERY", 60.0)
    with pytest.raises(Killed):
        evaluated(tmp_path, Generated(kill_after=3))
    assert files(tmp_path) == []


def test_what_nobody_continued_is_removed_after_a_month(tmp_path):
    with pytest.raises(Killed):
        evaluated(tmp_path, Generated(kill_after=1))
    old, *recent = files(tmp_path)
    os.utime(old, (0, 0))
    with pytest.raises(Killed):
        evaluated(tmp_path, Generated(kill_after=0), kept_as={"config": "two"})
    assert files(tmp_path) == recent


def test_the_digest_of_a_network_is_of_names_shapes_and_values():
    one, other = Generated().generator, Generated().generator
    assert digest_of(one) == digest_of(other)
    other.bias.data += 1
    assert digest_of(one) != digest_of(other)
    assert digest_of(nn.Sequential(one)) != digest_of(one)


def _two(rank: int, folder: str, kill_after: int) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    unfinished.EVERY = 0.0
    place = f"file://{folder}/rendezvous-{kill_after}"
    distributed.init_process_group("gloo", init_method=place, rank=rank, world_size=2)
    generate = Generated(kill_after)
    try:
        found = evaluated(Path(folder), generate)[0]
        torch.save([torch.tensor(list(found.values()), dtype=torch.float64), generate.drawn], f"{folder}/{rank}.pt")
    except Killed:
        pass
    distributed.destroy_process_group()


def test_two_processes_go_on_together(tmp_path):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    alone = torch.tensor(list(evaluated(tmp_path / "other", Generated())[0].values()), dtype=torch.float64)
    torch.set_num_threads(threads)
    for kill_after in (1, 100):
        arguments = (str(tmp_path), kill_after)
        multiprocessing.start_processes(_two, arguments, nprocs=2, start_method="fork")
    for rank, drawn in enumerate(([32, 64], [48, 80])):
        values, found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert torch.equal(values, alone) and found == drawn
