"""A plugin that cannot be called as it will be, or that changes torch for all others, is named before a run starts."""

from pathlib import Path

import pytest

from stylenat.commands.run import main

PLUGIN = """
from registry import hookimpl
{code}

@hookimpl
def stylenat_register(register):
    register("{kind}", "mine", Mine)
"""
LOSS = """
class Mine:
    def discriminator(self, {discriminator}):
        return sum(map(lambda logits: logits.mean(), ({discriminator},)))
    def generator(self, {generator}):
        return -fake_logits.mean()
"""
PAIRED = LOSS.format(discriminator="real_logits, fake_logits", generator="fake_logits") + "    paired = True\n"
FUNCTION = LOSS.replace("Mine", "_Mine") + "def Mine():\n    return _Mine()\n"
REGULARIZER = """
class Mine:
    name, network, interval, own_step = "mine", "generator", 1, False
    def __call__(self, generator, images):
        return images.mean()
"""


@pytest.mark.parametrize(
    "kind, code, bound, said",
    [
        ("loss", LOSS.format(discriminator="logits", generator="fake_logits"), "train.loss = @loss.mine()",
         "its discriminator(logits) cannot be called as discriminator(real_logits, fake_logits)"),
        ("loss", LOSS.format(discriminator="real_logits, fake_logits", generator="fake_logits, a, b"),
         "train.loss = @loss.mine()",
         "its generator(fake_logits, a, b) cannot be called as generator(fake_logits, real_logits=...)"),
        ("loss", PAIRED, "train.loss = @loss.mine()", "is called with (fake_logits, real_logits)"),
        ("loss", FUNCTION.format(discriminator="logits", generator="fake_logits"), "train.loss = @loss.mine()",
         "_Mine.discriminator(logits) is called with (real_logits, fake_logits)"),
        ("regularizer", REGULARIZER, "train.regularizers = [@regularizer.mine()]",
         "its __call__(generator, images) cannot be called as __call__(batch)"),
        ("augmentation", "def Mine():\n    return lambda images: images\n", "train.augmentation = @augmentation.mine()",
         "is called with (images, random)"),
        ("metric", "class Mine:\n    name = 'm'\n    def accumulator(self): ...\n    def compare(self, fake): ...\n",
         "train.metrics = [@metric.mine()]", "its compare(fake) cannot be called as compare(real, fake)"),
        ("tracker", "class Mine:\n    def state_dict(self): ...\n", "train.trackers = [@tracker.mine()]",
         "it has no method load_state_dict"),
    ],
)  # fmt: skip
def test_what_cannot_be_called_as_it_will_be_is_one_line_and_leaves_no_folder(tiny, capsys, kind, code, bound, said):
    Path("mine.py").write_text(PLUGIN.format(code=code, kind=kind))
    assert main([*tiny, "--plugin", "mine.py", "--bind", bound, "--run-dir", "run"]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert said in line and bound.split(" = ")[0] in line
    assert not Path("run").exists()
