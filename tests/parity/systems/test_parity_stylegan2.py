"""StyleGAN2 against tensors recorded from stylegan2-ada-pytorch."""

import pytest
import torch

from stylenat.networks.resampling import blur, convolve, downsample, filter_taps, upfirdn, upsample

FOLDER = "systems"
OPERATOR = 1e-5


@pytest.fixture
def data(recorded):
    return lambda name: recorded(f"{FOLDER}/{name}.pt")


def both(number):
    return tuple(number) if isinstance(number, list) else number


def test_parity_of_resampling_and_its_gradients(data, measure):
    file = data("sg2_resample")
    operations = {"upfirdn2d": upfirdn, "upsample2d": upsample, "downsample2d": downsample, "filter2d": blur}
    for case, x, expected in zip(file["cases"], file["x"], file["results"], strict=True):
        options = {name: both(value) for name, value in case.items() if name not in ("op", "taps", "flip_filter")}
        if case.get("flip_filter"):
            options["correlate"] = True
        taps = filter_taps(case["taps"])
        measure.close(taps, expected["f"] if expected["f"] is not None else torch.ones(1, 1), OPERATOR)
        y = operations[case["op"]](x.requires_grad_(), taps, **options)
        measure.close(y, expected["y"], OPERATOR)
        y.backward(expected["cotangent"])
        measure.close(x.grad, expected["grad_x"], OPERATOR)


def test_parity_of_convolutions_with_resampling_and_their_gradients(data, measure):
    file = data("sg2_conv")
    for case, x, w, expected in zip(file["cases"], file["x"], file["w"], file["results"], strict=True):
        y = convolve(
            x.requires_grad_(), w.requires_grad_(), filter_taps(case["taps"]), case["up"], case["down"],
            case["padding"], case["groups"], case["flip_weight"],
        )  # fmt: skip
        measure.close(y, expected["y"], OPERATOR)
        y.backward(expected["cotangent"])
        measure.close(x.grad, expected["grad_x"], OPERATOR)
        measure.close(w.grad, expected["grad_w"], OPERATOR)
