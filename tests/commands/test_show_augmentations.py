import pytest
from PIL import Image

from stylenat.commands.show_augmentations import main


@pytest.fixture
def arguments(tmp_path, monkeypatch):
    """Of a sheet of one plain photo, in an empty current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    Image.effect_noise((16, 16), 60).convert("RGB").save(tmp_path / "photos" / "a.png")
    given = ["--gin", "quickstart.gin", "--out", "sheet.png"]
    for bind in (
        "train.dataset = @dataset.folder()",
        "dataset.folder.path = 'photos'",
        "dataset.folder.resolution = 16",
        "augmentation.ada.multipliers = {}",
    ):
        given += ["--bind", bind]
    return given


def rows(path, columns):
    """Of a sheet: cells are 66 pixels, their frame is 2, the line of names above is 22."""
    width, height = Image.open(path).size
    assert width > columns * 66
    return (height - 22 - 2) / 66


def test_a_sheet_has_a_row_for_each_transform_in_use(arguments, tmp_path, capsys):
    assert main([*arguments, "--bind", "augmentation.ada.preset = 'color'", "--columns", "3"]) == 0
    assert rows(tmp_path / "sheet.png", 3) == 7  # as it is, five of colour, all together
    assert "7 rows at 3 strengths" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos", "sheet.png"]


def test_an_augmentation_that_cannot_show_its_transforms_is_drawn_from(arguments, tmp_path):
    assert main([*arguments, "--bind", "train.augmentation = @augmentation.diffaugment()", "--columns", "4"]) == 0
    assert rows(tmp_path / "sheet.png", 4) == 4


@pytest.mark.parametrize(
    "more, message",
    [
        (["--image", "1"], "--image must lie between 0 and 0"),
        (["--columns", "1"], "--columns must lie between"),
        (["--out", "absent/sheet.png"], "cannot write absent/sheet.png"),
        (["--out", "photos"], "cannot write photos"),
        (["--bind", "augmentation.ada.preset = 'bgx'"], "no 'bgx'"),
        (["--bind", "augmentation.ada.multipliers = {'spin': 1.0}"], "spin"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(arguments, tmp_path, capsys, more, message):
    assert main([*arguments, *more]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]
