import math
import os

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from plugins.augmentations.ada import AdaptiveAugmentation
from plugins.augmentations.draws import ORDER, PRESETS, ROW, TRANSFORMS, draw, probabilities
from plugins.augmentations.none import NoAugmentation
from registry import UserError
from stylenat.pixels import to_networks


def images(batch=64, side=16, dtype=torch.float32):
    return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(1)).to(dtype)


def test_at_p_0_it_is_the_identity_itself():
    x = images()
    assert AdaptiveAugmentation()(x, torch.Generator()) is x


# Of those that fire, some draw the identity: integer translations of 8x8 images are -1, 0 or 1 with 1/4, 1/2, 1/4.
CHANGES = {"x_flip": 1 / 2, "rotate_90": 3 / 4, "luma_flip": 1 / 2, "integer_translation": 3 / 4}


@pytest.mark.parametrize("name", ORDER)
def test_a_transform_fires_with_p_times_its_multiplier(name):
    count, p, multiplier = 10_000, 0.6, 0.5
    chance = probabilities(p, np.where(np.array(ORDER) == name, multiplier, 0.0))
    fires = draw(chance, count, torch.Generator().manual_seed(0)).fires
    rows = [ROW[name]] + ([ROW["second_rotation"]] if name == "rotation" else [])
    assert fires.any(axis=0).sum() == fires[rows].any(axis=0).sum() == pytest.approx(3000, abs=5 * math.sqrt(2100))

    zero = dict.fromkeys(ORDER, 0.0)
    ada = AdaptiveAugmentation(multipliers=zero | {name: multiplier}, initial_p=p, policy="fixed")
    x = images(count, 8)
    changed = (ada(x, torch.Generator().manual_seed(1)) - x).abs().amax(dim=(1, 2, 3)) > 1e-5
    expected = p * multiplier * CHANGES.get(name, 1)
    assert int(changed.sum()) == pytest.approx(count * expected, abs=5 * math.sqrt(count * expected * (1 - expected)))


def test_images_are_drawn_for_one_by_one_and_independently_by_transform():
    fires = draw(probabilities(0.5, np.ones(len(ORDER))), 10_000, torch.Generator().manual_seed(0)).fires
    correlation = np.corrcoef(fires)[~np.eye(len(fires), dtype=bool)]
    assert abs(correlation).max() < 5 / math.sqrt(10_000)
    x = images(1, 16).expand(64, -1, -1, -1)
    y = AdaptiveAugmentation(initial_p=1.0, policy="fixed")(x, torch.Generator().manual_seed(0))
    assert len(y.flatten(1).unique(dim=0)) == 64


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_the_groups_that_its_letters_name(preset):
    ada = AdaptiveAugmentation(preset, initial_p=1.0)
    image = images(1)[0]
    shown = set(ada.demonstrate(image, [0.2, 0.8], torch.Generator().manual_seed(0)))
    assert shown == {name for group in PRESETS[preset] for name in TRANSFORMS[group]} | {"all, at p"}


def test_multipliers_add_to_a_preset_and_may_exceed_1():
    ada = AdaptiveAugmentation("blit", {"x_flip": 0, "noise": 4.0, "rotation": 2.0}, initial_p=1.0)
    x = images(8)
    rows = ada.demonstrate(x[0], [0.5], torch.Generator())
    assert list(rows) == ["rotate_90", "integer_translation", "rotation", "noise", "all, at p"]
    assert ada(x, torch.Generator().manual_seed(0)).isfinite().all()


@pytest.mark.parametrize("low_pass", ["mip", "sym6"])
def test_it_is_twice_differentiable_to_the_image(low_pass):
    ada = AdaptiveAugmentation("bgcfnc", initial_p=1.0, policy="fixed", low_pass=low_pass)
    x = images(2, 8, torch.float64).requires_grad_()

    def augment(x):
        return ada(x, torch.Generator().manual_seed(3))

    assert gradcheck(augment, x, fast_mode=True) and gradgradcheck(augment, x, fast_mode=True)


@pytest.mark.parametrize("low_pass", ["mip", "sym6"])
@pytest.mark.parametrize("p", [0.05, 0.5, 0.8, 1.0])
def test_it_is_finite_on_flat_and_noisy_images_and_uses_its_own_randomness(p, low_pass):
    ada = AdaptiveAugmentation("bgcfnc", initial_p=p, policy="fixed", low_pass=low_pass)
    before = torch.random.get_rng_state()
    black, white = (to_networks(torch.full((8, 3, 16, 16), value, dtype=torch.uint8)) for value in (0, 255))
    for x in (black, white, images(8)):
        for seed in range(5):
            assert ada(x, torch.Generator().manual_seed(seed)).isfinite().all()
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_same_random_state_gives_the_same_bits():
    ada = AdaptiveAugmentation("bgcfnc", initial_p=0.7, policy="fixed")
    first, second = (ada(images(), torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first, second)


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


def test_at_the_target_p_stays():
    ada = AdaptiveAugmentation(interval=1, images_to_full=10, initial_p=0.5, target=0.5)
    ada.observe(torch.tensor([[1.0], [1.0], [1.0], [-1.0]]))
    assert ada.r_t == 0.5 and ada.p == 0.5


def test_p_goes_from_0_to_1_in_images_to_full_whatever_the_interval():
    for interval, batch in ((1, 10), (4, 5), (5, 20)):
        ada = AdaptiveAugmentation(interval=interval, images_to_full=1000)
        for _ in range(1000 // batch):
            assert ada.p < 1
            ada.observe(torch.ones(batch, 1))
        assert ada.p == pytest.approx(1) and ada.state_dict()["images_seen"] == 1000


def test_fixed_and_none_keep_their_p_and_still_track_r_t():
    for policy, p in (("fixed", 0.3), ("none", 0.0)):
        ada = AdaptiveAugmentation(initial_p=0.3, policy=policy, interval=1)
        ada.observe(torch.ones(4, 1))
        ada.load_state_dict(AdaptiveAugmentation(initial_p=0.7).state_dict() | {"r_t": 0.25})
        assert ada.scalars() == {"augmentation/p": p, "augmentation/r_t": 0.25}
        x = images()
        assert (ada(x, torch.Generator()) is x) == (policy == "none")


def test_a_checkpoint_written_before_and_one_of_another_augmentation_load():
    ada = AdaptiveAugmentation()
    ada.load_state_dict({"p": 0.25, "r_t": 0.5, "images_seen": 80, "signs": [0.5, 0.25], "batch": 32})
    assert ada.p == 0.25 and ada.state_dict()["signs"] == [0.5, 0.25]
    ada.load_state_dict(NoAugmentation().state_dict())
    assert ada.p == 0.25


def observed_by_a_rank(rank, logits, file, results):
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=len(logits))
    ada = AdaptiveAugmentation(interval=2, images_to_full=100)
    states = []
    for iteration in logits[rank]:
        ada.observe(iteration)
        states.append(ada.state_dict())
    torch.distributed.destroy_process_group()
    torch.save(states, results / f"{rank}.pt")


def test_every_rank_has_the_state_of_one_process_that_saw_all_images(tmp_path):
    logits = torch.randn(2, 3, 8, 1, generator=torch.Generator().manual_seed(0)) + 1
    logits[0] += 1
    torch.multiprocessing.start_processes(
        observed_by_a_rank, (logits, tmp_path / "store", tmp_path), nprocs=2, start_method="fork"
    )
    alone = AdaptiveAugmentation(interval=2, images_to_full=100)
    for iteration, *ranks in zip(
        range(3), *(torch.load(tmp_path / f"{r}.pt", weights_only=True) for r in (0, 1)), strict=True
    ):
        alone.observe(torch.cat([logits[0, iteration], logits[1, iteration]]))
        assert ranks[0] == ranks[1]
        assert ranks[0] == {key: pytest.approx(value) for key, value in alone.state_dict().items()}
    assert ranks[0]["p"] > 0 and ranks[0]["images_seen"] == 48 and ranks[0]["batch"] == 16


@pytest.mark.parametrize(
    "options, message",
    [
        ({"preset": "bgcx"}, "there are"),
        ({"multipliers": {"spin": 1}}, "spin"),
        ({"multipliers": {"hue": -1}}, "hue"),
        ({"multipliers": {"hue": "much"}}, "much"),
        ({"initial_p": 2}, "<="),
        ({"policy": "sometimes"}, "adaptive, fixed, none"),
        ({"low_pass": "lanczos"}, "mip, sym6"),
        ({"target": 2}, "between -1 and 1"),
        ({"interval": 0}, "at least 1"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        AdaptiveAugmentation(**options)
