"""The model card beside an export: what the weights were trained on, under which licence, and what was measured."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from registry import UserError
from registry.wording import printable
from stylenat.evaluation.protocol import RESULTS_BYTES
from stylenat.files import read_bounded
from stylenat.trained import Opened
from stylenat.weights import config_of


def model_card(opened: Opened, manifest: Mapping[str, Any], licence: str | None, files: Mapping[str, str]) -> str:
    """Markdown.

    Args:
        manifest: of the weights; licence: as the user says; files: what each file of the export is.
    """
    generator = opened.generator
    side, count = generator.resolution, sum(p.numel() for p in generator.parameters())
    lines = [
        f"# {printable(config_of(opened.folder).absolute().parent.name, 80)}",
        "",
        f"A generator of {side}x{side} images ({type(generator).__name__}, {count / 1e6:.2f} M parameters).",
        "",
        "| | |",
        "|---|---|",
        f"| weights | `{printable(opened.network, 40)}`, sha256 `{opened.sha256}` |",
        f"| step, images seen | {_shown(manifest.get('step'))}, {_shown(manifest.get('images'))} |",
        f"| data | {_data(opened, manifest)} |",
        f"| licence | {_licence(manifest, licence)} |",
        f"| pixel space in training | {opened.pixel_space} |",
        f"| classes | {printable(', '.join(opened.classes.names), 500) if opened.classes is not None else 'none'} |",
        "",
        "## Files",
        "",
        *(f"* `{name}`: {what}" for name, what in files.items()),
        "",
        "## Metrics",
        "",
        *_metrics(opened.folder, manifest.get("step")),
        "",
        "## Limits",
        "",
        "Samples may repeat training images, and show what is frequent or absent in the data: see",
        "`tools/memorisation.py`. Nothing else was examined.",
    ]
    return "\n".join(lines) + "\n"


def _shown(value: Any) -> str:
    return printable(value, 40) if value is not None else "not known"


def _data(opened: Opened, manifest: Mapping[str, Any]) -> str:
    if "source" in manifest:
        return f"not known; imported from `{printable(manifest['source'], 80)}`"
    try:
        described = opened.experiment.value("train.dataset").describe()
    except UserError:
        described = "not known"
    identity = manifest.get("dataset")
    known = ", ".join(f"{name} {value}" for name, value in identity.items()) if isinstance(identity, dict) else ""
    return printable(f"{described}{f' ({known})' if known else ''}", 500)


def _licence(manifest: Mapping[str, Any], licence: str | None) -> str:
    if licence is not None:
        return printable(licence, 200)
    if "source" in manifest:
        return (
            f"that of the imported weights (`{printable(manifest['source'], 80)}`, sha256 "
            f"`{printable(manifest.get('source_sha256') or 'not known', 64)}`), which their publisher says; "
            "name it with --licence"
        )
    return "not stated; the data's licence may restrict the weights"


def _metrics(folder: Path, step: Any) -> list[str]:
    """The last evaluation of these weights, a row a metric, and its protocol."""
    found = None
    for directory in (folder, folder.absolute().parents[1]):
        try:
            text = read_bounded(directory / "metrics.jsonl", RESULTS_BYTES).decode(errors="replace")
        except (OSError, ValueError):
            continue
        for line in text.splitlines():
            try:
                held = json.loads(line)
            except ValueError:
                continue
            if isinstance(held, dict) and held.get("step") == step and isinstance(held.get("metrics"), dict):
                found = held
    if found is None:
        return ["None was recorded of these weights (`tools/evaluate.py`)."]
    rows = [f"| {printable(name, 60)} | {printable(value, 40)} |" for name, value in found["metrics"].items()]
    protocol = json.dumps(found.get("protocol"), indent=2, sort_keys=True)
    text = "".join(c for c in protocol if c.isprintable() or c == "\n").replace("```", "'''")
    return ["| metric | value |", "|---|---|", *rows, "", "Protocol:", "", "```json", text, "```"]
