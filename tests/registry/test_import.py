import subprocess
import sys


def test_registry_and_partitions_import_no_torch():
    code = (
        "import sys, registry, plugins.partitions.split, plugins.partitions.pyramid, plugins.partitions.table;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
