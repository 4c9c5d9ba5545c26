"""The class of each image: from StyleGAN's ``dataset.json``, else the folder that holds it, or its class in an LMDB."""

import json
import posixpath
from pathlib import Path

from registry import UserError
from stylenat.data.items import Item, Source

DATASET_JSON = "dataset.json"
MAX_BYTES = 2**26
"""Of dataset.json; that of ImageNet needs 50 MB."""
MAX_CLASSES = 2**20
NO_CLASS = ("", ".", "..")
"""Not names of folders; ``..`` would lead an export out of its own."""
WITHOUT = f"without {DATASET_JSON} the folders' names are the classes"


class Classes:
    """The classes of a source's images.

    Attributes:
        names: of all classes, in the order of their numbers; empty where they are numbered by first appearance.
        origin: ``dataset.json`` where the classes come from there.

    Raises:
        UserError: the source has no classes, or none that are certain.
    """

    def __init__(self, source: Source, path: Path) -> None:
        text = source.file(DATASET_JSON, MAX_BYTES)
        self._numbers = None if text is None else _labels(text, f"{DATASET_JSON} in {path}")
        self.origin = None if text is None else DATASET_JSON
        self.names: list[str] = []
        if self._numbers is None:
            _refuse_ambiguous_folders(source, path)
        else:
            _refuse_other_names(self._numbers, source, f"{DATASET_JSON} in {path}")
            self.names = [str(number) for number in range(max(self._numbers.values()) + 1)]

    def __getitem__(self, item: Item) -> str | None:
        """The name of an image's class; None for an image that has none."""
        if self._numbers is not None:
            return str(self._numbers[_within(item.name)])
        name = item.label or _folder(item.name)
        return None if name in NO_CLASS else name


def _within(name: str) -> str:
    """A name relative to the source's root: ``tar -C FOLDER .`` writes ``./NAME``."""
    return name.removeprefix("./")


def _folder(name: str) -> str:
    return name.rpartition("/")[0].rpartition("/")[2]


def _refuse_ambiguous_folders(source: Source, path: Path) -> None:
    """``cat/1`` and ``dog/1`` may be one class or two: only the user knows."""
    parents: dict[str, str] = {}
    for name in source.names():
        folder = _folder(name)
        parent = posixpath.normpath(name.rpartition("/")[0])
        if folder not in NO_CLASS and (other := parents.setdefault(folder, parent)) != parent:
            raise UserError(
                f"the class {folder} of {path} lies in {other}/ and in {parent}/: rename one of them, or prepare a "
                f"folder above only one of them, or write all labels to a {DATASET_JSON}"
            )


def _labels(text: bytes, where: str) -> dict[str, int]:
    """The number of each image's class, by its name."""
    if len(text) > MAX_BYTES:
        raise UserError(f"{where} is larger than {MAX_BYTES} bytes; {WITHOUT}")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is not JSON; correct or remove it: {WITHOUT}") from error
    if not isinstance(document, dict) or not isinstance(document.get("labels", 0), list | None):
        raise UserError(f"{where} has no list `labels`; correct or remove it: {WITHOUT}")
    entries = document["labels"]
    if not entries:
        raise UserError(f"{where} says that the images have no classes; leave out --labels")
    numbers: dict[str, int] = {}
    for index, entry in enumerate(entries):
        if not (isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str)):
            raise UserError(f"entry {index} of the labels of {where} is not [name, label]; correct it")
        name = _within(entry[0].replace("\\", "/"))
        if name in numbers:
            raise UserError(f"{where} has several labels for {name}; leave one")
        numbers[name] = _number(entry[1], name, where)
    return numbers


def _number(label: object, name: str, where: str) -> int:
    """A class number, or the place of the 1 in a one-hot list."""
    if isinstance(label, list) and label.count(1) == 1 and label.count(0) == len(label) - 1:
        label = label.index(1)
    if type(label) is not int or not 0 <= label < MAX_CLASSES:
        raise UserError(
            f"{where}: the label of {name} is neither an integer from 0 to {MAX_CLASSES - 1} nor a one-hot list; "
            "correct it, or leave out --labels"
        )
    return label


def _refuse_other_names(numbers: dict[str, int], source: Source, where: str) -> None:
    absent = set(numbers)
    names = map(_within, source.names())
    unlabelled = [name for name in names if name not in numbers or absent.discard(name)]
    if unlabelled:
        raise UserError(f"{where} has no label for {len(unlabelled)} images, such as {unlabelled[0]}; add them")
    if absent:
        raise UserError(
            f"{where} has labels of {len(absent)} images that are absent, such as {min(absent)}; remove them"
        )
