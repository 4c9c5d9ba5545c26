"""The reader in many processes, and what the inspection finds."""

import os
import shutil
from itertools import islice
from pathlib import Path

import lmdb
import pytest
import skimage.data
import torch
from PIL import Image
from torch import multiprocessing

from plugins.datasets.lmdb_dataset import LmdbDataset
from registry import UserError
from stylenat.commands.inspect_data import main
from stylenat.data import loader, workers
from stylenat.data.loader import ImageStream
from stylenat.data.prepare import prepare


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    for name in ("cat", "cup"):
        (folder / "photos" / name).mkdir(parents=True)
    cat, cup = skimage.data.chelsea(), skimage.data.coffee()
    for i in range(20):
        Image.fromarray(cat[5 * i : 5 * i + 64, 9 * i : 9 * i + 64]).save(folder / "photos" / "cat" / f"{i}.png")
        Image.fromarray(cup[5 * i : 5 * i + 64, 9 * i : 9 * i + 64]).save(folder / "photos" / "cup" / f"{i}.png")
    for storage in ("png", "jpeg", "raw"):
        prepare(folder / "photos", folder / f"{storage}.lmdb", 32, storage=storage, labels=True, workers=1)
    return folder


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("storage", ["png", "jpeg", "raw"])
def test_worker_processes_read_what_this_one_reads(made, monkeypatch, storage, method):
    monkeypatch.setattr(loader, "CACHE_BYTES", 0)
    monkeypatch.setattr(workers, "multiprocessing", multiprocessing.get_context(method))
    data = LmdbDataset(str(made / f"{storage}.lmdb"), 32)
    streams = [ImageStream(data, 7, seed=1, horizontal_flips=True, workers=count) for count in (0, 2)]
    here, there = (islice(stream.batches(21), 9) for stream in streams)
    here = [batch.clone() for batch in here]  # Open in the parent before any child exists.
    assert all(torch.equal(a, b) for a, b in zip(here, there, strict=True))
    assert data[0].shape == (3, 32, 32)


def test_reading_takes_no_lock_and_needs_no_right_to_write(made, tmp_path):
    path = made / "png.lmdb"
    os.chmod(path, 0o555)
    try:
        first, second = LmdbDataset(str(path), 32), LmdbDataset(str(path), 32)
        assert torch.equal(first[3], second[3])
        assert [file.name for file in path.iterdir()] == ["data.mdb"]
    finally:
        os.chmod(path, 0o755)


def test_constructing_touches_no_file_and_pickles(made):
    import pickle

    data = LmdbDataset("nowhere.lmdb", 32)
    data.path = made / "raw.lmdb"
    data.prepare()
    copy = pickle.loads(pickle.dumps(data))
    assert torch.equal(copy[5], data[5])


def copied(made, tmp_path, change):
    path = tmp_path / "changed.lmdb"
    path.mkdir()
    (path / "data.mdb").write_bytes((made / "png.lmdb" / "data.mdb").read_bytes())
    with lmdb.open(str(path), lock=False) as environment, environment.begin(write=True) as transaction:
        change(transaction)
    return path


def drop_the_digests(transaction):
    transaction.delete(b"sha256-32-000000")


@pytest.mark.parametrize("change", [lambda transaction: None, drop_the_digests], ids=["digests", "no digests"])
def test_repeated_images_are_counted_by_stored_digests_or_by_the_records(made, tmp_path, change):
    from stylenat.data import inspection

    def repeat(transaction):
        change(transaction)
        for name, value in (("32-00007", transaction.get(b"32-00000")), ("32-00009", transaction.get(b"32-00000"))):
            transaction.put(name.encode(), value)
        if digests := transaction.get(b"sha256-32-000000"):
            parts = [digests[i : i + 32] for i in range(0, len(digests), 32)]
            parts[7] = parts[9] = parts[0]
            transaction.put(b"sha256-32-000000", b"".join(parts))

    path = copied(made, tmp_path, repeat)
    assert inspection.Inspection(path).repeated() == 2


def flip_a_bit(transaction):
    record = bytearray(transaction.get(b"32-00003"))
    record[len(record) // 2] ^= 1
    transaction.put(b"32-00003", bytes(record))


@pytest.mark.parametrize(
    "change, message",
    [
        (flip_a_bit, "image 3 at 32 is not what was stored"),
        (lambda t: t.put(b"32-00003", bytes(t.get(b"32-00004"))), "image 3 at 32 is not what was stored"),
        (lambda t: t.delete(b"32-00003"), "image 3 at 32 is missing"),
    ],
)
def test_verify_names_the_damaged_record(made, tmp_path, capsys, change, message):
    assert main([str(made / "png.lmdb"), "--verify"]) == 0
    assert "40 records, 0 problems" in capsys.readouterr().out
    assert main([str(copied(made, tmp_path, change)), "--verify"]) == 2
    assert message in capsys.readouterr().out


def test_a_damaged_record_stops_the_reader_with_its_number(made, tmp_path):
    path = copied(made, tmp_path, lambda t: t.put(b"32-00003", b"\x89PNG nonsense"))
    with pytest.raises(UserError, match="image 3 does not decode"):
        LmdbDataset(str(path), 32)[3]


def test_inspection_draws_and_exports_what_was_prepared(made, tmp_path, capsys):
    sheet, files = tmp_path / "sheet.png", tmp_path / "files"
    assert main([str(made / "raw.lmdb"), "--sheet", str(sheet), "--export", str(files)]) == 0
    text = capsys.readouterr().out
    assert "mean RGB" in text and "exported  40 images" in text
    assert Image.open(sheet).size[0] > 400
    assert sorted(path.name for path in files.iterdir()) == ["cat", "cup"]
    again = prepare(files, tmp_path / "again.lmdb", 32, storage="raw", workers=1)
    assert again.manifest["content_sha256"] == prepare(made / "raw.lmdb", tmp_path / "b.lmdb", 32, storage="raw",
                                                       workers=1).manifest["content_sha256"]  # fmt: skip
    assert main([str(made / "raw.lmdb"), "--export", str(files)]) == 2


def test_mean_and_deviation_are_those_of_the_pixels(made):
    from stylenat.data.inspection import Inspection

    data = LmdbDataset(str(made / "png.lmdb"), 32)
    pixels = torch.stack([data[i] for i in range(40)]).double() / 255
    mean, std = Inspection(Path(made / "png.lmdb")).mean_and_std(100)
    assert torch.allclose(mean, pixels.mean((0, 2, 3))) and torch.allclose(
        std, pixels.std((0, 2, 3), correction=0), atol=1e-12
    )


def test_a_set_of_format_1_is_read_and_verified(made, tmp_path, capsys):
    import hashlib
    import json

    path = tmp_path / "one.lmdb"
    data = LmdbDataset(str(made / "png.lmdb"), 32)
    with data._ready().begin() as t:
        records = [bytes(t.get(f"32-{i:05d}".encode())) for i in range(3)]
    content = hashlib.sha256(b"".join(hashlib.sha256(record).digest() for record in records)).hexdigest()
    manifest = {"format_version": 1, "resolution": 32, "count": 3, "content_sha256": content, "storage": "png",
                "filter": "lanczos", "crop": "center", "skipped": {}, "source": "photos"}  # fmt: skip
    with lmdb.open(str(path), map_size=2**24) as environment, environment.begin(write=True) as transaction:
        for i, record in enumerate(records):
            transaction.put(f"32-{i:05d}".encode(), record)
        transaction.put(b"length", b"3")
        transaction.put(b"manifest", json.dumps(manifest).encode())
    assert torch.equal(LmdbDataset(str(path), 32)[2], data[2])
    assert main([str(path), "--verify"]) == 0
    assert "3 records, 0 problems" in capsys.readouterr().out


def test_a_damaged_page_is_one_line_wherever_it_is_met(made, tmp_path, capsys):
    path = tmp_path / "data.lmdb"
    shutil.copytree(made / "png.lmdb", path)
    file = path / "data.mdb"
    content = bytearray(file.read_bytes())
    for page in range(2 * 4096, len(content), 4096):  # All but the two that say where the rest is.
        content[page + 10 : page + 12] = b"\x55\x55"  # Its type.
    file.write_bytes(content)
    with pytest.raises(UserError, match="(is damaged|is not a readable LMDB).*make it again"):
        data = LmdbDataset(str(path), 32)
        [data[i] for i in range(len(data))]
    assert main([str(path), "--verify"]) == 2
    assert "Traceback" not in capsys.readouterr().err
