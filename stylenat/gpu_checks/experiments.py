"""The experiments that checks are made on: the shipped gin files, cut down on a CPU."""

from typing import Any

import torch

from registry import Experiment, load_experiment, load_plugins
from stylenat.commands._command import CORE, experiments_folder

SMALL = (
    "generator.style.channels = [16, 16, 16]",
    "discriminator.wavelet.channels = [8, 8]",
    "train.evaluation_samples = 16",
    "train.sample_count = 4",
    "train.threads = 1",
)
"""Bindings for networks of 16x16 pixels, so small that a second thread only waits."""


def ffhq256(device: torch.device, *bindings: str) -> Experiment:
    """The paper's FFHQ-256 experiment, of made-up images: nothing is read, tracked or measured."""
    small: tuple[str, ...] = () if device.type == "cuda" else ("SIDE = 16", *SMALL)
    quiet = ("train.trackers = []", "train.metrics = []")
    registry = load_plugins(core=CORE)
    return load_experiment(registry, ["ffhq256.gin"], [*quiet, *small, *bindings], search_path=[experiments_folder()])


def quickstart_arguments(device: torch.device, **train: Any) -> list[str]:
    """Arguments of ``run`` for the quickstart with these settings of ``train``."""
    bindings = [
        f"train.device = {device.type!r}",
        "train.trackers = [@tracker.jsonl()]",
        *(() if device.type == "cuda" else SMALL),
        *(f"train.{name} = {value!r}" for name, value in train.items()),
    ]
    return ["--gin", "quickstart.gin", *(part for binding in bindings for part in ("--bind", binding))]
