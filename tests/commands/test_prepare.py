import numpy as np
import pytest
import torch
from PIL import Image

from plugins.datasets.folder import Folder
from plugins.datasets.lfw_faces import LfwFaces
from plugins.datasets.lmdb_dataset import LmdbDataset
from registry import UserError
from stylenat.commands.prepare import main


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    random = np.random.default_rng(0)
    for i in range(5):
        Image.fromarray(random.integers(0, 255, (40, 30 + 10 * i, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return folder


def test_prepared_images_equal_those_of_the_folder(photos, tmp_path):
    out = tmp_path / "out.lmdb"
    assert main([str(photos), str(out), "--resolution", "16"]) == 0
    prepared, direct = LmdbDataset(str(out), 16), Folder(str(photos), 16)
    assert len(prepared) == len(direct) == 5
    assert all(torch.equal(prepared[i], direct[i]) for i in range(5))


def test_an_image_that_does_not_decode_is_skipped_counted_and_named(photos, tmp_path, capsys):
    (photos / "2.png").write_bytes(b"not a picture")
    out = tmp_path / "out.lmdb"
    assert main([str(photos), str(out), "--resolution", "16"]) == 0
    text = capsys.readouterr().out
    assert "4 images" in text and "skipped 1" in text and "2.png: does not decode" in text


def test_an_image_that_is_skipped_does_not_count_for_max_images(photos, tmp_path):
    direct = list(map(Folder(str(photos), 16).__getitem__, range(5)))
    (photos / "1.png").write_bytes(b"not a picture")
    out = tmp_path / "out.lmdb"
    assert main([str(photos), str(out), "--resolution", "16", "--max-images", "3"]) == 0
    prepared = LmdbDataset(str(out), 16)
    assert len(prepared) == 3 and all(torch.equal(prepared[i], direct[j]) for i, j in enumerate((0, 2, 3)))


def test_a_finished_data_set_is_left_alone_and_another_refused(photos, tmp_path, capsys):
    out = tmp_path / "out.lmdb"
    assert main([str(photos), str(out), "--resolution", "16"]) == 0
    before = (out / "data.mdb").read_bytes()
    assert main([str(photos), str(out), "--resolution", "16"]) == 0
    assert main([str(photos), str(out), "--resolution", "32"]) == 2
    assert (out / "data.mdb").read_bytes() == before


def test_transparency_lies_over_white_and_palettes_decode(tmp_path):
    folder = tmp_path / "f"
    folder.mkdir()
    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(folder / "a.png")
    Image.new("P", (8, 8), 0).save(folder / "b.png")
    Image.fromarray(np.full((8, 8), 65535, dtype=np.uint16)).save(folder / "c.png")
    data = Folder(str(folder), 8)
    assert (data[0] == 255).all() and (data[1] == 0).all() and (data[2] == 255).all()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["nowhere", "o.lmdb", "--resolution", "16"], "nothing at nowhere"),
        (["empty", "o.lmdb", "--resolution", "16"], "no images below"),
        (["empty", "o.lmdb", "--resolution", "0"], "at least 1"),
        (["bad", "o.lmdb", "--resolution", "16"], "does not decode"),
    ],
)
def test_prepare_refuses_bad_input_and_leaves_nothing(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_bytes(b"x")
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad", "empty"]


def test_an_lmdb_that_cannot_serve_says_why(photos, tmp_path):
    out = tmp_path / "out.lmdb"
    assert main([str(photos), str(out), "--resolution", "16"]) == 0
    with pytest.raises(UserError, match="resolution 16, not 32"):
        LmdbDataset(str(out), 32).prepare()
    with pytest.raises(UserError, match="no data set at"):
        LmdbDataset(str(tmp_path / "x"), 16).prepare()
    data = out / "data.mdb"
    whole = data.read_bytes()
    for size in (0, 100, 5000, 9000, len(whole) - 4096):
        data.write_bytes(whole[:size])
        with pytest.raises(UserError, match="not a readable LMDB"):
            LmdbDataset(str(out), 16).prepare()


def test_the_faces_are_written_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    faces = LfwFaces(16)
    assert list(tmp_path.iterdir()) == []
    faces.prepare()
    assert len(faces) == 100 and faces[0].shape == (3, 16, 16)


def test_without_a_crop_what_is_not_square_is_refused_by_name(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    Image.new("RGB", (20, 20)).save(tmp_path / "in" / "a.png")
    Image.new("RGB", (20, 24)).save(tmp_path / "in" / "b.png")
    assert main([str(tmp_path / "in"), str(tmp_path / "x.lmdb"), "--resolution", "16", "--crop", "none"]) == 2
    error = capsys.readouterr().err
    assert "b.png is not square (20x24)" in error and "leave out --crop none" in error
    (tmp_path / "in" / "b.png").rename(tmp_path / "in" / "b.txt")  # Nothing is lost: without it, it goes on.
    assert main([str(tmp_path / "in"), str(tmp_path / "x.lmdb"), "--resolution", "16", "--crop", "none"]) == 0
    assert "x.lmdb: 1 images" in capsys.readouterr().out
    for name in ("a.png", "b.txt"):
        (tmp_path / "in" / name).unlink()
    Image.new("RGB", (20, 24)).save(tmp_path / "in" / "c.png")
    assert main([str(tmp_path / "in"), str(tmp_path / "y.lmdb"), "--resolution", "16", "--crop", "none"]) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "x.lmdb"]


def test_what_is_no_data_set_is_not_touched(photos, tmp_path, capsys):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("folder", "file", "link"):
        assert main([str(photos), str(tmp_path / name), "--resolution", "16"]) == 2
        assert f"{name} exists and is no data set; choose another name" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder", "link", "photos"]
