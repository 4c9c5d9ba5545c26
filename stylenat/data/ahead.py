"""Batches on their way to a GPU: each is sent while the iteration before it is running."""

from collections.abc import Iterator

import torch
from torch import Tensor

from stylenat.devices import sent


def sent_ahead(batches: Iterator[Tensor], device: torch.device) -> Iterator[Tensor]:
    """An endless stream's batches on ``device``, in their order; on a CPU the batches themselves.

    A GPU gets each one iteration early, by a stream of its own and from a pinned copy: whoever decodes uses a batch's
    memory again once the next one is asked for.
    """
    if device.type != "cuda":
        yield from batches
        return
    transfers = torch.cuda.Stream(device)

    def send(batch: Tensor) -> Tensor:
        with torch.cuda.stream(transfers):
            return sent(batch, device)

    coming = send(next(batches))
    for batch in batches:
        computing = torch.cuda.current_stream(device)
        computing.wait_stream(transfers)
        coming.record_stream(computing)  # Its memory belongs to the transfers' stream.
        there, coming = coming, send(batch)
        yield there
