"""Real statistics are found again by their whole key and by nothing else; a damaged entry is computed again."""

import pytest
import torch
from image_sets import Images, copies

from plugins.features.random_convolution import RandomConvolution
from plugins.metrics.frechet import FID
from plugins.metrics.kernel import KID
from plugins.metrics.sliced_wasserstein import SlicedWasserstein
from stylenat.evaluation.cache import StatisticsCache, statistics_folder
from stylenat.evaluation.evaluate import Evaluator
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


def test_a_folder_that_cannot_be_written_costs_a_line_and_no_result(said, tmp_path):
    (tmp_path / "cache").write_text("a file")
    evaluation = measured(StatisticsCache(tmp_path / "cache", said.append), Images(REAL, "content"))
    assert evaluation.metrics and all("cannot be kept" in line for line in said) and len(said) == 2


def test_a_process_that_does_not_find_the_entry_makes_all_compute(cache, monkeypatch):
    measured(cache, Images(REAL, "content"))
    absent = torch.tensor([0], dtype=torch.uint8)
    monkeypatch.setattr("stylenat.evaluation.real.gathered", lambda found: [found, absent])
    dataset = Images(REAL, "content")
    measured(cache, dataset)
    assert dataset.read == 48


def test_where_the_cache_lies(monkeypatch, tmp_path):
    monkeypatch.setenv("STYLENAT_CACHE", str(tmp_path / "own"))
    assert statistics_folder() == tmp_path / "own" / "statistics"
    monkeypatch.delenv("STYLENAT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert statistics_folder() == tmp_path / "stylenat" / "statistics"
