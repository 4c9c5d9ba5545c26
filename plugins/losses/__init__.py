"""Adversarial losses: two pure functions of logits each."""

from registry import hookimpl


@hookimpl
def stylenat_register(register):
    register("loss", "nonsaturating", "plugins.losses.adversarial:NonSaturating")
    register("loss", "hinge", "plugins.losses.adversarial:Hinge")
    register("loss", "wasserstein", "plugins.losses.adversarial:Wasserstein")
