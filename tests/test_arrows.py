"""The dependency arrows: tools -> stylenat -> registry <- plugins -> stylenat."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FORBIDDEN = {"registry": {"stylenat", "plugins", "torch"}, "stylenat": {"plugins"}}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").split(".")[0])
    return found


@pytest.mark.parametrize("room", FORBIDDEN)
def test_a_room_imports_only_what_its_arrows_allow(room):
    files = list((ROOT / room).rglob("*.py"))
    assert files
    for path in files:
        assert not imports(path) & FORBIDDEN[room], path


def test_the_gin_folder_never_shadows_gin_config():
    assert not (ROOT / "gin" / "__init__.py").exists()
    import gin

    assert hasattr(gin, "parse_config")
