"""Averages of the generator's weights."""

from registry import hookimpl


@hookimpl
def stylenat_register(register):
    register("average", "exponential", "stylenat.training.average:Exponential")
    register("average", "power", "plugins.averages.power:Power")
    register("average", "none", "stylenat.training.average:NoAverage")


@hookimpl
def stylenat_renamed(renamed):
    for old, new in (("ema_half_life", "half_life"), ("ema_rampup", "rampup")):
        renamed(
            f"train.{old}",
            lambda value, new=new: f"train.average = @average.exponential()\naverage.exponential.{new} = {value!r}",
        )
