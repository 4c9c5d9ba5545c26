import re
import subprocess
import sys
from pathlib import Path


def test_importing_the_registry_imports_no_torch_and_the_real_gin():
    code = "import registry, gin, sys; print(gin.__file__ is not None, {'torch', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True set()"


def test_gins_parser_is_all_of_gin_that_is_used():
    root = Path(__file__).parents[2]
    files = [path for room in ("registry", "stylenat", "plugins", "tools") for path in (root / room).rglob("*.py")]
    found = {
        str(p.relative_to(root)): re.findall(r"^[ \t]*(?:import|from) gin\b.*", p.read_text(), re.M) for p in files
    }
    assert {name: lines for name, lines in found.items() if lines} == {
        "registry/gintext.py": ["from gin import config_parser"]
    }
