"""Backend ``triton`` without launches: what it allocates, and zeros for what its kernels would compute."""

from stylenat.attention.grouped import KERNELS
from stylenat.attention.triton_fused import Triton

FIRST_RESULT = {"attention_forward": 4, "attention_backward_queries": 7, "attention_backward_keys": 7}
"""Of each kernel's tensors, the first that it writes; all later ones are results too."""


class Unlaunched(Triton):
    """For tensors on the CPU."""

    def __init__(self) -> None:
        super().__init__(interpreted=True)
        self._kernels = "triton, unlaunched"

    def _launch(self, name, group, scale, bias, tensors, views, **extra):
        for result in tensors[FIRST_RESULT[name] :]:
            if result is not None:
                result.zero_()


KERNELS["triton, unlaunched"] = Unlaunched()
