"""Classes come from dataset.json, folders or an LMDB, and are certain or refused."""

import io
import json
import os
import tarfile
import zipfile

import lmdb
import numpy as np
import pytest
from PIL import Image

from plugins.datasets.zip_dataset import Zip
from registry import UserError
from stylenat.commands.inspect_data import main as inspect_data
from stylenat.data.inspection import Inspection
from stylenat.data.lmdb_images import LmdbImages
from stylenat.data.prepare import prepare


def png(value):
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (value, 0, 0)).save(file, "png")
    return file.getvalue()


NAMES = [f"0000{i // 2}/img{i}.png" for i in range(5)]


def as_folder(path, files):
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)


def as_zip(path, files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)


def as_tar(path, files, mode="w"):
    with tarfile.open(path, mode) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


MAKERS = {"folder": as_folder, "zip": as_zip, "tar": as_tar, "tgz": lambda path, files: as_tar(path, files, "w:gz")}


def source(tmp_path, kind="zip", labels=None, text=None, names=NAMES):
    files = {name: png(i) for i, name in enumerate(names)}
    if text is None:
        text = json.dumps({"labels": labels}).encode()
    MAKERS[kind](tmp_path / kind, files | {"dataset.json": text})
    return tmp_path / kind


def labels_of(path):
    made = LmdbImages(str(path), 8)
    return made.labels().tolist(), made.classes


@pytest.mark.parametrize("kind", MAKERS)
def test_the_labels_are_those_of_dataset_json(tmp_path, kind):
    given = [3, 0, 3, 1, 0]
    labels = [[name.replace("/", "\\"), number] for name, number in zip(NAMES, given, strict=True)]
    path = source(tmp_path, kind, labels[::-1])
    manifest = prepare(path, tmp_path / "o.lmdb", 8, labels=True, workers=1).manifest
    assert labels_of(tmp_path / "o.lmdb") == (given, ["0", "1", "2", "3"])
    assert manifest["labels_from"] == "dataset.json" and manifest["ignored"] == 1
    assert prepare(path, tmp_path / "o.lmdb", 8, labels=True, workers=1).unchanged


def test_a_one_hot_list_is_a_class_number(tmp_path):
    hot = [[name, [0, 1.0, 0] if i % 2 else [1, 0, 0]] for i, name in enumerate(NAMES)]
    prepare(source(tmp_path, labels=hot), tmp_path / "o.lmdb", 8, labels=True, workers=1)
    assert labels_of(tmp_path / "o.lmdb")[0] == [0, 1, 0, 1, 0]


GOOD = [[name, 0] for name in NAMES]


@pytest.mark.parametrize(
    "labels, message",
    [
        (None, "no classes; leave out --labels"),
        ([], "no classes; leave out --labels"),
        (GOOD[1:], "no label for 1 images, such as 00000/img0.png"),
        ([*GOOD, ["gone.png", 0]], "labels of 1 images that are absent, such as gone.png"),
        ([*GOOD, GOOD[0]], "several labels for 00000/img0.png"),
        ([*GOOD[1:], [NAMES[0], "cat"]], "label of 00000/img0.png is neither"),
        ([*GOOD[1:], [NAMES[0], 1.5]], "label of 00000/img0.png is neither"),
        ([*GOOD[1:], [NAMES[0], True]], "label of 00000/img0.png is neither"),
        ([*GOOD[1:], [NAMES[0], -1]], "label of 00000/img0.png is neither"),
        ([*GOOD[1:], [NAMES[0], 10**12]], "label of 00000/img0.png is neither"),
        ([*GOOD[1:], [NAMES[0], [0.2, 0.8]]], "label of 00000/img0.png is neither"),
        ([*GOOD[1:], [NAMES[0]]], "entry 4 of the labels .* is not"),
        ([*GOOD[1:], [3, 0]], "entry 4 of the labels .* is not"),
        ({"a": 1}, "has no list `labels`"),
    ],
)
def test_labels_that_are_not_certain_are_refused_in_one_line(tmp_path, labels, message):
    with pytest.raises(UserError, match=message) as caught:
        prepare(source(tmp_path, labels=labels), tmp_path / "o.lmdb", 8, labels=True, workers=1)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("*o.lmdb*"))
    assert prepare(tmp_path / "zip", tmp_path / "o.lmdb", 8, workers=1).count == 5


@pytest.mark.parametrize(
    "text", [b"\xff", b"{", b"[" * 100_000, b"[]", b"3", b"{}", b'{"labels": ' + b"9" * 5000 + b"}"]
)
def test_a_dataset_json_that_is_something_else_is_refused(tmp_path, text):
    with pytest.raises(UserError, match="dataset.json in .* (is not JSON|has no list `labels`)"):
        prepare(source(tmp_path, text=text), tmp_path / "o.lmdb", 8, labels=True, workers=1)


@pytest.mark.parametrize("kind", MAKERS)
def test_one_class_name_under_several_parents_is_refused_with_the_remedy(tmp_path, kind):
    MAKERS[kind](tmp_path / kind, {f"{name}/a.png": png(0) for name in ("cat/1", "cat/2", "dog/1")})
    with pytest.raises(UserError, match="class 1 of .* lies in cat/1/ and in dog/1/: rename one"):
        prepare(tmp_path / kind, tmp_path / "o.lmdb", 8, labels=True, workers=1)
    assert not list(tmp_path.glob("*o.lmdb*"))
    assert prepare(tmp_path / kind, tmp_path / "o.lmdb", 8, workers=1).count == 3


def test_what_was_begun_with_the_folders_as_classes_does_not_go_on_with_dataset_json(tmp_path):
    def stop(images, position, size):
        if images == 2:
            raise KeyboardInterrupt

    as_folder(tmp_path / "in", {name: png(i) for i, name in enumerate(NAMES)})
    with pytest.raises(KeyboardInterrupt):
        prepare(tmp_path / "in", tmp_path / "o.lmdb", 8, labels=True, workers=1, progress=stop)
    (tmp_path / "in" / "dataset.json").write_text(json.dumps({"labels": [[name, 1] for name in NAMES]}))
    with pytest.raises(UserError, match="labels_from None, not dataset.json"):
        prepare(tmp_path / "in", tmp_path / "o.lmdb", 8, labels=True, workers=1)
    (tmp_path / "in" / "dataset.json").unlink()
    prepare(tmp_path / "in", tmp_path / "o.lmdb", 8, labels=True, workers=1)
    assert labels_of(tmp_path / "o.lmdb") == ([0, 0, 1, 1, 2], ["00000", "00001", "00002"])


def test_the_class_numbers_of_dataset_json_survive_an_interruption(tmp_path):
    def stop(images, position, size):
        if images == 3:
            raise KeyboardInterrupt

    path = source(tmp_path, labels=[[name, 4 - i] for i, name in enumerate(NAMES)])
    with pytest.raises(KeyboardInterrupt):
        prepare(path, tmp_path / "o.lmdb", 8, labels=True, workers=1, progress=stop)
    prepare(path, tmp_path / "o.lmdb", 8, labels=True, workers=1)
    assert labels_of(tmp_path / "o.lmdb") == ([4, 3, 2, 1, 0], ["0", "1", "2", "3", "4"])


def reds(data):
    return [int(data[i][0, 0, 0]) for i in range(len(data))]


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("workers", [1, 2])
def test_members_of_one_name_are_each_an_image(tmp_path, workers):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name, value in [("b.png", 1), ("a.png", 2), ("b.png", 3), ("x\\y\\c.png", 4), ("x\\.hidden\\d.png", 5)]:
            archive.writestr(name, png(value))
    prepare(tmp_path / "a.zip", tmp_path / "zip.lmdb", 8, workers=workers)
    assert reds(LmdbImages(str(tmp_path / "zip.lmdb"), 8)) == reds(Zip(str(tmp_path / "a.zip"), 8)) == [2, 1, 3, 4]
    for mode in ("w", "w:gz"):
        with tarfile.open(tmp_path / "a.tar", mode) as archive:
            for value in (1, 2):
                member, data = tarfile.TarInfo("b.png"), png(value)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
        prepare(tmp_path / "a.tar", tmp_path / f"{mode[1:]}.lmdb", 8, workers=workers)
        assert reds(LmdbImages(str(tmp_path / f"{mode[1:]}.lmdb"), 8)) == [1, 2]


def test_backslashes_in_a_zip_separate_folders(tmp_path):
    as_zip(tmp_path / "a.zip", {"in\\cat\\1.png": png(1), "in\\dog\\2.png": png(2)})
    prepare(tmp_path / "a.zip", tmp_path / "o.lmdb", 8, labels=True, workers=1)
    assert labels_of(tmp_path / "o.lmdb") == ([0, 1], ["cat", "dog"])


def test_a_zip_that_changes_while_it_is_read_is_not_read_on(tmp_path):
    as_zip(tmp_path / "a.zip", {"a.png": png(1), "b.png": png(2)})
    data = Zip(str(tmp_path / "a.zip"), 8)
    assert np.asarray(data[1])[0, 0, 0] == 2
    (tmp_path / "a.zip").unlink()
    as_zip(tmp_path / "a.zip", {"b.png": png(2), "other.png": png(3)})
    with pytest.raises(UserError, match="has changed while it was read"):
        data[1]


def test_names_below_the_current_folder_are_those_of_dataset_json(tmp_path):
    names = [f"./{name}" for name in NAMES]
    labels = [[name, i % 3] for i, name in enumerate(NAMES)]
    files = {name: png(i) for i, name in enumerate(names)} | {"./dataset.json": json.dumps({"labels": labels}).encode()}
    as_tar(tmp_path / "made.tar", files)  # As tar -C FOLDER . writes them.
    prepare(tmp_path / "made.tar", tmp_path / "made.lmdb", [8], labels=True, workers=1)
    assert labels_of(tmp_path / "made.lmdb") == ([0, 1, 2, 0, 1], ["0", "1", "2"])


@pytest.mark.parametrize("make", [lambda path: path.symlink_to("nothing"), lambda path: path.mkdir(), os.mkfifo])
def test_a_dataset_json_that_is_no_file_is_refused_and_not_ignored(tmp_path, make):
    as_folder(tmp_path / "made", {"0/a.png": png(1)})
    make(tmp_path / "made" / "dataset.json")
    with pytest.raises(UserError, match="dataset.json is not a file"):
        prepare(tmp_path / "made", tmp_path / "made.lmdb", [8], labels=True, workers=1)
    assert not (tmp_path / "made.lmdb").exists()


def change(path, key, value):
    with lmdb.open(str(path), map_size=2**26, lock=False) as environment, environment.begin(write=True) as put:
        put.put(key, value(put.get(key)))


@pytest.mark.parametrize("value", [lambda old: old + b"x", lambda old: old[:-1], lambda old: old[:-4], lambda old: b""])
def test_labels_of_another_length_are_damaged(tmp_path, value):
    as_folder(tmp_path / "in", {"a/1.png": png(1), "b/2.png": png(2)})
    prepare(tmp_path / "in", tmp_path / "o.lmdb", 8, labels=True, workers=1)
    change(tmp_path / "o.lmdb", b"labels-000000", value)
    with pytest.raises(UserError, match="labels are damaged"):
        LmdbImages(str(tmp_path / "o.lmdb"), 8).labels()
    with pytest.raises(UserError, match="damaged class labels"):
        prepare(tmp_path / "o.lmdb", tmp_path / "p.lmdb", 8, labels=True, workers=1)
    assert list(Inspection(tmp_path / "o.lmdb").problems())[-1].endswith("make the data set again")


@pytest.mark.parametrize("value", [lambda old: b"x", lambda old: b""])
def test_labels_of_a_beginning_of_another_length_are_damaged(tmp_path, value):
    as_folder(tmp_path / "in", {f"a/{i}.png": png(i) for i in range(4)})

    def stop(images, *_):
        if images == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(tmp_path / "in", tmp_path / "o.lmdb", 8, labels=True, workers=1, progress=stop)
    change(tmp_path / ".o.lmdb.partial", b"labels-000000", value)
    with pytest.raises(UserError, match="class labels in .* are damaged; remove it to start again"):
        prepare(tmp_path / "in", tmp_path / "o.lmdb", 8, labels=True, workers=1)


@pytest.mark.parametrize("name", ["a\0b", "a/b", "..", "\ud800", "\x1b[31m"])
def test_classes_of_any_name_are_carried_over_and_shown_but_make_no_folder(tmp_path, capsys, name):
    as_folder(tmp_path / "in", {"a/1.png": png(1), "b/2.png": png(2)})
    prepare(tmp_path / "in", tmp_path / "o.lmdb", 8, labels=True, workers=1)
    change(
        tmp_path / "o.lmdb", b"manifest", lambda old: json.dumps(json.loads(old) | {"classes": [name, "b"]}).encode()
    )
    carried_over = prepare(tmp_path / "o.lmdb", tmp_path / "p.lmdb", 8, labels=True, workers=1)
    assert carried_over.manifest["classes"] == [name, "b"] or name == ".."
    refused = name != "\x1b[31m"
    assert inspect_data([str(tmp_path / "o.lmdb"), "--export", str(tmp_path / "files")]) == 2 * refused
    captured = capsys.readouterr()
    assert "\0" not in captured.out and "\x1b" not in captured.out
    assert (tmp_path / "files").exists() != refused
