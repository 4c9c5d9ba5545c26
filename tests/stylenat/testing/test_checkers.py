"""The checkers find what they are for: each breaks one rule of an otherwise sound plugin."""

import copy
import itertools
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from plugins.augmentations.none import NoAugmentation
from plugins.losses.adversarial import Hinge, NonSaturating
from plugins.regularizers.gradient_penalty import R1
from plugins.trackers.jsonl import JsonLines
from registry import AttentionSite, HeadGroup, UserError, even_groups, hookimpl
from stylenat.attention.dense import Dense
from stylenat.testing import (
    CannotCheck,
    ContractError,
    check_attention,
    check_augmentation,
    check_average,
    check_block,
    check_dataset,
    check_discriminator,
    check_features,
    check_generator,
    check_loss,
    check_metric,
    check_optimizer,
    check_partition,
    check_recipe,
    check_regularizer,
    check_schedule,
    check_tracker,
)
from stylenat.training.average import Exponential, averaged_copy, update_average
from stylenat.training.step import Alternating

HEADS = 4
SITES = [AttentionSite(16, HEADS, 128, b) for b in (0, 1)]


def drew_from_numpy(site):
    np.random.rand()  # noqa: NPY002 - the very mistake
    return [HeadGroup(HEADS, 3)]


def drew_from_python(site):
    random.random()
    return [HeadGroup(HEADS, 3)]


class Forgetful:
    calls = 0

    def __call__(self, site):
        self.calls += 1
        return [HeadGroup(HEADS, 3 if self.calls == 1 else 5)]


@pytest.mark.parametrize(
    ("partition", "message"),
    [
        (lambda site: [HeadGroup(3, 3)], "its groups hold 3 of the 4 heads"),
        (lambda site: [HeadGroup(3, 3), HeadGroup(2, 3)], "its groups hold 5 of the 4 heads"),
        (lambda site: [HeadGroup(4, 3), HeadGroup(0, 5)], "has no head"),
        (lambda site: [HeadGroup(4, 5, 4)], "kernel_size x dilation = 20 exceeds the resolution 16"),
        (lambda site: [HeadGroup(4, 4)], "kernel_size must be odd"),
        (lambda site: [HeadGroup(4, 1)], "at least 3"),
        (lambda site: [HeadGroup(4, 3, 0)], "dilation must be at least 1"),
        (lambda site: [HeadGroup(4, 3, 2.0)], "must be integers"),
        (lambda site: HeadGroup(4, 3), "must return a list of HeadGroup"),
        (lambda site: [], "must return a list of HeadGroup"),
        (lambda site: [(4, 3, 1)], "must return a list of HeadGroup"),
        (lambda site: [HeadGroup(4, 3)] if torch.rand(1) < 2 else [], "global generator of torch"),
        (drew_from_numpy, "global generator of numpy"),
        (drew_from_python, "global generator of Python's random"),
        (Forgetful(), "changes from call to call"),
    ],
)
def test_a_partition_that_breaks_a_rule_is_told_which(partition, message):
    with pytest.raises(ContractError, match=message):
        check_partition(partition, SITES)


def test_a_partition_may_refuse_sites_but_not_all():
    def choosy(site, smallest=16):
        if site.resolution < smallest:
            raise UserError("too small")
        return [HeadGroup(site.num_heads, 3)]

    check_partition(choosy)
    with pytest.raises(CannotCheck, match="refuses every site: too small"):
        check_partition(lambda site: choosy(site, 1000))


def test_a_partition_is_tried_with_fewer_heads_than_groups_and_at_512():
    def for_many_heads(site):
        return [HeadGroup(site.num_heads - 3, 3), HeadGroup(3, 3)]

    def for_small_maps(site):
        return [HeadGroup(site.num_heads, 3, min(site.resolution // 3, 90) if site.resolution < 512 else 200)]

    with pytest.raises(ContractError, match="at 8x8, 1 heads.* has no head"):
        check_partition(for_many_heads)
    with pytest.raises(ContractError, match="exceeds the resolution 512"):
        check_partition(for_small_maps)


@pytest.mark.parametrize(("heads", "groups"), [(1, 2), (4, 0)])
def test_heads_are_not_split_into_groups_without_a_head(heads, groups):
    with pytest.raises(UserError, match=f"a layer of {heads} heads cannot be split into {groups} groups; use from 1"):
        even_groups(heads, [(3, 1)] * groups)


DESCRIPTIONS = {"no text": None, "two lines": "one\ntwo"}


class Block(nn.Module):
    """A sound block of one linear layer, to be broken."""

    def __init__(self, *, site, style_dim, broken=""):
        super().__init__()
        self.broken = broken
        self.linear = nn.Linear(site.channels + style_dim, site.channels)
        if broken == "unused":
            self.spare = nn.Parameter(torch.zeros(3))
        if broken == "numpy weights":
            self.linear.weight.data.fill_(random.random())
        if broken == "hidden state":
            self.memory = 0.0
        if broken in DESCRIPTIONS:
            self.describe = lambda: DESCRIPTIONS[broken]

    def forward(self, x, style):
        if self.broken == "in place":
            with torch.no_grad():
                x.mul_(1.0)
        if self.broken == "noise":
            x = x + torch.randn_like(x)
        out = x + self.linear(torch.cat([x, style[:, None, None].expand(*x.shape[:3], -1)], dim=-1))
        match self.broken:
            case "shape":
                return out[:, 1:]
            case "dtype":
                return out.double()
            case "detached":
                return out.detach()
            case "batch":
                return out - out.mean(dim=0, keepdim=True)
            case "nan gradient":
                return out + 0 * torch.sqrt(out - out)
            case "nan":
                return out / 0
            case "reads values":
                return out * (2 if out.sum().item() > 1e9 else 1)
            case "hidden state":
                self.memory += 1
                return out + self.memory
        return out


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("in place", "edits its input 'x' in place"),
        ("noise", "global generator of torch.*; fill a buffer with noise in __init__"),
        ("shape", "must have the shape"),
        ("dtype", "must be torch.float32"),
        ("detached", "no gradient"),
        ("batch", "depends on the others in its batch"),
        ("nan gradient", "the gradient of 'x' is not finite"),
        ("nan", "not finite everywhere"),
        ("unused", "'spare' gets no gradient"),
        ("reads values", "meta device"),
        ("hidden state", "another result"),
        ("numpy weights", "two builds from one seed differ"),
        ("no text", "describe\\(\\) must return one line of text; got None"),
        ("two lines", "describe\\(\\) must return one line of text"),
    ],
)
def test_a_block_that_breaks_a_rule_is_told_which(broken, message):
    with pytest.raises(ContractError, match=message):
        check_block(Block, broken=broken)


class Generator(nn.Module):
    resolution, latent_dim, num_styles = 8, 4, 2

    def __init__(self, mixes=False):
        super().__init__()
        self.linear, self.mixes = nn.Linear(8, 192), mixes

    def mapping(self, latents):
        return latents.tanh()

    def synthesis(self, styles):
        return self.linear(styles.flatten(1)).view(-1, 3, 8, 8)

    def forward(self, latents):
        styles = self.mapping(latents)[:, None].repeat(1, 2, 1)
        return self.synthesis(styles * (2 if self.mixes else 1))


def test_a_generator_whose_halves_do_not_make_the_whole_is_refused():
    check_generator(Generator)
    with pytest.raises(ContractError, match="not what forward gives"):
        check_generator(Generator, mixes=True)


def test_a_generator_with_tied_weights_cannot_be_saved_as_safetensors():
    class Tied(Generator):
        def __init__(self):
            super().__init__()
            self.again = self.linear

    with pytest.raises(ContractError, match="safetensors"):
        check_generator(Tied)


class Discriminator(nn.Module):
    resolution = 8

    def __init__(self, outputs=1, twice=True):
        super().__init__()
        self.linear, self.twice = nn.Linear(192, outputs), twice

    def forward(self, images):
        flat = images.flatten(1)
        return self.linear(flat.tanh() if self.twice else flat.relu())


def test_a_discriminator_owes_logits_an_image_and_a_second_derivative():
    check_discriminator(Discriminator)
    check_discriminator(Discriminator, outputs=2)

    class Flat(Discriminator):
        def forward(self, images):
            return super().forward(images)[:, 0]

    with pytest.raises(ContractError, match="logits must be"):
        check_discriminator(Flat)


def test_a_discriminator_may_have_frozen_feature_layers():
    class Projected(Discriminator):
        def __init__(self):
            super().__init__()
            self.features = nn.Conv2d(3, 3, 3, padding=1).requires_grad_(False)

        def forward(self, images):
            return super().forward(self.features(images))

    check_discriminator(Projected)


def test_networks_of_classes_are_given_labels_and_must_use_them():
    class Conditional(Discriminator):
        num_classes = 3

        def forward(self, images, labels):
            return super().forward(images) + labels[:, :1]

    class Deaf(Conditional):
        def forward(self, images, labels):
            return Discriminator.forward(self, images)

    check_discriminator(Conditional)
    with pytest.raises(ContractError, match="labels"):
        check_discriminator(Deaf)


class Wrong(Dense):
    """Dense, with one thing wrong."""

    def __init__(self, wrong):
        self.wrong = wrong

    def unsupported(self, q, kernel_size, dilation, bias):
        return "no such device" if self.wrong == "nothing" else None

    def __call__(self, q, k, v, **options):
        if self.wrong == "no bias":
            options["bias"] = None
        if self.wrong == "scale":
            options["scale"] = 1.0
        if self.wrong == "in place":
            q.data.mul_(2.0)
        out = super().__call__(q, k, v, **options)
        return out.transpose(1, 2) if self.wrong == "transposed" else out


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("no bias", "differs from the oracle's .8x8, kernel 3, dilation 1, a bias"),
        ("scale", "differs from the oracle's"),
        ("in place", "edits its input 'q'"),
        ("transposed", "differs|must have the shape"),
    ],
)
def test_an_attention_backend_that_is_wrong_is_told_where(wrong, message):
    with pytest.raises(ContractError, match=message):
        check_attention(Wrong(wrong))


def test_an_attention_backend_for_another_device_cannot_be_checked_here():
    with pytest.raises(CannotCheck, match="no such device"):
        check_attention(Wrong("nothing"))


class Summed(NonSaturating):
    def generator(self, fake_logits):
        return super().generator(fake_logits) * len(fake_logits)


class Flipped(Hinge):
    def generator(self, fake_logits):
        return fake_logits.mean()


class Swapped(NonSaturating):
    def discriminator(self, real_logits, fake_logits):
        return super().discriminator(fake_logits, real_logits)


class Overflowing(NonSaturating):
    def generator(self, fake_logits):
        return torch.log(1 + torch.exp(-fake_logits)).mean()


class Vector(Hinge):
    def generator(self, fake_logits):
        return -fake_logits


class KeepsRealLogits(NonSaturating):
    """A relativistic loss that keeps the real logits itself."""

    def discriminator(self, real_logits, fake_logits):
        self.real = real_logits.mean().detach()
        return super().discriminator(real_logits, fake_logits)

    def generator(self, fake_logits):
        return super().generator(fake_logits - self.real)


class KeepsFirst(NonSaturating):
    """Computes its centre from the first logits of each shape."""

    def __init__(self):
        self.centres = {}

    def generator(self, fake_logits):
        centre = self.centres.setdefault(fake_logits.shape, fake_logits.mean().detach())
        return super().generator(fake_logits - centre)


class Drifting(NonSaturating):
    """Subtracts a running mean of the logits, which is in its state."""

    def __init__(self):
        self.mean = torch.zeros(())

    def discriminator(self, real_logits, fake_logits):
        self.mean = 0.9 * self.mean + 0.1 * real_logits.mean().detach()
        return super().discriminator(real_logits - self.mean, fake_logits - self.mean)

    def state_dict(self):
        return {"mean": self.mean}

    def load_state_dict(self, state):
        self.mean = state["mean"]


class DriftingUnseen(Drifting):
    state_dict = load_state_dict = property()  # Not there for hasattr.


class Unloadable(Drifting):
    load_state_dict = property()


class StateOfObjects(Drifting):
    def state_dict(self):
        return {"site": AttentionSite(8, 4, 32)}


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (KeepsRealLogits(), "generator.* another loss after calls with other logits.* .*sets paired = True"),
        (KeepsFirst(), "generator.* another loss after calls with other logits"),
        (DriftingUnseen(), "discriminator.* another loss after calls with other logits"),
        (Unloadable(), "no load_state_dict"),
        (StateOfObjects(), "only plain values"),
        (Summed(), "mean over the batch"),
        (Flipped(), "generator.* must fall as fake logits rise"),
        (Swapped(), "must fall as real logits rise"),
        (Overflowing(), "size 100"),
        (Vector(), r"must have the shape \[\]"),
    ],
)
def test_a_loss_that_breaks_a_rule_is_told_which(loss, message):
    with pytest.raises(ContractError, match=message):
        check_loss(loss)


class Noisy(R1):
    def __call__(self, context):
        return super().__call__(context) * torch.rand(())


class Remembering(R1):
    seen = 0

    def __call__(self, context):
        self.seen += 1
        return super().__call__(context) * self.seen


class Reaching(R1):
    def __call__(self, context):
        return super().__call__(context).detach() + context.images.new_zeros(()).requires_grad_()


class FirstOrder(R1):
    """A penalty whose gradient has no graph."""

    def __call__(self, context):
        images = context.images.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(context.discriminate(images).sum(), images)
        return gradient.square().sum()


class MainTerm(R1):
    """A penalty in the main loss that does not say that it contains a gradient."""

    reuses_logits = False

    def __init__(self, second_order=None):
        super().__init__(interval=1)
        self.own_step = False
        if second_order is not None:
            self.second_order = second_order

    def __call__(self, context):
        images = context.images.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(context.discriminate(images).sum(), images, create_graph=True)
        return gradient.square().sum()


class OfTheMainLoss(R1):
    """Uses logits that a step of its own does not have."""

    def __call__(self, context):
        return context.real_logits.square().mean()


class KeepsFirstImages(R1):
    """Weights its term by the first images that it is given."""

    def __call__(self, context):
        self.first = getattr(self, "first", context.images.mean())
        return super().__call__(context) * (1 + (context.images.mean() - self.first).square())


class Editing(R1):
    def __call__(self, context):
        context.images.add_(1)
        return super().__call__(context)


@pytest.mark.parametrize(
    ("regularizer", "message"),
    [
        (Noisy(), "global generator of torch"),
        (Remembering(), "everything it remembers"),
        (Reaching(), "no gradient to the parameters of the discriminator"),
        (FirstOrder(), "its term has no gradient.*detach no result"),
        (FirstOrder(own_step=False), "its term has no gradient.*create_graph=True"),
        (OfTheMainLoss(), "its term has no gradient: in a step of its own the batch's logits are detached"),
        (MainTerm(), "set second_order = True"),
        (MainTerm(second_order=False), "set second_order = True"),
        (KeepsFirstImages(), "everything it remembers"),
        (Editing(), "edits its input 'images'"),
        (R1(interval=0), "interval must be an integer from 1"),
    ],
)
def test_a_regularizer_that_breaks_a_rule_is_told_which(regularizer, message):
    with pytest.raises(ContractError, match=message):
        check_regularizer(regularizer)


class Brightness(NoAugmentation):
    """Adapts, and keeps that in its state."""

    def __init__(self):
        self.strength = 0.1

    def __call__(self, images, random):
        return (images + self.strength * torch.rand(len(images), 1, 1, 1, generator=random)).tanh()

    def observe(self, real_logits):
        self.strength += 0.01

    def state_dict(self):
        return {"strength": self.strength}

    def load_state_dict(self, state):
        self.strength = state["strength"]


class Amnesiac(Brightness):
    def load_state_dict(self, state):
        pass


class Pickling(Brightness):
    def state_dict(self):
        return {"strength": self.strength, "site": AttentionSite(8, 4, 32)}


class Global(Brightness):
    def __call__(self, images, random):
        return super().__call__(images, random) + torch.rand(())


class InPlace(NoAugmentation):
    def __call__(self, images, random):
        with torch.no_grad():
            images.clamp_(-1, 1)
        return images


class NotDifferentiable(NoAugmentation):
    def __call__(self, images, random):
        return images.detach()


@pytest.mark.parametrize(
    ("augmentation", "message"),
    [
        (Amnesiac(), "everything that adapts must be in it"),
        (Pickling(), "only plain values and tensors"),
        (Global(), "global generator of torch"),
        (InPlace(), "edits its input 'images'"),
        (NotDifferentiable(), "no gradient"),
    ],
)
def test_an_augmentation_that_breaks_a_rule_is_told_which(augmentation, message):
    with pytest.raises(ContractError, match=message):
        check_augmentation(augmentation)


class Images:
    """A sound data set of a few images of three classes, to be broken."""

    resolution, num_classes = 8, 3

    def __init__(self, broken=""):
        self.broken = broken
        self.class_names = ["one"] if broken == "names" else ["one", "two", "three"]
        self.kept = torch.full((3, 8, 8), 7, dtype=torch.uint8)

    def describe(self):
        return "two\nimages" if self.broken == "lines" else "two images"

    def prepare(self):
        if self.broken == "files":
            raise UserError("there is no folder x")

    def __len__(self):
        return {"empty": 0, "middle": 1001}.get(self.broken, 3)

    def label(self, index):
        return index + (self.broken == "label")

    def labels(self):
        return torch.arange(3) % (2 if self.broken == "labels" else 3)

    def __getitem__(self, index):
        match self.broken:
            case "shared":
                return self.kept
            case "float":
                return self.kept / 255
            case "size":
                return self.kept[:, 1:].clone()
            case "random":
                return torch.randint(256, (3, 8, 8)).to(torch.uint8)
            case "middle" if 400 <= index <= 600:
                return self.kept[:1]
            case "worker" if torch.utils.data.get_worker_info() is not None:
                return self.kept + 1
        return self.kept.clone()


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("lines", "one line"),
        ("empty", "no images"),
        ("shared", "another at the second read"),
        ("float", "torch.uint8"),
        ("size", "must have the shape"),
        ("random", "global generator of torch"),
        ("worker", "others in a worker process"),
        ("middle", "image 4[0-9][0-9] must have the shape"),
        ("label", "label\\(2\\) must be an integer from 0 to 2; got 3"),
        ("labels", "labels\\(\\) must be label\\(index\\) of all 3 images"),
        ("names", "class_names must have a name for each of 3 classes; it has 1"),
    ],
)
def test_a_dataset_that_breaks_a_rule_is_told_which(broken, message):
    with pytest.raises(ContractError, match=message):
        check_dataset(Images(broken))


def test_a_dataset_whose_files_are_missing_cannot_be_checked():
    with pytest.raises(CannotCheck, match="no folder x"):
        check_dataset(Images("files"))


class Means:
    name, dim = "means", 3

    def __init__(self, broken=""):
        self.broken = broken

    def __call__(self, images):
        means = images.float().mean(dim=(2, 3))
        match self.broken:
            case "batch":
                return means - means.mean(dim=0)
            case "dim":
                return means[:, :2]
            case "gradient":
                return means.requires_grad_()
        return means


@pytest.mark.parametrize(
    ("broken", "message"),
    [("batch", "others in its batch"), ("dim", "must have the shape"), ("gradient", "no gradient")],
)
def test_features_that_break_a_rule_are_told_which(broken, message):
    with pytest.raises(ContractError, match=message):
        check_features(Means(broken))


class Collected:
    def __init__(self):
        self.means = []

    def update(self, images):
        self.means.append(images.float().mean())


class MeanDifference:
    name = "mean_difference"

    def __init__(self, broken=""):
        self.broken, self.one = broken, Collected()

    def accumulator(self):
        return self.one if self.broken == "shared" else Collected()

    def compare(self, real, fake):
        value = abs(sum(real.means) - sum(fake.means))
        match self.broken:
            case "tensor":
                return value
            case "constant":
                return 1.0
            case "infinite":
                return float("inf")
            case "random":
                return float(value) + random.random()
        return float(value)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("shared", "a new one each time"),
        ("tensor", "must return a float"),
        ("constant", "quite different ones"),
        ("infinite", "compare.* gave inf"),
        ("random", "global generator of Python's random"),
    ],
)
def test_a_metric_that_breaks_a_rule_is_told_which(broken, message):
    with pytest.raises(ContractError, match=message):
        check_metric(MeanDifference(broken))


class Deaf(JsonLines):
    run_started = step_ended = images_sampled = metrics_evaluated = None


class Misspelt(JsonLines):
    @hookimpl
    def run_endet(self, run):
        pass


class WrongArgument(JsonLines):
    @hookimpl
    def step_ended(self, iteration):
        pass


class Zeroing(JsonLines):
    @hookimpl
    def step_ended(self, scalars):
        scalars["loss/generator"].zero_()


class Keeping(JsonLines):
    def state_dict(self):
        return {"self": self}


@pytest.mark.parametrize(
    ("tracker", "message"),
    [
        (Deaf(), "it has no hook"),
        (Misspelt(), "run_endet"),
        (WrongArgument(), "iteration"),
        (Zeroing(), "edits its input 'loss/generator'"),
        (Keeping(), "plain values"),
    ],
)
def test_a_tracker_that_breaks_a_rule_is_told_which(tracker, message, tmp_path):
    with pytest.raises(ContractError, match=message):
        check_tracker(tracker, tmp_path / "broken")


def recipe(change):
    """``alternating`` with its steps changed."""

    class Changed(Alternating):
        def steps(self, regularizers):
            return change(super().steps(regularizers))

    return Changed()


counter, ticks = itertools.count(), itertools.count(2)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (recipe(lambda steps: []), "first step must take new images"),
        (recipe(lambda steps: [replace(steps[0], new_images=False), *steps[1:]]), "first step must take new images"),
        (recipe(lambda steps: [replace(steps[0], new_latents=False), *steps[1:]]), "first step must take new images"),
        (recipe(lambda steps: [replace(steps[0], interval=2), *steps[1:]]), "first step must take new images"),
        (recipe(lambda steps: steps[:1]), "no step with the generator's adversarial loss"),
        (recipe(lambda steps: [s for s in steps if s.phases[0].adversarial]), "no step with the regularizer"),
        (recipe(lambda steps: [*steps, *[steps[-1]] * next(counter)]), "other steps the second time"),
        (recipe(lambda steps: [*steps[:-1], replace(steps[-1], interval=0)]), "interval must be an int from 1"),
    ],
)
def test_a_recipe_that_breaks_a_rule_is_told_which(recipe, message):
    with pytest.raises(ContractError, match=message):
        check_recipe(recipe)


class Restless(torch.optim.SGD):
    """Moves weights whatever its rate."""

    def step(self):
        super().step()
        with torch.no_grad():
            for parameter in self.param_groups[0]["params"]:
                parameter.add_(1e-6)


class Counting(torch.optim.SGD):
    """Depends on a count that is not in its state."""

    steps = 0

    def step(self):
        self.steps += 1
        self.param_groups[0]["weight_decay"] = self.steps / 100
        super().step()


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (lambda parameters, rate, ratio: None, "must give a torch.optim.Optimizer"),
        (lambda parameters, rate, ratio: torch.optim.SGD(parameters, 0.5), "must be the one it is given"),
        (lambda parameters, rate, ratio: torch.optim.SGD(parameters, rate, maximize=True), "do not lower a quadratic"),
        (lambda parameters, rate, ratio: Restless(parameters, rate), "a learning rate of 0"),
        (lambda parameters, rate, ratio: Counting(parameters, rate), "does not give the same bits"),
    ],
)
def test_an_optimizer_that_breaks_a_rule_is_told_which(optimizer, message):
    with pytest.raises(ContractError, match=message):
        check_optimizer(optimizer)


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (lambda time: 1 - time.iteration / 500, "is -0.[0-9]* in iteration"),
        (lambda time: float("nan"), "is nan in iteration 0"),
        (lambda time: torch.ones(()), "finite numbers"),
        (lambda time: next(counter), "another value in another order"),
    ],
)
def test_a_schedule_that_breaks_a_rule_is_told_which(schedule, message):
    with pytest.raises(ContractError, match=message):
        check_schedule(schedule)


def average(start=None, update=None):
    """``exponential``, with one of its methods replaced."""
    made = Exponential(half_life=320)
    for name, method in {"start": start, "update": update}.items():
        if method is not None:
            setattr(made, name, method)
    return made


@pytest.mark.parametrize(
    ("average", "message"),
    [
        (average(start=lambda generator: {"mean": averaged_copy(generator)}), "name must be 'ema'"),
        (
            average(start=lambda generator: {name: averaged_copy(generator) for name in ("ema", "second")}),
            "must begin with 'ema-'",
        ),
        (average(start=lambda generator: {"ema": generator}), "shares parameters"),
        (average(start=lambda generator: {"ema": copy.deepcopy(generator)}), "must not require gradients"),
        (average(update=lambda averages, generator, time: None), "does not follow"),
        (average(update=lambda averages, generator, time: update_average(generator, averages["ema"], 0.5)), "changed"),
        (
            average(
                update=lambda averages, generator, time: update_average(averages["ema"], generator, 1 / next(ticks))
            ),
            "more than its weights and the time",
        ),
    ],
)
def test_an_average_that_breaks_a_rule_is_told_which(average, message):
    with pytest.raises(ContractError, match=message):
        check_average(average)


@pytest.mark.parametrize(
    ("check", "sound"),
    [
        (check_block, Block),
        (check_augmentation, Brightness()),
        (check_dataset, Images()),
        (check_loss, Drifting()),
        (check_regularizer, MainTerm(second_order=True)),
        (check_features, Means()),
        (check_metric, MeanDifference()),
        (check_tracker, JsonLines()),
        (check_recipe, recipe(lambda steps: steps)),
        (check_average, average()),
    ],
)
def test_what_breaks_no_rule_passes(check, sound, tmp_path):
    check(sound, *([tmp_path] if check is check_tracker else []))
