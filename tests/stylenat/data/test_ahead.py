import itertools

import torch
from pretended_gpu import pretended_gpu

from stylenat.data.ahead import sent_ahead


def counted(asked):
    """An endless stream in one piece of memory; ``asked`` notes what was asked for."""
    batch = torch.empty(2, 3, dtype=torch.uint8)
    for number in itertools.count():
        asked.append(number)
        yield batch.fill_(number)


def test_a_gpu_gets_every_batch_in_order_and_one_early_without_blocking():
    asked = []
    with pretended_gpu() as gpu:
        batches = sent_ahead(counted(asked), torch.device("cuda", 0))
        for number in range(4):
            batch = next(batches)
            assert asked == list(range(number + 2)) and batch.is_cuda
            assert torch.equal(batch.cpu(), torch.full((2, 3), number, dtype=torch.uint8))
    sent = [event for event in gpu.events if event.kind == "to device"]
    assert len(sent) == 5 and all(event.pinned and not event.blocking for event in sent)


def test_a_cpu_gets_the_batches_themselves_and_none_early():
    asked = []
    batches = sent_ahead(counted(asked), torch.device("cpu"))
    first = next(batches)
    assert asked == [0] and next(batches) is first
