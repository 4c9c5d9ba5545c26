"""Real statistics are found again by their whole key and by nothing else; a damaged entry is computed again."""

import fcntl
import json
import multiprocessing
import os
import threading
import time

import pytest
import torch
from image_sets import Images, copies
from safetensors import safe_open
from safetensors.torch import save_file

from plugins.features.random_convolution import RandomConvolution
from plugins.metrics.frechet import FID
from plugins.metrics.kernel import KID
from plugins.metrics.sliced_wasserstein import SlicedWasserstein
from stylenat.evaluation.baselines import baselines
from stylenat.evaluation.cache import StatisticsCache, _checksum, statistics_folder
from stylenat.evaluation.evaluate import Evaluator
from stylenat.evaluation.real import RealSet
from stylenat.testing.contract import pictures

REAL, FAKE = pictures(40, 16), pictures(40, 16, seed=1)


@pytest.fixture
def said():
    return []


@pytest.fixture
def cache(tmp_path, said):
    return StatisticsCache(tmp_path / "cache", said.append)


def measured(cache, dataset, channels=8, real_samples=None, more=()):
    metrics = [FID(RandomConvolution(channels)), KID(RandomConvolution(channels), subsets=2, subset_size=8), *more]
    return Evaluator(dataset, metrics, cache=cache, real_samples=real_samples).evaluate(copies(FAKE), 40)


def test_the_second_evaluation_reads_no_image_and_finds_the_same(cache, said, tmp_path):
    first, again = Images(REAL, "content"), Images(REAL, "content")
    one, other = measured(cache, first), measured(cache, again)
    assert (first.read, again.read, said) == (48, 0, [])
    assert one.metrics == other.metrics and one.protocol == other.protocol
    assert all(path.suffix == ".safetensors" for path in (tmp_path / "cache").iterdir())


@pytest.mark.parametrize(
    "changes",
    [
        {"dataset": Images(REAL, "other content")},
        {"channels": 4},
        {"real_samples": 39},
        {"dataset": Images(pictures(40, 32), "content")},
    ],
)
def test_whatever_the_statistics_depend_on_is_in_the_key(cache, changes):
    measured(cache, Images(REAL, "content"))
    dataset = changes.setdefault("dataset", Images(REAL, "content"))
    dataset.read = 0
    measured(cache, **changes)
    assert dataset.read >= dataset.__len__() - 1


def test_images_of_an_unknown_content_are_read_in_every_run(cache, tmp_path):
    for _ in range(2):
        dataset = Images(REAL)
        measured(cache, dataset)
        assert dataset.read == 48
    assert not (tmp_path / "cache").exists()


def test_what_cannot_be_kept_is_read_again_beside_what_is(cache):
    measured(cache, Images(REAL, "content"))
    dataset = Images(REAL, "content")
    with_patches = measured(cache, dataset, more=[SlicedWasserstein()])
    assert dataset.read == 48
    assert with_patches.metrics == measured(None, Images(REAL), more=[SlicedWasserstein()]).metrics


@pytest.mark.parametrize("damage", ["cut", "changed", "emptied", "swapped"])
def test_a_damaged_entry_is_computed_again_with_a_line(cache, said, tmp_path, damage):
    expected = measured(cache, Images(REAL, "content")).metrics
    entries = sorted((tmp_path / "cache").iterdir())
    whole = entries[0].read_bytes()
    match damage:
        case "cut":
            entries[0].write_bytes(whole[:-10])
        case "changed":
            entries[0].write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        case "emptied":
            entries[0].write_bytes(b"")
        case "swapped":
            entries[0].write_bytes(entries[1].read_bytes())
    dataset = Images(REAL, "content")
    assert measured(cache, dataset).metrics == expected and dataset.read == 48
    assert len(said) == 1 and "is damaged" in said[0]
    mended = Images(REAL, "content")
    assert measured(cache, mended).metrics == expected and (mended.read, len(said)) == (0, 1)


def forged(entry, change):
    """The entry with other contents, whose key and checksum are right."""
    with safe_open(entry, "pt") as file:
        noted, tensors = dict(file.metadata()), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(noted, tensors)
    save_file(tensors, entry, noted | {"sha256": _checksum(tensors)})


@pytest.mark.parametrize(
    "change",
    [
        lambda noted, tensors: noted.update(notes="{}"),
        lambda noted, tensors: noted.update(notes=json.dumps({"pixels_sha256": "\x1b[31m"})),
        lambda noted, tensors: noted.update(notes=json.dumps({"pixels_sha256": ["0" * 64]})),
        lambda noted, tensors: noted.update(notes="[" * 100_000),
        lambda noted, tensors: tensors.clear(),
        lambda noted, tensors: tensors.update({name: tensor[None] for name, tensor in tensors.items()}),
        lambda noted, tensors: tensors.update({name: tensor.half() for name, tensor in tensors.items()}),
        lambda noted, tensors: tensors.update(more=torch.zeros(2**20)),
        lambda noted, tensors: noted.update({str(i): "" for i in range(100_000)}),
    ],
)
def test_an_entry_that_has_not_the_expected_form_is_not_used(cache, said, tmp_path, change):
    def gather():
        images = Images(REAL[:8], "content")
        metrics = [FID(RandomConvolution(4)), KID(RandomConvolution(4), subsets=2, subset_size=4)]
        RealSet(images, metrics, torch.device("cpu"), cache, None).collection()
        return images.read

    gather()
    entries = list((tmp_path / "cache").iterdir())
    for entry in entries:
        forged(entry, change)
    assert gather() > 0
    assert len(said) == len(entries) == 2 and all("is damaged" in line for line in said)
    assert gather() == 0


@pytest.mark.parametrize("other", ["a pipe", "a link", "a folder"])
def test_what_is_no_plain_file_is_not_opened(cache, said, tmp_path, other):
    key = {"content": "images"}
    cache.save(key, {"rows": torch.zeros(2, 2)}, {})
    entry = cache.path(key)
    kept = entry.rename(tmp_path / "kept")
    match other:
        case "a pipe":
            os.mkfifo(entry)
        case "a link":
            entry.symlink_to(kept)
        case "a folder":
            entry.mkdir()
    assert cache.load(key, 2**20, lambda tensors, notes: None) is None and "is damaged" in said[0]
    assert StatisticsCache(tmp_path / "none", said.append).load(key, 2**20, lambda *found: None) is None
    assert len(said) == 1


def test_a_folder_that_cannot_be_written_costs_a_line_and_no_result(said, tmp_path):
    (tmp_path / "cache").write_text("a file")
    evaluation = measured(StatisticsCache(tmp_path / "cache", said.append), Images(REAL, "content"))
    assert evaluation.metrics and all("cannot be kept" in line for line in said) and len(said) == 2


def test_a_process_that_does_not_find_the_entry_makes_all_compute(cache, monkeypatch):
    measured(cache, Images(REAL, "content"))
    monkeypatch.setattr("stylenat.evaluation.real.any_of_ranks", lambda missing: True)
    dataset = Images(REAL, "content")
    measured(cache, dataset)
    assert dataset.read == 48


def compared(cache, dataset, metrics=None):
    metrics = metrics or [FID(RandomConvolution(8)), SlicedWasserstein(patches=4, projections=8)]
    return baselines(Evaluator(dataset, metrics, cache=cache))


def test_baselines_are_computed_once_for_all_runs_of_equal_images_and_metrics(cache, said):
    first, again = Images(REAL, "content"), Images(REAL, "content")
    one = compared(cache, first)
    assert compared(cache, again) == one == compared(None, Images(REAL))
    assert first.read > 100 and again.read == 0 and said == []
    assert list(one) == ["real half, other half", "reals blurred, 2 px", "the mean image"]
    assert set(one["the mean image"]) == {"fid_random_convolution", "swd"}


@pytest.mark.parametrize(
    "dataset, metrics",
    [
        (Images(REAL, "other content"), None),
        (Images(REAL, "content"), [FID(RandomConvolution(8)), SlicedWasserstein(patches=5, projections=8)]),
        (Images(REAL, "content"), [FID(RandomConvolution(8, seed=1)), SlicedWasserstein(patches=4, projections=8)]),
        (Images(REAL), None),
    ],
)
def test_other_images_metrics_and_seeds_have_baselines_of_their_own(cache, dataset, metrics):
    compared(cache, Images(REAL, "content"))
    dataset.read = 0
    found = compared(cache, dataset, metrics)
    assert dataset.read > 100 and found == compared(None, dataset, metrics)


@pytest.mark.parametrize(
    "change",
    [
        lambda noted, tensors: noted.update(notes="{}"),
        lambda noted, tensors: noted.update(notes=json.dumps({"names": [["the mean image", 3]] * 6})),
        lambda noted, tensors: noted.update(notes=json.dumps({"names": [["\x1b[31m", "fid"]] * 6})),
        lambda noted, tensors: noted.update(notes=json.dumps({"names": 3})),
        lambda noted, tensors: tensors.update(values=tensors["values"][:2]),
        lambda noted, tensors: tensors.update(values=tensors["values"] * torch.nan),
        lambda noted, tensors: tensors.update(values=tensors["values"].float()),
    ],
)
def test_kept_baselines_that_have_not_the_expected_form_are_computed_again(cache, said, tmp_path, change):
    expected = compared(cache, Images(REAL, "content"))
    (entry,) = [path for path in (tmp_path / "cache").iterdir() if path.stat().st_size < 4096]
    forged(entry, change)
    assert compared(cache, Images(REAL, "content")) == expected
    assert len(said) == 1 and "is damaged" in said[0]


def test_baselines_with_a_metric_that_failed_are_not_kept(cache):
    class Broken(SlicedWasserstein):
        name = "broken"

        def compare(self, real, fake):
            raise RuntimeError("no")

    for _ in range(2):
        dataset, lines = Images(REAL, "content"), []
        metrics = [FID(RandomConvolution(8)), Broken(patches=4, projections=8)]
        assert set(baselines(Evaluator(dataset, metrics, cache=cache, say=lines.append))["the mean image"]) == {
            "fid_random_convolution"
        }
        assert dataset.read > 100 and lines == ["baselines: broken not measured: RuntimeError: no"]


class Slow(Images):
    """Says when its first image is read, and then takes a while."""

    def __init__(self, begun, seconds):
        super().__init__(REAL, "content")
        self.begun, self.seconds = begun, seconds

    def __getitem__(self, index):
        if not self.read:
            self.begun.set()
            time.sleep(self.seconds)
        return super().__getitem__(index)


@pytest.mark.parametrize("killed", [False, True])
def test_runs_that_start_together_compute_once(cache, said, tmp_path, killed):
    fork = multiprocessing.get_context("fork")
    begun, (here, there) = fork.Event(), fork.Pipe()

    def other():
        torch.set_num_threads(1)
        dataset = Slow(begun, 60 if killed else 0.5)
        there.send((compared(cache, dataset), dataset.read))

    process = fork.Process(target=other)
    process.start()
    assert begun.wait(60)
    if killed:
        threading.Timer(0.3, process.kill).start()
    dataset = Images(REAL, "content")
    found = compared(cache, dataset)
    assert said[0] == "another run computes the same statistics of the real images; waiting for it"
    alone = Images(REAL, "content")
    assert found == compared(StatisticsCache(tmp_path / "own", said.append), alone)
    if killed:
        assert dataset.read == alone.read
    else:  # Which of the two computed the baselines is a matter of chance.
        values, read = here.recv()
        assert values == found and read + dataset.read == alone.read + 48  # ``swd`` reads the images in each.
    process.join()
    assert not list((tmp_path / "cache").glob("*.lock"))


def test_a_request_to_stop_ends_the_waiting(cache):
    class Stopped(BaseException):
        pass

    def stop(done, count):
        raise Stopped

    def hold(path):
        with open(path, "w") as file:
            fcntl.lockf(file, fcntl.LOCK_EX)
            held.set()
            time.sleep(60)

    real = RealSet(Images(REAL, "content"), [FID(RandomConvolution(8))], torch.device("cpu"), cache, None)
    path = cache.path(real.key()).with_suffix(".lock")
    path.parent.mkdir()
    fork = multiprocessing.get_context("fork")
    held = fork.Event()
    process = fork.Process(target=hold, args=[path])
    process.start()
    assert held.wait(60)
    with pytest.raises(Stopped):
        real.collection(stop)
    process.kill()
    process.join()
    assert real.collection()[0] is not None and not path.exists()


def test_where_the_cache_lies(monkeypatch, tmp_path):
    monkeypatch.setenv("STYLENAT_CACHE", str(tmp_path / "own"))
    assert statistics_folder() == tmp_path / "own" / "statistics"
    monkeypatch.delenv("STYLENAT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert statistics_folder() == tmp_path / "stylenat" / "statistics"
