"""A third-party distribution, installed by pip into a new environment, is found, listed and trains."""

import shutil
import site
import subprocess
import sys
import venv
from pathlib import Path

import registry

PLUGIN = Path(__file__).with_name("third_party_plugin")


def test_an_installed_distribution_is_found_and_trains(tmp_path):
    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv" / "bin" / "python"
    purelib = next((tmp_path / "venv").glob("lib/python*/site-packages"))
    # The new environment sees what the tests see (their .pth files too), and the plugin is its own.
    folders = [*site.getsitepackages(), str(Path(registry.__file__).parents[1])]
    (purelib / "tests.pth").write_text("".join(f"import site; site.addsitedir({folder!r})\n" for folder in folders))
    source = shutil.copytree(PLUGIN, tmp_path / "source")
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--disable-pip-version-check"]
    run([*pip, "--no-deps", "--no-build-isolation", "--no-index", str(source)])
    shutil.copy(source / "check_installed.py", tmp_path)
    shutil.copy(source / "alternating.gin", tmp_path)
    shutil.rmtree(source)
    # -I: neither the current folder nor PYTHONPATH stands in for the installation.
    out = run([str(python), "-I", str(tmp_path / "check_installed.py")], cwd=tmp_path)
    assert f"trained with {purelib / 'stylenat_alternating.py'}" in out.replace("\n", "")


def run(command: list[str], **options) -> str:
    done = subprocess.run(command, capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
