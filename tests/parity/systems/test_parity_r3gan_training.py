"""R3GAN's augmentation, losses, penalties and whole iterations against tensors recorded from its own code."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from plugins.augmentations.draws import ROW, Draws, probabilities
from plugins.augmentations.none import NoAugmentation
from plugins.regularizers.gradient_penalty import R1, R2
from plugins.schedules.schedules import Cosine
from plugins.systems.r3gan.augmentation import MULTIPLIERS, applied
from plugins.systems.r3gan.layout import DiscriminatorLayout, GeneratorLayout
from plugins.systems.r3gan.loss import Relativistic
from registry import load_experiment, load_plugins
from stylenat.commands._command import CORE, experiments_folder
from stylenat.interfaces import Time, at
from stylenat.pixels import SYMMETRIC, in_imagenet
from stylenat.reference import discriminator_from_reference, generator_from_reference, to_theirs
from stylenat.training.average import Exponential
from stylenat.training.optimizers import Adam
from stylenat.training.settings import Training
from stylenat.training.state import TrainingState
from stylenat.training.step import Alternating, descend

AUGMENT, STEP = 5e-5, 5e-5
UNIFORM = {
    "x_flip": 0, "rotate_90": 2, "integer_translation": 4, "rotation": 8, "second_rotation": 12, "luma_flip": 20,
    "hue": 22,
}  # fmt: skip
NORMAL = {
    "isotropic_scale": 6, "anisotropic_scale": 10, "fractional_translation": 14, "brightness": 16, "contrast": 18,
    "saturation": 24,
}  # fmt: skip
LAYOUTS = {"G": GeneratorLayout(), "D": DiscriminatorLayout()}


@pytest.fixture
def data(recorded):
    return lambda name: recorded(f"systems/r3_{name}.pt")


def draws_of(recorded, p):
    """The recorded draws of one pass, each transform's numbers before its gate, cutout's gate first."""
    batch = len(recorded[0])
    numbers = [d.double().numpy().reshape(batch, -1).T for d in recorded]
    uniform, normal = np.zeros((2, len(ROW), batch)), np.zeros((2, len(ROW), batch))
    gate = np.ones((len(ROW), batch))
    for found, places in ((uniform, UNIFORM), (normal, NORMAL)):
        for name, place in places.items():
            found[: len(numbers[place]), ROW[name]] = numbers[place]
            gate[ROW[name]] = numbers[place + 1]
    gate[ROW["cutout"]], uniform[:, ROW["cutout"]] = numbers[26], numbers[27]
    return Draws(gate < probabilities(p, MULTIPLIERS)[:, None], uniform, normal)


def augmented(images, recorded, p):
    def augment(images, random):
        return applied(images, draws_of(recorded, p))

    return in_imagenet(augment, SYMMETRIC)(images, torch.Generator())


@pytest.mark.parametrize("name", ["p040", "p100"])
def test_parity_of_the_augmentation_and_its_gradient(data, measure, name):
    file = data(f"augment_{name}")
    x = file["x"].clone().requires_grad_()
    y = augmented(x, file["draws"], file["p"])
    measure.close(y, file["y"], AUGMENT)
    y.backward(file["cotangent"])
    measure.close(x.grad, file["grad_x"], AUGMENT)


def settings_of(file, **options):
    generator = generator_from_reference(file["config"]["G"], file["g0"])
    discriminator = discriminator_from_reference(file["config"]["D"], file["d0"])
    defaults = {
        "loss": Relativistic(),
        "recipe": Alternating(generator_images=True),
        "augmentation": NoAugmentation(),
        "dataset": SimpleNamespace(resolution=generator.resolution, num_classes=generator.num_classes),
        "iterations": 3,
        "discriminator_clip": None,
        "pixel_space": "symmetric",
    }
    return Training(generator=lambda: generator, discriminator=lambda: discriminator, **defaults | options)


class Recorded:
    """The augmentation with recorded draws, one list a pass in the order in which the trainer calls it."""

    def __init__(self, p):
        self.p, self.passes, self.seen = p, [], []

    def __call__(self, images, random):
        return applied(images, draws_of(self.passes.pop(0), self.p))

    def observe(self, logits): ...

    def scalars(self):
        return {}


def penalties(file):
    gamma = file["config"]["gamma"]
    return [R1(gamma, interval=1, own_step=False), R2(gamma, interval=1, own_step=False)]


@pytest.mark.parametrize("name", ["step", "step_cond_augment"])
@pytest.mark.parametrize("phase", ["D", "G"])
def test_parity_of_the_phases_of_an_iteration(data, measure, name, phase):
    file = data(name)
    given, expected = file[f"{phase}_inputs"], file[phase]
    batch = len(given["real"])
    augment = file["config"]["augment"]
    settings = settings_of(
        file,
        regularizers=penalties(file),
        batch_size=batch,
        augmentation=NoAugmentation() if augment is None else Recorded(augment["p"]),
    )
    if augment is not None:
        # Recorded: D's real then fake, G's fake then real. The training step calls D and G with fakes first.
        first, second = given["draws"][:28], given["draws"][28:]
        settings.augmentation.passes = [second, first] if phase == "D" else [first, second]
    state = TrainingState(settings, torch.device("cpu"))
    network = state.discriminator if phase == "D" else state.generator
    layout = LAYOUTS[phase]
    (batches,) = (state.microbatches(state.time()),)
    state.give_images(batches, (given["real"].clone(), given.get("c")))
    batches[0].latents, batches[0].fake_labels = given["noise"], given.get("c")
    step = settings.steps[0 if phase == "D" else 1]
    for optimizer in state.optimizers.values():
        for group in optimizer.param_groups:
            group["lr"] = 0.0
    scalars = descend(state, step, batches)
    measure.close(batches[0].fake, expected["fake"], STEP)
    measure.close(batches[0].real_logits.flatten(), expected["real_logits"], STEP)
    measure.close(batches[0].fake_logits.flatten(), expected["fake_logits"], STEP)
    kind = "discriminator" if phase == "D" else "generator"
    measure.close(scalars[f"loss/{kind}"], expected["adversarial_loss"].mean(), STEP)
    if phase == "D":
        for penalty in ("r1", "r2"):
            weighted = file["config"]["gamma"] / 2 * expected[f"{penalty}_penalty"].mean()
            measure.close(scalars[f"regularizer/{penalty}"], weighted, STEP)
    own = {key: torch.zeros_like(p) if p.grad is None else p.grad for key, p in network.named_parameters()}
    found = to_theirs(own, network, layout)
    assert found.keys() == expected["grads"].keys()
    for key, theirs in expected["grads"].items():
        if theirs.any():
            measure.close(found[key], theirs, STEP)
        else:
            assert float(found[key].abs().max()) < 1e-6


def test_parity_of_three_whole_iterations_with_two_microbatches(data, measure):
    file = data("train_f64")
    config = file["config"]

    def schedule(name):
        s = config["schedulers"][name]
        return Cosine(s["base_value"], s["final_value"], s["total_nimg"])

    adam = config["adam"]
    settings = settings_of(
        file,
        regularizers=[R1(schedule("gamma"), 1, own_step=False), R2(schedule("gamma"), 1, own_step=False)],
        batch_size=config["batch"],
        accumulate=config["batch"] // config["micro_batch"],
        generator_learning_rate=schedule("lr"),
        discriminator_learning_rate=schedule("lr"),
        generator_optimizer=Adam((adam["beta1"], schedule("beta2")), adam["eps"]),
        discriminator_optimizer=Adam((adam["beta1"], schedule("beta2")), adam["eps"]),
        average=Exponential(half_life=schedule("ema")),
    )
    state = TrainingState(settings, torch.device("cpu"))

    def same(network, phase, expected, tolerance=1e-10):
        found = to_theirs(network.state_dict(), network, LAYOUTS[phase])
        assert found.keys() == expected.keys()
        for key, theirs in expected.items():
            assert measure.error(found[key], theirs) < tolerance, key

    for recorded in file["iterations"]:
        time = state.time()
        assert time.images == recorded["cur_nimg"]
        state.set_numbers(time)
        batches = state.microbatches(time)
        for phase, step, network in zip("DG", settings.steps, (state.discriminator, state.generator), strict=True):
            given = recorded[phase]
            state.give_images(batches, (given["real"], None))
            for batch in batches:
                batch.latents, batch.fake = batch.shard(given["noise"]), None
            scalars = descend(state, step, batches)
            loss = scalars["loss/discriminator" if phase == "D" else "loss/generator"]
            measure.close(loss, given["reported"]["adversarial_loss"].mean(), 1e-10)
            same(network, phase, given["after"])
        average = settings.average
        assert average.decay(time) == pytest.approx(recorded["ema_beta"], rel=1e-12)
        average.update(state.averages, state.generator, time)
        same(state.sampled, "G", recorded["ema_after"])
        state.step, state.images = state.step + 1, state.images + config["batch"]


@pytest.mark.parametrize("name", ["cifar10", "ffhq64", "ffhq256", "imagenet32", "imagenet64"])
def test_parity_of_the_shipped_experiments_schedules(recorded_path, name):
    file = json.loads((recorded_path / "systems" / "schedule_r3.json").read_text())
    preset, registry = file[name], load_plugins(core=CORE)
    experiment = load_experiment(registry, [f"r3gan_{name}.gin"], [], search_path=[experiments_folder()])
    settings = experiment.get("train")()
    assert settings.batch_size == preset["batch_size"]
    optimizer, r1, r2 = settings.generator_optimizer, *settings.regularizers
    assert (optimizer.betas[0], optimizer.epsilon) == (file["adam"]["beta1"], file["adam"]["eps"])
    assert not r1.own_step and not r2.own_step and (r1.interval, r2.interval) == (1, 1)
    for images, expected in preset["at_nimg"].items():
        time = Time(0, int(images), settings.iterations, settings.batch_size)
        found = {
            "lr": at(settings.generator_learning_rate, time),
            "beta2": at(settings.discriminator_optimizer.betas[1], time),
            "gamma": at(r1.gamma, time),
            "ema_nimg": at(settings.average.half_life, time),
            "augment_p": at(settings.augmentation.p, time),
            "ema_beta": settings.average.decay(time),
        }
        assert found == pytest.approx(expected, rel=1e-7, abs=1e-12)  # 1 - cos loses digits at the start.
        assert at(r2.gamma, time) == at(r1.gamma, time)
        assert at(settings.discriminator_learning_rate, time) == found["lr"]
    for network, kind in ((settings.generator, "generator"), (settings.discriminator, "discriminator")):
        keys = "cifar10_cond" if name == "cifar10" else name
        recorded = json.loads((recorded_path / "systems" / f"keys_r3_{keys}_{kind}.json").read_text())
        with torch.device("meta"):
            built = network()
        assert sum(p.numel() for p in built.parameters()) == recorded["num_parameters"]
        assert sum(stage.size.bf16 for stage in built.stages) == len(recorded["FP16Stages"])
