"""One training iteration against the reference's, recorded in float64."""

import torch

from plugins.losses.adversarial import NonSaturating
from plugins.regularizers.r1 import R1
from stylenat.interfaces import StepContext
from stylenat.networks.discriminator import haar_filters
from stylenat.reference import discriminator_from_reference, generator_from_reference, to_theirs
from stylenat.training.ema import averaged_copy, update_average
from stylenat.training.steps import descend, discriminator_loss, frozen, generator_loss, regularizer_loss


def test_parity_of_one_whole_training_iteration(recorded, measure, known):
    # The reference inverts its float32 Haar transform at every octave, which scales the image by 4 x 0.49999997².
    # We leave the round trip out. Adam's first step turns that 1e-7 into more where a gradient is nearly zero.
    half = float(haar_filters()[0, 0, 0])

    data = recorded("step_plain.pt")
    config, recipe = data["config"], data["config"]["recipe"]
    generator = generator_from_reference(config["generator"], data["g0"])
    discriminator = discriminator_from_reference(config["discriminator"], data["d0"])
    discriminator.halve.register_forward_hook(lambda module, inputs, images: images * (4 * half**2))
    average = averaged_copy(generator)
    d_adam = torch.optim.Adam(discriminator.parameters(), lr=recipe["d_lr"], betas=tuple(recipe["d_betas"]))
    g_adam = torch.optim.Adam(generator.parameters(), lr=recipe["g_lr"], betas=tuple(recipe["g_betas"]))
    loss, random = NonSaturating(), torch.Generator()

    def same(network, layout, expected):
        ours = to_theirs(network.state_dict(), network, known[layout])
        assert ours and ours.keys() <= expected.keys()
        for key, value in ours.items():
            scale = float(expected[key].abs().max())
            torch.testing.assert_close(value, expected[key], rtol=1e-6, atol=1e-6 * scale, msg=lambda m, k=key: k + m)

    def context(**tensors):
        return StepContext(generator, discriminator, discriminator, random, **tensors)

    with torch.no_grad():
        fake = generator(data["z_d"])
    measure.close(fake, data["fake"], 1e-6)
    step = context(real=data["real"], fake=fake)
    scalars = descend("discriminator", d_adam, [discriminator_loss(loss, [], step)], clip=recipe["clip"])
    measure.close(scalars["loss/discriminator"], data["d_loss"], 1e-6)
    measure.close(scalars["gradient_norm/discriminator"], data["d_grad_norm"], 1e-6)
    same(discriminator, "wavelet", data["d_after_main"])

    r1 = R1(gamma=recipe["r1"], interval=recipe["reg_every"])
    penalty = descend("r1", d_adam, [regularizer_loss(r1, context(real=data["real"]))])["regularizer/r1"]
    measure.close(2 / recipe["r1"] / recipe["reg_every"] * penalty, data["r1"], 1e-6)
    same(discriminator, "wavelet", data["d_after_r1"])

    with frozen(discriminator):
        seen = context(fake=generator(data["z_g"]))
        scalars = descend("generator", g_adam, [generator_loss(loss, [], seen)])
    measure.close(scalars["loss/generator"], data["g_loss"], 1e-6)
    same(generator, "stylenat", data["g_after"])
    update_average(average, generator, recipe["ema"])
    same(average, "stylenat", data["ema_after"])
    same(discriminator, "wavelet", data["d_end"])
