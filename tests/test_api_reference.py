"""The API reference is generated from the docstrings, without a network."""

import pytest

import registry
from registry import KINDS

pdoc = pytest.importorskip("pdoc", reason="pdoc is not installed: pip install -e '.[docs]'")

MODULES = ("registry", "stylenat.interfaces", "stylenat.draws", "stylenat.attention.op", "stylenat.testing")
"""What plugins import. ``.ci/run`` builds the pages of all modules."""


def test_the_pages_of_what_plugins_import_are_built(tmp_path, recwarn):
    pdoc.pdoc(*MODULES, output_directory=tmp_path)
    assert not [str(warning.message) for warning in recwarn if "pdoc" in warning.filename]
    pages = {module: (tmp_path / f"{module.replace('.', '/')}.html").read_text(encoding="utf-8") for module in MODULES}
    for kind in KINDS.values():
        assert f'id="{kind.protocol.partition(":")[2]}"' in pages["stylenat.interfaces"]
        assert f'id="{kind.checker.partition(":")[2]}"' in pages["stylenat.testing"]
    assert all(f'id="{name}"' in pages["registry"] for name in registry.__all__)
