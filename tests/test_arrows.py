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


FLOORS = [
    ("files", "free_memory", "reused_memory", "draws", "random_streams",
     "classes", "ranks", "devices", "native", "interfaces",
     "pixels", "grids", "video", "walks",
     "untrusted", "npz", "checkpoint", "pickle_data", "pickle_calls", "persistent_pickle"),
    ("attention",),
    ("networks", "receptive_field"),
    ("data",),
    ("weights",),
    ("sampling", "precision", "styles_file", "inversion"),
    ("evaluation",),
    ("training",),
    ("reference",),
    ("ablation", "comparison"),
    ("commands", "testing", "gpu_checks", "templates", "__main__", "__init__",
     "model", "trained", "exported", "exporting"),
]  # fmt: skip
"""The modules and packages of ``stylenat`` from the ground up."""


def within_stylenat(path: Path) -> set[str]:
    """The modules of ``stylenat`` that a file imports, by their first names."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "stylenat":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("stylenat."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("stylenat.")}
    return found - {"__version__"}


def test_a_floor_of_stylenat_imports_what_lies_below_it_and_never_what_lies_above():
    level = {name: number for number, names in enumerate(FLOORS) for name in names}
    files = list((ROOT / "stylenat").rglob("*.py"))
    own = {path: path.relative_to(ROOT / "stylenat").parts[0].removesuffix(".py") for path in files}
    assert set(own.values()) <= set(level) and len(files) > 50
    upwards = [
        f"{path} imports {name}" for path in files for name in within_stylenat(path) if level[name] > level[own[path]]
    ]
    assert not upwards
