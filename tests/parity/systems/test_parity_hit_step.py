"""Two joint training steps of HiT against the reference's, recorded in float64."""

from types import SimpleNamespace

import torch

from plugins.augmentations.none import NoAugmentation
from plugins.losses.adversarial import NonSaturating
from plugins.regularizers.gradient_penalty import R1
from plugins.systems.hit.consistency import Consistency, transformed
from stylenat.reference import discriminator_from_reference, generator_from_reference, to_theirs
from stylenat.training.average import Exponential
from stylenat.training.optimizers import Adam
from stylenat.training.settings import Training
from stylenat.training.state import TrainingState
from stylenat.training.step import Joint, descend


class Recorded(Consistency):
    """With the recorded draws, in the order of its calls: reals, then fakes."""

    def transform(self, images, random):
        out = transformed(images, self.draws.pop(0))
        self.augmented.append(out)
        return out


def first(image):
    return image.permute(0, 3, 1, 2).double()


def test_parity_of_two_joint_steps(recorded, known, recorded_draws):
    data = recorded("systems/hit_step_bcr.pt")
    config, recipe = data["config"], data["config"]["recipe"]
    batch_size = len(data["step1"]["real"])
    generator = generator_from_reference(config["generator"], {k: v.double() for k, v in data["g0"].items()})
    discriminator = discriminator_from_reference(
        config["discriminator"], {k: v.double() for k, v in data["d0"].items()}
    )
    bcr = Recorded(recipe["bcr_cost"], recipe["bcr_cost"])
    adam = Adam((recipe["beta1"], recipe["beta2"]), recipe["adam_epsilon"], epsilon_hat=True)
    half_life = -batch_size / torch.tensor(recipe["ema_decay"], dtype=torch.float64).log2().item()
    settings = Training(
        generator=lambda: generator,
        discriminator=lambda: discriminator,
        loss=NonSaturating(),
        regularizers=[R1(gamma=2 * recipe["grad_penalty_cost"], interval=1, own_step=False), bcr],
        augmentation=NoAugmentation(),
        recipe=Joint(),
        generator_optimizer=adam,
        discriminator_optimizer=adam,
        generator_learning_rate=recipe["generator_lr"],
        discriminator_learning_rate=recipe["discriminator_lr"],
        average=Exponential(half_life=half_life, copied=recipe["ema_initial_step"]),
        dataset=SimpleNamespace(resolution=generator.resolution),
        discriminator_clip=None,
        pixel_space="symmetric",
        iterations=2,
        batch_size=batch_size,
    )
    state = TrainingState(settings, torch.device("cpu"))
    (step,) = settings.steps
    layouts = {"generator": known["hit"], "discriminator": known["hit_discriminator"]}

    def theirs(name, tensors):
        return to_theirs(tensors, state.networks()[name], layouts[name])

    for number in (1, 2):
        expected, time = data[f"step{number}"], state.time()
        bcr.draws = [recorded_draws(expected["draws"][which], 32).double() for which in ("real", "fake")]
        bcr.augmented = []
        state.set_numbers(time)
        batches = state.microbatches(time)
        state.give_images(batches, (first(expected["real"]), None))
        batches[0].latents = expected["z"].double()
        scalars = descend(state, step, batches)
        gradients = {
            name: theirs(name, {key: p.grad for key, p in network.named_parameters()})
            for name, network in (("generator", generator), ("discriminator", discriminator))
        }
        settings.average.update(state.averages, generator, time)
        state.step += 1

        total = sum(scalars[key] for key in ("loss/discriminator", "regularizer/r1", "regularizer/bcr"))
        found = {
            "d_adversarial": scalars["loss/discriminator"], "g_loss": scalars["loss/generator"],
            "r1_penalty": scalars["regularizer/r1"], "consistency_loss": scalars["regularizer/bcr"],
            "d_total_loss": total, "real_logits": batches[0].real_logits, "fake_logits": batches[0].fake_logits,
        }  # fmt: skip
        for name, value in found.items():
            close(value, expected[name], name)
        if number == 1:
            for name, ours in (("fake", batches[0].fake), *zip(("real", "fake"), bcr.augmented, strict=True)):
                key = name if ours is batches[0].fake else f"{name}_augmented"
                close(ours.permute(0, 2, 3, 1), expected[key], key)
            for name, key in (("generator", "g_grads"), ("discriminator", "d_grads")):
                assert gradients[name].keys() == expected[key].keys()
                for variable, slope in expected[key].items():
                    if float(slope.abs().max()) > 1e-10:  # Others are zero but for rounding.
                        close(gradients[name][variable], slope, variable)
        averaged = to_theirs(state.sampled.state_dict(), generator, known["hit"])
        after = {"g_after": theirs("generator", generator.state_dict())}
        after["d_after"] = theirs("discriminator", discriminator.state_dict())
        if number == 2:
            after["ema_after"] = averaged
        else:
            assert all(torch.equal(averaged[key], value) for key, value in after["g_after"].items())
        small = {k for k, v in data["step1"]["g_grads"].items() if float(v.abs().max()) <= 1e-10}
        for which, tensors in after.items():
            assert tensors.keys() == expected[which].keys()
            for name, value in tensors.items():
                if name not in small:  # Adam makes steps of full length of their rounding errors.
                    torch.testing.assert_close(value, expected[which][name], rtol=0, atol=2e-8)


def close(ours, theirs, what):
    assert float((ours.detach() - theirs).abs().max() / theirs.abs().max()) < 1e-6, what
