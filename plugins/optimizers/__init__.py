"""Optimizers: PyTorch's, with the correction for lazy regularizers."""

from registry import hookimpl


@hookimpl
def stylenat_register(register):
    register("optimizer", "adam", "stylenat.training.optimizers:Adam")
    register("optimizer", "adamw", "stylenat.training.optimizers:AdamW")
    register("optimizer", "rmsprop", "stylenat.training.optimizers:RMSProp")
    register("optimizer", "sgd", "stylenat.training.optimizers:SGD")


@hookimpl
def stylenat_renamed(renamed):
    renamed(
        "train.betas",
        lambda betas: (
            "train.generator_optimizer = @optimizer.adam()\ntrain.discriminator_optimizer = @optimizer.adam()\n"
            f"optimizer.adam.betas = {betas!r}"
        ),
    )
