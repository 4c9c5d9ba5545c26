"""Run where the plugin is installed, in a folder to write to: lists it, holds it to its contract, trains it."""

import sys
from pathlib import Path

from stylenat_alternating import Alternating

from registry import AttentionSite, HeadGroup, load_plugins
from stylenat.commands.run import main
from stylenat.testing import check_partition

registry = load_plugins()
assert str(registry.find("partition.alternating").origin) == "stylenat-alternating 0.2.0"
assert not registry.suspects, registry.suspects
check_partition(Alternating())
near, far = (Alternating()(AttentionSite(16, 4, 64, block)) for block in (0, 1))
assert near == [HeadGroup(2, 3, 1), HeadGroup(2, 3, 2)] and far == [HeadGroup(2, 3, 2), HeadGroup(2, 3, 5)]
assert main(["--gin", str(Path(__file__).with_name("alternating.gin")), "--run-dir", "run"]) == 0
assert "partition.alternating.kernel_size = 3" in Path("run/config.gin").read_text()
assert "stylenat-alternating 0.2.0" in Path("run/config.gin").read_text()
print("trained with", sys.modules["stylenat_alternating"].__file__)
