"""One training iteration against the reference's, recorded in float64."""

from types import SimpleNamespace

import torch

from plugins.augmentations.none import NoAugmentation
from plugins.losses.adversarial import NonSaturating
from plugins.regularizers.gradient_penalty import R1
from stylenat.networks.discriminator import haar_filters
from stylenat.reference import discriminator_from_reference, generator_from_reference, to_theirs
from stylenat.training.average import update_average
from stylenat.training.settings import Training
from stylenat.training.state import TrainingState
from stylenat.training.step import descend


def test_parity_of_one_whole_training_iteration(recorded, measure, known):
    # The reference inverts its float32 Haar transform at every octave, which scales the image by 4 x 0.49999997².
    # We leave the round trip out. Adam's first step turns that 1e-7 into more where a gradient is nearly zero.
    half = float(haar_filters()[0, 0, 0])

    data = recorded("step_plain.pt")
    config, recipe = data["config"], data["config"]["recipe"]
    generator = generator_from_reference(config["generator"], data["g0"])
    discriminator = discriminator_from_reference(config["discriminator"], data["d0"])
    discriminator.halve.register_forward_hook(lambda module, inputs, images: images * (4 * half**2))
    settings = Training(
        generator=lambda: generator,
        discriminator=lambda: discriminator,
        loss=NonSaturating(),
        regularizers=[R1(gamma=recipe["r1"], interval=recipe["reg_every"])],
        augmentation=NoAugmentation(),
        dataset=SimpleNamespace(resolution=generator.resolution),
        iterations=1,
        batch_size=len(data["real"]),
        discriminator_clip=recipe["clip"],
    )
    state = TrainingState(settings, torch.device("cpu"))
    state.optimizers = {
        "discriminator": torch.optim.Adam(
            discriminator.parameters(), lr=recipe["d_lr"], betas=tuple(recipe["d_betas"])
        ),
        "generator": torch.optim.Adam(generator.parameters(), lr=recipe["g_lr"], betas=tuple(recipe["g_betas"])),
    }
    batches = state.microbatches(state.time())
    state.give_images(batches, (data["real"], None))

    def same(network, layout, expected):
        ours = to_theirs(network.state_dict(), network, known[layout])
        assert ours and ours.keys() <= expected.keys()
        for key, value in ours.items():
            scale = float(expected[key].abs().max())
            torch.testing.assert_close(value, expected[key], rtol=1e-6, atol=1e-6 * scale, msg=lambda m, k=key: k + m)

    d_main, r1, g_main = settings.steps
    batches[0].latents = data["z_d"]
    scalars = descend(state, d_main, batches)
    measure.close(batches[0].fake, data["fake"], 1e-6)
    measure.close(scalars["loss/discriminator"], data["d_loss"], 1e-6)
    measure.close(scalars["gradient_norm/discriminator"], data["d_grad_norm"], 1e-6)
    same(discriminator, "wavelet", data["d_after_main"])

    penalty = descend(state, r1, batches)["regularizer/r1"]
    measure.close(2 / recipe["r1"] / recipe["reg_every"] * penalty, data["r1"], 1e-6)
    same(discriminator, "wavelet", data["d_after_r1"])

    batches[0].latents = data["z_g"]
    scalars = descend(state, g_main, batches)
    measure.close(scalars["loss/generator"], data["g_loss"], 1e-6)
    same(generator, "stylenat", data["g_after"])
    update_average(state.sampled, generator, recipe["ema"])
    same(state.sampled, "stylenat", data["ema_after"])
    same(discriminator, "wavelet", data["d_end"])
