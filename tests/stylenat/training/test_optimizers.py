import pytest
import torch

from stylenat.training.optimizers import SGD, Adam, AdamW, RMSProp


@pytest.mark.parametrize(
    "make, whole, lazy",
    [
        (
            Adam((0.5, 0.9), 1e-7),
            {"betas": (0.5, 0.9), "eps": 1e-7, "weight_decay": 0},
            {"betas": (0.5**0.8, 0.9**0.8)},
        ),
        (AdamW((0.5, 0.9), 1e-7, 0.1), {"betas": (0.5, 0.9), "eps": 1e-7, "weight_decay": 0.1}, {"weight_decay": 0.1}),
        (RMSProp(0.9, 1e-7), {"alpha": 0.9, "eps": 1e-7}, {"alpha": 0.9**0.8}),
        (SGD(0.9, 0.1), {"momentum": 0.9, "weight_decay": 0.1}, {"momentum": 0.9**0.8}),
        (SGD(), {"momentum": 0.0, "weight_decay": 0.0}, {"momentum": 0.0}),
    ],
)
def test_an_optimizer_is_torchs_with_decay_rates_to_the_power_of_the_lazy_ratio(make, whole, lazy):
    """StyleGAN2, appendix B; the learning rate that is given contains the ratio already."""
    for ratio, expected in (((), whole), ((0.8,), lazy)):
        made = make([torch.nn.Parameter(torch.zeros(1))], 0.1, *ratio)
        assert type(made).__name__.lower() == type(make).__name__.lower()
        assert {name: made.param_groups[0][name] for name in ("lr", *expected)} == {"lr": 0.1, **expected}
