import itertools

import torch
from hypothesis import given
from hypothesis import strategies as st

from stylenat.data import loader
from stylenat.data.loader import ImageOrder, ImageStream


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
    return list(itertools.islice(stream.batches(start), count))


def test_a_resumed_stream_sees_the_very_next_image_with_or_without_workers(monkeypatch):
    whole = batches(0)
    assert all(torch.equal(a, b) for a, b in zip(whole[2:], batches(2, count=4), strict=True))
    monkeypatch.setattr(loader, "CACHE_BYTES", 0)
    for workers in (0, 2):
        assert all(torch.equal(a, b) for a, b in zip(whole, batches(0, workers), strict=True))
