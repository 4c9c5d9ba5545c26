"""The contracts of kinds ``recipe``, ``optimizer``, ``schedule`` and ``average``."""

import copy
import math
from collections.abc import Mapping
from types import SimpleNamespace

import torch
from torch import nn

from registry import UserError
from stylenat.interfaces import Average, Optimizer, Recipe, Schedule, Time
from stylenat.testing.contract import Memory, require
from stylenat.training.average import EMA
from stylenat.training.schedules import check_schedule as check_values
from stylenat.training.step import steps_of

RUN = 1000, 32
"""Iterations and batch size of the run in which they are tried."""


def check_recipe(recipe: Recipe) -> None:
    """Asks for the steps of experiments without and with regularizers of every sort.

    Raises:
        ContractError: a regularizer or a network's adversarial loss that is in none of the steps, a first step without
            new images and latents, steps that differ between calls, or a ``state_dict()`` that no checkpoint can hold.
    """
    Memory(recipe)
    sorts = [
        SimpleNamespace(name=f"{network} {own_step}", network=network, own_step=own_step, interval=interval)
        for network in ("discriminator", "generator")
        for own_step, interval in ((False, 1), (True, 4))
    ]
    for regularizers in ([], sorts):
        try:
            steps = steps_of(recipe, regularizers)
        except UserError as error:
            require(False, str(error))
        require(steps == list(recipe.steps(regularizers)), "steps(...) gives other steps the second time")
        for step in steps:
            require(type(step.interval) is int and step.interval >= 1, "a step's interval must be an int from 1")


def check_optimizer(optimizer: Optimizer) -> None:
    """Takes a few steps on a small problem and resumes from a state in between.

    Raises:
        ContractError: no ``torch.optim.Optimizer``, another learning rate than was given, a rate of 0 that moves a
            weight, a loss that does not fall, or a state from which it does not go on to the same bits.
    """

    def problem() -> tuple[nn.Linear, torch.optim.Optimizer]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = nn.Linear(4, 1)
        made = optimizer(network.parameters(), 0.01, 0.8)
        require(isinstance(made, torch.optim.Optimizer), f"it must give a torch.optim.Optimizer, not {made!r}")
        return network, made

    def descend(network: nn.Linear, made: torch.optim.Optimizer, iterations: range) -> float:
        for iteration in iterations:
            if hasattr(optimizer, "adjust"):
                optimizer.adjust(made, _time(iteration))
            made.zero_grad()
            loss = (network(torch.eye(4)) - 1).square().mean()
            loss.backward()
            made.step()
        return float(loss.detach())

    network, made = problem()
    require(all(group["lr"] == 0.01 for group in made.param_groups), "its learning rate must be the one it is given")
    start = descend(network, made, range(1))
    middle = copy.deepcopy(network.state_dict()), copy.deepcopy(made.state_dict())
    end = descend(network, made, range(1, 20))
    require(math.isfinite(end) and end < start, "twenty steps at rate 0.01 do not lower a quadratic loss")
    again, resumed = problem()
    again.load_state_dict(middle[0])
    resumed.load_state_dict(middle[1])
    descend(again, resumed, range(1, 20))
    same = all(torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters(), strict=True))
    require(same, "continued from the state of an earlier step it does not give the same bits")
    before = [parameter.detach().clone() for parameter in network.parameters()]
    for group in made.param_groups:
        group["lr"] = 0.0
    descend(network, made, range(20, 21))
    still = all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
    require(still, "a learning rate of 0, set in its param_groups, still moves weights")


def check_schedule(schedule: Schedule) -> None:
    """Evaluates it from the first to the last iteration.

    Raises:
        ContractError: a value that is no finite number from 0, or that depends on earlier calls.
    """
    try:
        check_values("its value", schedule, *RUN)
    except UserError as error:
        require(False, str(error))
    times = [_time(iteration) for iteration in (0, 1, 500, 999)]
    values = [schedule(time) for time in times]
    again = [schedule(time) for time in reversed(times)][::-1]
    require(values == again, "the same iteration gives another value in another order of calls; it must be a function")


def check_average(average: Average) -> None:
    """Averages a network that moves.

    Raises:
        ContractError: names that are not ``ema`` and ``ema-<which>``, averages that are the network itself or can be
            trained, that change the network, that do not follow it, or that depend on more than their weights and time.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    averages = average.start(network)
    if not averages:  # The generator's own weights are sampled.
        return
    first, *others = averages
    require(first == EMA, f"the first average's name must be {EMA!r}; got {first!r}")
    require(all(name.startswith(f"{EMA}-") for name in others), f"further averages' names must begin with '{EMA}-'")
    for name, copied in averages.items():
        own = {id(parameter) for parameter in network.parameters()}
        require(not own & {id(p) for p in copied.parameters()}, f"{name} shares parameters with the network")
        require(not any(p.requires_grad for p in copied.parameters()), f"{name} must not require gradients")

    def follow(averages: Mapping[str, nn.Module], iterations: range) -> None:
        for iteration in iterations:
            with torch.no_grad():
                for parameter in network.parameters():
                    parameter.fill_(iteration)
            average.update(averages, network, _time(iteration))
            kept = all(bool((parameter == iteration).all()) for parameter in network.parameters())
            require(kept, "update(...) changed the network that it averages")

    follow(averages, range(1, 10))
    middle = {name: copy.deepcopy(copied) for name, copied in averages.items()}
    follow(averages, range(10, 400))
    for name, copied in averages.items():
        values = torch.cat([parameter.flatten() for parameter in copied.parameters()])
        require(bool((values > 1).all() and (values <= 399).all()), f"{name} does not follow the network's weights")
    follow(middle, range(10, 400))
    for name, copied in averages.items():
        same = zip(copied.state_dict().values(), middle[name].state_dict().values(), strict=True)
        require(all(torch.equal(a, b) for a, b in same), f"{name} depends on more than its weights and the time")


def _time(iteration: int) -> Time:
    iterations, batch_size = RUN
    return Time(iteration, iteration * batch_size, iterations, batch_size)
