"""``tools/new_plugin.py``: a complete small distribution for an author to change."""

import argparse
import keyword
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from string import Template

from registry import API_VERSION, KINDS, UserError
from registry.wording import did_you_mean
from stylenat.commands._arguments import Parser
from stylenat.commands._command import command

EXAMPLES = """examples:
  python tools/new_plugin.py fibonacci --kind partition
  python tools/new_plugin.py sharpness --kind metric --out ~/plugins

then:
  cd stylenat-fibonacci && pip install -e '.[test]' && pytest
  python tools/run.py --gin stylenat-fibonacci/fibonacci.gin
"""
LONGEST = 100
"""Characters of a plugin's name; names of files are made from it."""
TEMPLATES = Path(__file__).parents[1] / "templates"


def parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="new_plugin",
        description="Write a plugin distribution to start from: it can be installed, passes its tests and trains.",
        epilog=EXAMPLES,
    )
    parser.add_argument("name", metavar="NAME", help="name in gin files: lower-case letters, digits, underscores")
    parser.add_argument("--kind", required=True, metavar="KIND", help=", ".join(KINDS))
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(),
        metavar="DIR",
        help="where to create its folder (default: the current folder)",
    )
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    folder = write_plugin(arguments.name, arguments.kind, arguments.out)
    print(f"written: {folder}")
    print(f"  pip install -e '{folder}[test]' && pytest {folder}")
    print(f"  python tools/run.py --gin {folder / (arguments.name + '.gin')}")
    return 0


def write_plugin(name: str, kind: str, out: Path) -> Path:
    """Writes ``out/stylenat-NAME``, completely or not at all, and returns it.

    Raises UserError for a name that Python, gin or pip cannot take, an unknown kind, or a folder that is there.
    """
    if kind not in KINDS:
        known = f"The kinds are {', '.join(KINDS)}"
        raise UserError(f"there is no kind {kind!r}{did_you_mean(kind, KINDS) or '.'} {known}")
    if not (name.isascii() and name.isidentifier() and name == name.lower() and name[0] != "_" and name[-1] != "_"):
        raise UserError(
            f"{name!r} cannot name a plugin; use lower-case letters, digits and underscores, starting with a letter"
        )
    if len(name) > LONGEST:
        raise UserError(f"a plugin's name has at most {LONGEST} characters; {name[:20]}... has {len(name)}")
    if keyword.iskeyword(name) or name == "train":
        raise UserError(f"{name!r} is reserved; choose another name")
    class_name = "".join(part.capitalize() for part in name.split("_"))
    module = f"stylenat_{name}"
    values = {"name": name, "kind": kind, "Class": class_name, "module": module, "api": str(API_VERSION)}
    values |= {"distribution": module.replace("_", "-"), "python": f"{sys.version_info[0]}.{sys.version_info[1]}"}
    values["gin"] = Template(KINDS[kind].example).substitute(values)
    values["check"] = Template(KINDS[kind].check).substitute(values)
    values["fixture"] = "tmp_path" if "tmp_path" in values["check"] else ""
    files = {
        "pyproject.toml": "pyproject",
        "README.md": "readme",
        f"{name}.gin": "gin",
        f"{module}/__init__.py": "package",
        f"{module}/{kind}.py": kind,
        f"test_{name}.py": f"test_{kind}" if (TEMPLATES / f"test_{kind}.txt").exists() else "test",
    }
    folder = out / values["distribution"]
    if folder.exists():
        raise UserError(f"{folder} exists; choose another name or --out")
    temporary = out / f".{folder.name}.partial"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        (temporary / module).mkdir(parents=True)
        for file, template in files.items():
            text = (TEMPLATES / f"{template}.txt").read_text(encoding="utf-8")
            (temporary / file).write_text(Template(text).substitute(values), encoding="utf-8")
        temporary.rename(folder)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise UserError(f"cannot write {folder}: {error.strerror}") from error
    return folder
