"""Torch's process-wide settings, without importing torch."""

import sys
from collections.abc import Mapping

FRESH: dict[str, object] = {
    "torch's default dtype": "torch.float32",
    "torch's default device": "cpu",
    "gradients": True,
    "deterministic algorithms": False,
    "torch's float32 matmul precision": "highest",
}
"""What they are where torch has just been imported. The number of threads depends on the machine."""


def torch_settings() -> Mapping[str, object]:
    """Their values by name."""
    torch = sys.modules.get("torch")
    if torch is None or not hasattr(torch, "get_default_device"):  # Being imported.
        return FRESH
    return {
        "torch's default dtype": str(torch.get_default_dtype()),
        "torch's default device": str(torch.get_default_device()),
        "gradients": torch.is_grad_enabled(),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "torch's float32 matmul precision": torch.get_float32_matmul_precision(),
        "torch's number of threads": torch.get_num_threads(),
    }
