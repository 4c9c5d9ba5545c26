"""Recipes: what an iteration steps, in which order. Implemented in ``stylenat.training.step``."""

from registry import hookimpl


@hookimpl
def stylenat_register(register):
    register("recipe", "alternating", "stylenat.training.step:Alternating")
    register("recipe", "joint", "stylenat.training.step:Joint")


@hookimpl
def stylenat_renamed(renamed):
    renamed(
        "train.share_fakes",
        lambda share: f"train.recipe = @recipe.alternating()\nrecipe.alternating.share_fakes = {share!r}",
    )
