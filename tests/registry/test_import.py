import subprocess
import sys


def test_importing_the_registry_imports_no_torch_and_the_real_gin():
    code = "import registry, gin, sys; print(gin.__file__ is not None, {'torch', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True set()"
