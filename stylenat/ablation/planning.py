"""A checked plan: every variant parsed, compared with the others and built on paper, before the first one starts."""

import traceback
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from registry import Experiment, Registry, UserError, arguments, load_experiment
from registry.gintext import render
from registry.wording import did_you_mean, reason
from stylenat import checkpoint
from stylenat.ablation.plan import Broken, Job, Plan, Planned, manifest, run_name
from stylenat.ablation.sameness import model_of
from stylenat.ablation.variants import Ablation
from stylenat.evaluation.evaluate import check_images, fitting
from stylenat.networks.neighborhoods import neighborhoods
from stylenat.training.build import sized
from stylenat.training.settings import Training

SHARED = (
    *("train.iterations", "train.batch_size", "train.dataset", "dataset.", "train.horizontal_flips"),
    *("train.initial_weights", "train.metrics", "metric.", "features."),
    *("train.evaluate_every", "train.evaluation_samples", "train.truncation_psi"),
)
"""Data, budget and measure: beginnings of parameters that variants have in common unless ``about`` names them."""


def planned(
    registry: Registry,
    files: Sequence[str],
    bindings: Sequence[str],
    search_path: Sequence[Path],
    *,
    quick: bool = False,
    out: Path | None = None,
    allow_equal: bool = False,
) -> Plan:
    """Reads an ablation file and checks all of its variants.

    A variant that raises anything but a UserError is left out and listed in ``broken``.

    Args:
        quick: whether the file's ``quick`` bindings apply.
        out: folder of all its runs, ``runs/NAME`` by default.
        allow_equal: whether variants that build the same model are marked instead of refused.

    Raises:
        UserError: naming the variant, for whatever would keep one from starting; for variants that do not share
            data and budget, that are alike, or whose folder holds an earlier version of them.
    """
    if not files:
        raise UserError("no gin file is given; name an ablation with --gin FILE")
    ablation = Ablation(**arguments(registry, "ablation", files, bindings, search_path))
    name = Path(files[0]).stem
    if quick:
        if not ablation.quick:
            raise UserError(f"{files[0]} has no quick preset; bind ablation.quick, or leave --quick out")
        bindings, name = [*ablation.quick, *bindings], f"{name}-quick"
        ablation = Ablation(**arguments(registry, "ablation", files, bindings, search_path))
    folder = out or Path("runs") / name
    if (other := manifest(folder).get("name", name)) != name:
        raise UserError(f"{folder} holds the ablation {other!r}; choose another folder with --out")

    def load(*more: str) -> Experiment:
        return load_experiment(registry, files, [*bindings, *more], search_path=search_path)

    base = load().settings()
    variants: list[Planned] = []
    jobs: list[Job] = []
    broken: list[Broken] = []
    for variant in ablation.expanded():
        try:
            settings = load(*variant.bindings).settings()
            _check_shared(settings, base, ablation.about)
            own = []
            for seed in ablation.seeds:
                labels = {"variant": variant.name, "seed": seed}
                experiment = load(*variant.bindings, *_own(name, labels))
                own.append(_job(experiment, folder, variant.name, seed))
            training: Training = experiment.get("train")()
            networks = sized(training)
            # What is left out of a variant is said in the output of its runs.
            for metric in fitting(training.metrics, networks["generator"].network, lambda line: None):
                if hasattr(metric, "check"):
                    metric.check()
            check_images(training.metrics, training.dataset, training.evaluation_samples)
        except UserError as error:
            raise UserError(f"variant {variant.name!r}: {error}") from error
        except Exception as error:  # A plugin's fault: it is reported, and the other variants go on.
            broken.append(Broken(variant, reason(error), traceback.format_exc()))
            continue
        generator, discriminator = networks["generator"], networks["discriminator"]
        model = model_of(settings, generator.network, discriminator.network)
        seen = neighborhoods(generator.network)
        one = Planned(variant, settings, generator.parameters, generator.macs, seen, model)
        variants.append(replace(one, same_as=_same_as(one, variants, allow_equal)))
        jobs += own
    used = {name for settings in (base, *(planned.settings for planned in variants)) for name in settings}
    for prefix in ablation.about:
        if not any(_covers(prefix, name) for name in used):
            raise UserError(f"ablation.about: nothing in use is called {prefix!r}{did_you_mean(prefix, used)}")
    # All variants with the first seed before any with the second: stopped halfway, there is something to compare.
    jobs.sort(key=lambda job: ablation.seeds.index(job.seed))
    return Plan(name, folder, tuple(ablation.seeds), tuple(variants), tuple(jobs), tuple(broken))


def prepare(registry: Registry, plan: Plan) -> Plan:
    """Makes what runs that start together must not make at once: data sets, and the trackers' stores.

    Returns the plan without the variants for which this raised what is no UserError; they are then in ``broken``.

    Raises UserError naming the variant whose data is missing.
    """
    broken = []
    for planned in plan.variants:
        job = next(job for job in plan.jobs if job.variant == planned.variant.name)
        try:
            training: Training = load_experiment(registry, [job.config]).get("train")()
            training.dataset.prepare()
            for tracker in training.trackers:
                if hasattr(tracker, "prepare"):
                    tracker.prepare()
        except UserError as error:
            raise UserError(f"variant {job.variant!r}: {error}") from error
        except Exception as error:
            broken.append(Broken(planned.variant, reason(error), traceback.format_exc()))
    names = {one.variant.name for one in broken}
    return replace(
        plan,
        variants=tuple(planned for planned in plan.variants if planned.variant.name not in names),
        jobs=tuple(job for job in plan.jobs if job.variant not in names),
        broken=(*plan.broken, *broken),
    )


def _same_as(variant: Planned, others: Sequence[Planned], allowed: bool) -> str | None:
    """The first variant that is the same model. Raises UserError where there is one and that is not allowed."""
    for other in others:
        names = f"the variants {other.variant.name!r} and {variant.variant.name!r}"
        if other.settings == variant.settings:
            raise UserError(
                f"{names} are the same experiment; drop one, or correct its bindings "
                "(a binding that nothing uses makes no difference)"
            )
        if other.model == variant.model:
            if not allowed:
                raise UserError(
                    f"{names} are the same model: equal head groups in every layer, equal parameter shapes, and all "
                    "else equal; drop one, choose a smaller kernel, or mark them as equal with --allow-equal"
                )
            return other.variant.name
    return None


def _own(name: str, labels: dict[str, str | int]) -> list[str]:
    """What the ablation itself binds for a run: its seed, its place in Aim, and as many threads as it will be given."""
    return [
        f"train.seed = {labels['seed']}",
        "train.threads = None",
        f"tracker.aim.experiment = {name!r}",
        f"tracker.aim.labels = {render(labels)}",
        "tracker.aim.tags = ['ablation']",
    ]


def _check_shared(settings: dict[str, str], base: dict[str, str], about: Sequence[str]) -> None:
    for name in sorted(settings.keys() | base.keys()):
        if settings.get(name) == base.get(name):
            continue
        own = f"{settings.get(name, 'not in use')}; {base.get(name, 'not in use')} without it"
        if name == "train.seed":
            raise UserError(f"it changes train.seed ({own}); all variants have the seeds of ablation.seeds")
        if name.startswith(SHARED) and not any(_covers(prefix, name) for prefix in about):
            raise UserError(
                f"it changes {name} ({own}), but variants share data, budget and metrics; "
                f"if the ablation is about it, declare it: ablation.about = [{name!r}]"
            )


def _covers(prefix: str, name: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}.")


def _job(experiment: Experiment, folder: Path, variant: str, seed: int) -> Job:
    directory = folder / run_name(variant, seed)
    config = directory / "config.gin"
    if config.exists():
        lines = experiment.differences(config.read_text(encoding="utf-8"))
        if lines:
            raise UserError(
                f"{directory} holds a run of other settings ({'; '.join(lines[:3])}); "
                "choose another folder with --out, or move that one away"
            )
    steps = [int(path.name.removeprefix("step-")) for path in checkpoint.found(directory / "checkpoints")]
    return Job(
        variant,
        seed,
        directory,
        folder / "configs" / f"{directory.name}.gin",
        experiment.operative_text(),
        experiment.value("train.iterations"),
        max(steps, default=0),
    )
