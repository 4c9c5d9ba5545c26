"""The hook specifications: everything the framework calls in a plugin. This file is the plugin author's manual.

Hooks are optional: implement those you need, with any subset of their arguments, and mark each with
``@hookimpl``. ``run`` is always the run's ``stylenat.training.run.Run``.
"""

import pluggy

PROJECT = "stylenat"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def stylenat_register(register):
    """Called once when the plugin is loaded: ``register(kind, name, target)`` for each thing it offers.

    ``target`` is a class or function, or the lazy form ``"package.module:Attribute"``, which is imported
    only when a gin file needs it.
    """


@hookspec
def stylenat_renamed(renamed):
    """Called once when the plugin is loaded: ``renamed(old, new)`` for each parameter that has another name by now.

    ``old`` is the name that old gin texts bind, such as ``train.betas``. ``new`` is the present name of the same
    value, such as ``optimizer.adam.betas``; or a function from the old value to gin text, one binding a line, none
    where nothing is to be bound::

        renamed("train.betas", lambda betas: f"train.optimizer = @optimizer.adam()\noptimizer.adam.betas = {betas}")

    A gin text that binds the old name is read as the new text; a line on stderr says what to write.
    """


@hookspec
def run_started(run):
    """Training is about to begin, or to go on after a resume (``run.resumed``). Everything is built."""


@hookspec
def step_ended(run, step, scalars):
    """An iteration has ended. ``step`` counts from 1.

    ``scalars`` maps a name to a 0-d detached tensor or a float: ``loss/discriminator``, ``loss/generator``,
    one ``regularizer/<name>`` for each regularizer that ran, and what the augmentation reports, such as
    ``augmentation/p``. Reading a tensor's value waits for the device, so read every N-th step, not every one.
    """


@hookspec
def images_sampled(run, step, images, path):
    """A sample grid was written to ``path``. ``images``: uint8 [batch, 3, height, width], from fixed latents."""


@hookspec
def metrics_evaluated(run, step, metrics, details):
    """An evaluation has ended. ``metrics`` maps a name to a float.

    ``details``, plain data ready for JSON: ``spread`` and ``intervals`` by the names of those metrics that know
    theirs, and ``protocol``, what the numbers depend on beside the model (docs/evaluation.md).
    """


@hookspec
def checkpoint_saved(run, step, path):
    """A checkpoint folder is complete at ``path``."""


@hookspec
def run_rolled_back(run, step):
    """The run has gone back to its checkpoint of ``step``: the iterations after it come again, with other noise."""


@hookspec
def run_ended(run, status):
    """The run leaves the training loop. ``status``: ``finished``, ``stopped`` (on request, resumable) or ``failed``."""
