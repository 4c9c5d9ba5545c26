"""A data set is known again, and another one is told from it, whatever sort it is."""

import os
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from plugins.datasets.folder import Folder
from plugins.datasets.lmdb_dataset import LmdbDataset
from plugins.datasets.subset import Subset
from plugins.datasets.zip_dataset import Zip
from stylenat.data.identity import SPREAD, differences, identity, spread
from stylenat.data.lmdb_writer import write

SIDE = 8


def save(path, value):
    Image.fromarray(np.full((SIDE, SIDE, 3), value, np.uint8)).save(path)


def folder(path, values):
    path.mkdir(exist_ok=True)
    for i, value in enumerate(values):
        save(path / f"{i:04d}.png", value)
    return Folder(str(path), SIDE)


def zipped(path, values):
    folder(path.with_suffix(""), values)
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(path.with_suffix("").iterdir()):
            archive.write(file, file.name)
    return Zip(str(path), SIDE)


def lmdb(path, values, manifest=None):
    folder(path.with_suffix(""), values)
    files = sorted(path.with_suffix("").iterdir())
    write(path, SIDE, (file.read_bytes() for file in files), {"source": "test", "skipped": {}})
    return LmdbDataset(str(path), SIDE)


class Plain:
    """A plugin's data set without any account of itself."""

    def __init__(self, values):
        self.values, self.resolution = values, SIDE

    def describe(self):
        return "plain"

    def prepare(self):
        pass

    def __len__(self):
        return len(self.values)

    def __getitem__(self, index):
        return torch.full((3, SIDE, SIDE), self.values[index], dtype=torch.uint8)


MAKERS = {
    "folder": folder,
    "zip": lambda path, values: zipped(path.with_suffix(".zip"), values),
    "lmdb": lambda path, values: lmdb(path.with_suffix(".lmdb"), values),
    "subset": lambda path, values: Subset(folder(path, values), 2),
    "plain": lambda path, values: Plain(values),
}


def identity_of(dataset):
    dataset.prepare()
    return identity(dataset)


@pytest.mark.parametrize("kind", MAKERS)
def test_the_same_images_have_the_same_identity_wherever_they_lie(kind, tmp_path, monkeypatch):
    one = identity_of(MAKERS[kind](tmp_path / "one", [1, 2, 3]))
    two = identity_of(MAKERS[kind](tmp_path / "two", [1, 2, 3]))
    assert differences(one, two) == []
    assert all(isinstance(value, str | int) for value in one.values())


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("values", [[1, 2, 4], [1, 2, 3, 4]])
def test_other_images_under_the_same_names_have_another(kind, values, tmp_path):
    one = identity_of(MAKERS[kind](tmp_path / "one", [1, 2, 3]))
    two = identity_of(MAKERS[kind](tmp_path / "two", values))
    assert differences(one, two)


def test_a_folder_notices_a_change_of_any_files_name_or_size(tmp_path):
    values = [i % 250 for i in range(3 * SPREAD)]
    before = identity_of(folder(tmp_path / "one", values))
    os.rename(tmp_path / "one" / "0001.png", tmp_path / "one" / "0001a.png")
    after = identity_of(Folder(str(tmp_path / "one"), SIDE))
    assert [line.split()[0] for line in differences(before, after)] == ["names"]


def test_what_is_known_by_nothing_in_common_differs():
    assert differences({"images": 3, "records": "a"}, {"images": 3, "content": "a"})
    assert differences({"images": 3, "records": "a"}, {"images": 3, "records": "a", "content": "b"}) == []


def test_the_spread_reaches_from_the_first_image_to_the_last():
    assert list(spread(3)) == [0, 1, 2]
    indices = spread(10_000)
    assert len(set(indices)) == SPREAD and (indices[0], indices[-1]) == (0, 9_999)
