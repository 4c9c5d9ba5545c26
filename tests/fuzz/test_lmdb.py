"""Whatever the records of an LMDB hold, images come out or one line."""

import itertools
import json
import shutil

import lmdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from registry import UserError
from stylenat.data.inspection import Inspection
from stylenat.data.lmdb_images import LmdbImages
from stylenat.data.prepare import prepare

FUZZ = settings.get_profile("fuzz")
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
RECORDS = [b"length", b"manifest", b"16-00000", b"16-00001", b"sha256-16-000000", b"labels-000000"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for name in ("a", "b"):
        (folder / "photos" / name).mkdir(parents=True)
        Image.new("RGB", (16, 16), "red").save(folder / "photos" / name / "x.png")
    prepare(folder / "photos", folder / "whole.lmdb", 16, labels=True, workers=1)
    return folder / "whole.lmdb"


NUMBERS = itertools.count()


def changed(whole, folder, records):
    """A copy with some records replaced; None removes one. Under a new name: readers stay open while in use."""
    path = folder / f"{next(NUMBERS)}.lmdb"
    shutil.copytree(whole, path)
    environment = lmdb.open(str(path), map_size=2**24)
    with environment.begin(write=True) as transaction:
        for key, value in records.items():
            if value is None:
                transaction.delete(key)
            else:
                transaction.put(key, value)
    environment.close()
    return path


@pytest.fixture(scope="module")
def records(whole):
    environment = lmdb.open(str(changed(whole, whole.parent, {})))
    with environment.begin() as transaction:
        return {key: bytes(value) for key, value in transaction.cursor()}


def refused_or(use):
    try:
        use()
    except UserError as error:
        assert len(str(error).splitlines()) == 1, str(error)


def look_at(path):
    """All that is done with a data set."""
    images = LmdbImages(str(path), 16)
    refused_or(images.open)
    for index in range(2):
        refused_or(lambda index=index: images[index].float().mean())
    refused_or(images.labels)
    refused_or(lambda: images.classes)

    def inspected():
        data = Inspection(path, None)
        data.summary()
        list(data.problems())
        data.mean_and_std(2)

    refused_or(inspected)


@given(replaced=st.dictionaries(st.sampled_from(RECORDS), st.none() | st.binary(max_size=80) | st.integers().map(
    lambda n: str(n).encode()), min_size=1, max_size=3))  # fmt: skip
@settings(FUZZ)
def test_any_record_is_read_or_refused(whole, tmp_path, replaced):
    look_at(changed(whole, tmp_path, replaced))


@given(data=st.data())
@settings(FUZZ)
def test_any_manifest_is_read_or_refused(whole, records, tmp_path, data):
    manifest = json.loads(records[b"manifest"])
    for _ in range(data.draw(st.integers(1, 3))):
        manifest[data.draw(st.sampled_from(sorted(manifest)))] = data.draw(PLAIN)
    text = json.dumps(data.draw(st.sampled_from([manifest, manifest, data.draw(PLAIN)]))).encode()
    look_at(changed(whole, tmp_path, {b"manifest": text}))


@given(place=st.integers(0, 400), value=st.integers(0, 255), cut=st.booleans())
@settings(FUZZ)
def test_a_damaged_picture_is_read_or_refused(whole, records, tmp_path, place, value, cut):
    record = bytearray(records[b"16-00000"])
    at = place % len(record)
    record[at] = value
    look_at(changed(whole, tmp_path, {b"16-00000": bytes(record[: at if cut else None])}))
