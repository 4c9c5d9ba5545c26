"""Backend ``natten`` where it cannot be used."""

from types import SimpleNamespace

import torch

from stylenat.attention import natten_fused
from stylenat.attention.natten_fused import Natten


def test_without_natten_it_says_that_it_is_missing(monkeypatch):
    monkeypatch.setattr(natten_fused, "find_spec", lambda name: None)
    q = SimpleNamespace(device=torch.device("cuda"), shape=(1, 8, 8, 1, 32), dtype=torch.float32)
    assert "NATTEN is not installed" in Natten().unsupported(q, 7, 1, None)
