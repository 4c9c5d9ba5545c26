import itertools
import os
import signal
import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from registry import UserError
from stylenat.data import loader
from stylenat.data.loader import ImageOrder, ImageStream
from stylenat.pixels import to_networks


class Numbers:
    resolution = 8

    def __len__(self):
        return 7

    def __getitem__(self, index):
        return torch.arange(8).expand(3, 8, 8).to(torch.uint8) + 16 * index

    def describe(self):
        return "numbers"

    def prepare(self):
        pass


@given(st.integers(1, 50), st.integers(0, 5), st.integers(0, 3))
def test_every_epoch_is_a_permutation(count, seed, epoch):
    order = ImageOrder(count, seed, True)
    assert sorted(order[epoch * count + i][0] for i in range(count)) == list(range(count))


def batches(start, workers=0, count=6):
    stream = ImageStream(Numbers(), 4, seed=3, horizontal_flips=True, workers=workers)
    return [batch.clone() for batch in itertools.islice(stream.batches(start), count)]


def test_a_resumed_stream_sees_the_very_next_image_with_or_without_workers(monkeypatch):
    whole = batches(0)
    assert all(torch.equal(a, b) for a, b in zip(whole[2:], batches(8, count=4), strict=True))
    monkeypatch.setattr(loader, "CACHE_BYTES", 0)
    for workers in (0, 2):
        assert all(torch.equal(a, b) for a, b in zip(whole, batches(0, workers), strict=True))


class Counting(Numbers):
    def __init__(self):
        self.decoded = []

    def __getitem__(self, index):
        self.decoded.append(index)
        return super().__getitem__(index)


def test_a_small_data_set_is_decoded_image_by_image_as_it_is_needed_and_once():
    dataset = Counting()
    stream = ImageStream(dataset, 4, seed=3, horizontal_flips=True).batches(0)
    assert torch.equal(next(stream), batches(0, count=1)[0]) and len(dataset.decoded) == 4
    assert all(torch.equal(next(stream), expected) for expected in batches(4, count=5))
    assert sorted(dataset.decoded) == list(range(7))


def test_a_run_that_goes_on_with_another_batch_size_sees_the_very_next_image():
    stream = ImageStream(Numbers(), 3, seed=3, horizontal_flips=True)
    later = torch.cat([batch.clone() for batch in itertools.islice(stream.batches(8), 4)])
    assert torch.equal(later, torch.cat(batches(0))[8:20])


def test_a_batch_stays_as_it_is_until_the_next_is_asked_for(monkeypatch):
    whole = batches(0, count=12)
    monkeypatch.setattr(loader, "CACHE_BYTES", 0)
    stream = ImageStream(Numbers(), 4, seed=3, horizontal_flips=True, workers=2).batches(0)
    for expected in whole:
        batch = next(stream)
        time.sleep(0.02)  # Long enough for the workers to fill every slot that they may.
        assert torch.equal(batch, expected)


class Damaged(Numbers):
    def __getitem__(self, index):
        raise UserError("image 3 does not decode")


class Deadly(Numbers):
    def __getitem__(self, index):
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    "dataset, message", [(Damaged, "^image 3 does not decode$"), (Deadly, "^a process that decodes images was killed")]
)
def test_what_stops_a_worker_is_one_line(monkeypatch, dataset, message):
    monkeypatch.setattr(loader, "CACHE_BYTES", 0)
    stream = ImageStream(dataset(), 4, seed=3, horizontal_flips=True, workers=2)
    with pytest.raises(UserError, match=message) as raised:
        next(stream.batches(0))
    assert "\n" not in str(raised.value)


class DamagedLater(Numbers):
    def __getitem__(self, index):
        if index == 3:
            raise UserError("image 3 does not decode")
        return super().__getitem__(index)


def test_batches_before_a_damaged_image_still_come(monkeypatch):
    whole = batches(0, count=12)
    monkeypatch.setattr(loader, "CACHE_BYTES", 0)
    stream = ImageStream(DamagedLater(), 4, seed=3, horizontal_flips=True, workers=3)
    first = next(n for n in range(9) if 3 in [index for index, _ in stream.places(4 * n)])
    assert first > 0, "the seed's first batch has the damaged image"
    found = stream.batches(0)
    assert all(torch.equal(next(found), expected) for expected in whole[:first])
    with pytest.raises(UserError, match="^image 3 does not decode$"):
        next(found)


class Faulty(Numbers):
    def __getitem__(self, index):
        return [][index]


def test_a_fault_in_a_worker_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(loader, "CACHE_BYTES", 0)
    stream = ImageStream(Faulty(), 4, seed=3, horizontal_flips=True, workers=2)
    with pytest.raises(RuntimeError, match=r"(?s)__getitem__.*IndexError"):
        next(stream.batches(0))


class Floats(Numbers):
    def __getitem__(self, index):
        return super().__getitem__(index).float()


class Small(Numbers):
    def __getitem__(self, index):
        return super().__getitem__(index)[:, :7]


@pytest.mark.parametrize(
    "dataset, given", [(Floats, r"torch.float32 \[3, 8, 8\]"), (Small, r"torch.uint8 \[3, 7, 8\]")]
)
def test_a_data_set_that_gives_something_else_is_named(dataset, given):
    stream = ImageStream(dataset(), 4, seed=3, horizontal_flips=True)
    with pytest.raises(UserError, match=f"^numbers: image . is {given}; data sets give torch.uint8 .3, 8, 8.$"):
        next(stream.batches(0))


@pytest.mark.parametrize("workers", [0, 2])
def test_normalised_batches_are_the_pixels_in_the_networks_space(monkeypatch, workers):
    whole = batches(0)
    monkeypatch.setattr(loader, "CACHE_BYTES", 0)
    stream = ImageStream(Numbers(), 4, seed=3, horizontal_flips=True, workers=workers, normalised=True)
    found = itertools.islice(stream.batches(0), len(whole))
    assert all(torch.equal(batch, to_networks(pixels)) for batch, pixels in zip(found, whole, strict=True))


@given(st.integers(1, 40), st.integers(1, 4), st.integers(1, 5), st.integers(0, 30), st.integers(0, 3))
def test_ranks_share_every_batch_without_overlap_wherever_a_run_resumes(count, per_rank, world_size, start, seed):
    class Counted(Numbers):
        def __len__(self):
            return count

    def stream(rank, world_size):
        return ImageStream(Counted(), size, seed=seed, horizontal_flips=True, rank=rank, world_size=world_size).places

    ranks, size, order = world_size, per_rank * world_size, ImageOrder(count, seed, True)
    whole = stream(0, 1)
    shares = [stream(rank, ranks) for rank in range(ranks)]
    for batch in range(start, start + 4):
        together = [place for place in zip(*(share(batch * size) for share in shares), strict=True)]
        flat = [place for places in together for place in places]
        assert flat == whole(batch * size) == [order[batch * size + i] for i in range(size)]


def test_a_batch_that_does_not_divide_among_the_processes_is_refused():
    with pytest.raises(UserError, match="does not divide among 3"):
        ImageStream(Numbers(), 4, seed=0, horizontal_flips=False, world_size=3)


def test_flips_are_drawn_anew_every_epoch_for_half_of_the_images():
    order = ImageOrder(2000, 0, True)
    flipped = [{order[epoch * 2000 + i][0] for i in range(2000) if order[epoch * 2000 + i][1]} for epoch in (0, 1)]
    assert all(900 < len(images) < 1100 for images in flipped)
    assert 800 < len(flipped[0] ^ flipped[1]) < 1200
    assert not any(ImageOrder(2000, 0, False)[i][1] for i in range(2000))
