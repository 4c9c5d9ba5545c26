import math

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from plugins.augmentations.ada import ORDER, AdaptiveAugmentation
from registry import UserError
from stylenat.data.pixels import MEAN, STD

mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)


def images(batch=64, side=16, dtype=torch.float32):
    return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(1)).to(dtype)


def only(name, seed=0, batch=64, p=1.0):
    zero = dict.fromkeys(ORDER, 0.0)
    ada = AdaptiveAugmentation(multipliers=zero | {name: 1.0}, initial_p=p, policy="fixed")
    x = images(batch)
    return x, ada(x, torch.Generator().manual_seed(seed))


def displayed(x):
    return 2 * (x * std + mean) - 1


def test_at_p_0_it_is_the_identity_itself():
    x = images()
    assert AdaptiveAugmentation()(x, torch.Generator()) is x


def matches(y, candidates):
    """Which candidate each image equals; every one must equal one."""
    found = []
    for i in range(len(y)):
        equal = [j for j, c in enumerate(candidates) if torch.allclose(y[i], c[i], atol=1e-4)]
        assert equal, i
        found.append(equal[0])
    return found


def test_flips_and_quarter_turns_are_exact():
    x, y = only("x_flip")
    assert set(matches(y, [x, x.flip(-1)])) == {0, 1}
    x, y = only("rotate_90")
    assert set(matches(y, [x.rot90(k, (2, 3)) for k in range(4)])) == {0, 1, 2, 3}


def test_integer_translations_move_whole_pixels():
    x, y = only("integer_translation")
    centre = slice(4, 12)
    candidates = [x.roll((dy, dx), (2, 3))[:, :, centre, centre] for dy in range(-2, 3) for dx in range(-2, 3)]
    assert len(set(matches(y[:, :, centre, centre], candidates))) > 10


def test_brightness_contrast_and_luma_act_on_displayed_colours():
    x, y = only("brightness")
    shift = displayed(y) - displayed(x)
    torch.testing.assert_close(shift, shift[:, :1, :1, :1].expand_as(shift), atol=1e-5, rtol=1e-4)
    assert 0.1 < float(shift[:, 0, 0, 0].std()) < 0.3
    x, y = only("contrast")
    ratio = displayed(y) / displayed(x)
    torch.testing.assert_close(ratio, ratio[:, :1, :1, :1].expand_as(ratio), atol=1e-3, rtol=1e-2)
    x, y = only("luma_flip")
    flipped = displayed(x) - 2 * displayed(x).mean(dim=1, keepdim=True)
    assert set(matches(displayed(y), [displayed(x), flipped])) == {0, 1}


@pytest.mark.parametrize("name", ["hue", "saturation"])
def test_hue_and_saturation_keep_the_luma(name):
    x, y = only(name)
    torch.testing.assert_close(displayed(y).mean(dim=1), displayed(x).mean(dim=1), atol=1e-4, rtol=1e-4)
    chroma = [(d - d.mean(dim=1, keepdim=True)).square().sum(dim=1).sqrt() for d in map(displayed, (x, y))]
    factor = (chroma[1] / chroma[0]).flatten(1)
    torch.testing.assert_close(factor, factor[:, :1].expand_as(factor), atol=1e-2, rtol=1e-2)
    assert (float((factor[:, 0] - 1).abs().max()) < 1e-2) == (name == "hue")


@pytest.mark.parametrize("name", ORDER)
def test_a_transform_fires_at_its_rate(name):
    x, y = only(name, batch=4000, p=0.3)
    rate = float(((x - y).abs().amax(dim=(1, 2, 3)) > 1e-4).float().mean())
    # Of those that fire, some draw the identity.
    expected = 0.3 * {"x_flip": 1 / 2, "rotate_90": 3 / 4, "luma_flip": 1 / 2, "integer_translation": 24 / 25}.get(
        name, 1
    )
    assert abs(rate - expected) < 5 * math.sqrt(expected * (1 - expected) / 4000) + 0.01


def test_it_is_twice_differentiable_to_the_image():
    ada = AdaptiveAugmentation(initial_p=1.0, policy="fixed")
    x = images(2, 8, torch.float64).requires_grad_()

    def augment(x):
        return ada(x, torch.Generator().manual_seed(3))

    assert gradcheck(augment, x) and gradgradcheck(augment, x)


@pytest.mark.parametrize("p", [0.1, 0.5, 1.0])
def test_it_is_finite_on_flat_and_noisy_images_and_uses_its_own_randomness(p):
    ada = AdaptiveAugmentation(initial_p=p, policy="fixed")
    before = torch.random.get_rng_state()
    for x in (torch.full((8, 3, 16, 16), -2.0), torch.full((8, 3, 16, 16), 2.0), images(8)):
        assert ada(x, torch.Generator().manual_seed(0)).isfinite().all()
    assert torch.equal(torch.random.get_rng_state(), before)


def test_p_follows_the_discriminators_signs_and_survives_a_round_trip():
    ada = AdaptiveAugmentation(interval=4, images_to_full=1000, max_p=0.5)
    for _ in range(6):
        ada.observe(torch.ones(10, 1))
    assert ada.p == pytest.approx(0.04) and ada.r_t == 1
    other = AdaptiveAugmentation(interval=4, images_to_full=1000, max_p=0.5)
    other.load_state_dict(ada.state_dict())
    for each in (ada, other):
        for _ in range(2):
            each.observe(torch.ones(10, 1))
    assert ada.p == other.p == pytest.approx(0.08) and ada.state_dict() == other.state_dict()
    for _ in range(12):
        ada.observe(-torch.ones(10, 1))
    assert ada.p == 0


@pytest.mark.parametrize(
    "options, message",
    [({"preset": "bgcx"}, "there are"), ({"multipliers": {"spin": 1}}, "spin"), ({"initial_p": 2}, "<=")],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        AdaptiveAugmentation(**options)
