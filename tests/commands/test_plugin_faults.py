"""A plugin that cannot be called as it will be, or that changes torch for all others, is named before a run starts."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

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


CHANGES = {
    "torch.set_default_dtype(torch.float64)": "torch's default dtype from torch.float32 to torch.float64",
    "torch.set_default_device('meta')": "torch's default device from cpu to meta",
    "torch.set_num_threads(3)": "torch's number of threads from 1 to 3",
    "torch.set_grad_enabled(False)": "gradients from True to False",
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_plugin_that_changes_torch_for_all_other_code_is_named(tmp_path, monkeypatch, capsys, change):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(f"import torch\n{change}\n" + PLUGIN.format(code="class Mine: ...", kind="metric"))
    try:
        assert main(["--plugin", "mine.py", "--list", "loss"]) == 0
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
        torch.set_num_threads(1)
        torch.set_grad_enabled(True)
    [line] = capsys.readouterr().err.splitlines()
    assert f"importing the plugin --plugin mine.py changed {CHANGES[change]}, for all other code" in line


def test_where_a_plugin_imports_torch_itself_its_defaults_are_known(tmp_path):
    (tmp_path / "mine.py").write_text(
        "import torch\ntorch.set_default_dtype(torch.float64)\n" + PLUGIN.format(code="class Mine: ...", kind="metric")
    )
    code = (
        "import sys; from stylenat.commands.run import main; sys.exit(main(['--plugin', 'mine.py', '--list', 'loss']))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stderr.count("changed torch's default dtype from torch.float32 to torch.float64") == 1
