"""``tools/sample.py``: sample i is the same image everywhere, in bounded memory, and across interruptions."""

import errno
import json
import os
import shutil
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from plugins.datasets.lmdb_dataset import LmdbDataset
from plugins.features.random_convolution import RandomConvolution
from stylenat.commands.evaluate import main as evaluate
from stylenat.commands.run import main as run
from stylenat.commands.sample import main as sample
from stylenat.commands.sample import parsed_seeds
from stylenat.evaluation import sample_files, samples
from stylenat.evaluation.samples import SampleFolder
from stylenat.files import partial
from stylenat.networks.generator import StyleGenerator
from stylenat.sampling import Sampler
from stylenat.trained import opened


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of one iteration, whose grids and metrics are truncated, and its data set."""
    folder = tmp_path_factory.mktemp("trained")
    binds = [
        "generator.style.channels = [16, 16, 16]",
        "discriminator.wavelet.channels = [8, 8]",
        "train.iterations = 1",
        "train.batch_size = 4",
        "train.seed = 5",
        "train.truncation_psi = 0.7",
        "train.threads = 1",
        "train.sample_count = 20",
        "train.evaluation_samples = 16",
        "train.trackers = [@tracker.jsonl()]",
        f"dataset.lfw_faces.path = '{folder}/faces.lmdb'",
        "train.metrics = [@metric.frechet_random_features()]",
    ]
    arguments = ["--gin", "quickstart.gin", "--run-dir", str(folder / "run")]
    for bind in binds:
        arguments += ["--bind", bind]
    threads = torch.get_num_threads()
    assert run(arguments) == 0
    torch.set_num_threads(threads)
    return folder


@pytest.fixture
def folder(trained, tmp_path, monkeypatch):
    """A copy of the run, in an empty current folder."""
    threads = torch.get_num_threads()
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained / "run", "run")
    yield Path("run")
    torch.set_num_threads(threads)


def pixels(path):
    return np.asarray(Image.open(path))


def line_of(capsys):
    """The one line of an error."""
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    return line


@pytest.mark.parametrize("seeds", ["3", "0-19", "19,3,200"])
def test_a_seed_is_that_sample_of_the_grids_and_of_the_metrics(folder, seeds, monkeypatch):
    assert sample(["run", "--seeds", seeds, "--out", "out"]) == 0
    found = pixels("out/seed-000003.png")

    grid = pixels("run/samples/step-000000001.png")  # 20 images in 5 columns, each enlarged fourfold, 2 pixels apart.
    assert np.array_equal(grid[2:66:4, 2 + 3 * 66 : 66 + 3 * 66 : 4], found)

    embedded = []
    embed = RandomConvolution.__call__
    monkeypatch.setattr(RandomConvolution, "__call__", lambda self, x: (embedded.append(x), embed(self, x))[1])
    assert evaluate(["run"]) == 0
    assert np.array_equal(embedded[-1][3].permute(1, 2, 0).numpy(), found)


def test_truncation_is_the_runs_or_the_one_that_is_asked_for(folder):
    for name, options in {"run": [], "same": ["--truncation-psi", "0.7"], "none": ["--truncation-psi", "1"]}.items():
        assert sample(["run", "--seeds", "3", "--out", f"out-{name}", *options]) == 0
    paths = [Path(f"out-{name}/seed-000003.png") for name in ("run", "same", "none")]
    first, same, none = (path.read_bytes() for path in paths)
    assert first == same != none


def test_batches_of_any_size_make_the_same_images_but_for_rounding(folder):
    for batch in ("1", "7", "16", "20"):
        assert sample(["run", "--seeds", "3,17-36", "--batch", batch, "--out", f"out-{batch}"]) == 0
    for path in Path("out-16").glob("seed-*.png"):
        reference = pixels(path).astype(int)
        for batch in ("1", "7", "20"):
            assert abs(pixels(f"out-{batch}/{path.name}") - reference).max() <= 1


def test_the_same_command_goes_on_where_it_was_stopped(folder, monkeypatch, capsys):
    images = Sampler.images

    def stopping(self, batch):
        if batch.start == 8:
            raise KeyboardInterrupt
        return images(self, batch)

    argv = ["run", "--seeds", "0-11", "--out", "out"]
    with monkeypatch.context() as patch:
        patch.setattr(Sampler, "images", stopping)
        assert sample(argv) == 75
    kept = {path: path.stat().st_mtime_ns for path in Path("out").glob("seed-*.png")}
    assert len(kept) == 8 and not Path("out/grid.png").exists()

    monkeypatch.setattr(Sampler, "images", lambda self, batch: (made.append(batch), images(self, batch))[1])
    made = []
    assert sample(argv) == 0
    assert made == [range(8, 12)]
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())
    assert "12 images (8 were there) and grid.png in out" in capsys.readouterr().out
    assert sample([*argv[:-1], "whole"]) == 0
    assert {p.name: p.read_bytes() for p in Path("out").iterdir()} == {
        p.name: p.read_bytes() for p in Path("whole").iterdir()
    }


def test_images_of_another_origin_are_not_mixed(folder, capsys):
    argv = ["run", "--seeds", "0-3", "--out", "out"]
    assert sample(argv) == 0
    note = json.loads(Path("out/samples.json").read_text())
    before = {path: path.read_bytes() for path in Path("out").iterdir()}

    assert sample([*argv, "--truncation-psi", "0.5"]) == 2
    assert "another truncation_psi (samples.json); choose another --out" in line_of(capsys)
    for change in ({"weights_sha256": "0" * 64}, {"seed": 6}):
        Path("out/samples.json").write_text(json.dumps(note | change))
        assert sample(argv) == 2
        assert f"another {next(iter(change))} " in line_of(capsys)
    for text in ("[]", "{", "[" * 100_000):
        Path("out/samples.json").write_text(text)
        assert sample(argv) == 2
        assert "samples.json cannot be read" in line_of(capsys)
    Path("out/samples.json").unlink()
    assert sample(argv) == 2
    assert "has images but no samples.json" in line_of(capsys)
    assert {p: p.read_bytes() for p in Path("out").iterdir()} == {p: b for p, b in before.items() if p.suffix == ".png"}


def test_images_in_bfloat16_are_near_and_of_another_origin(folder, capsys, monkeypatch):
    monkeypatch.setattr("stylenat.precision.why_not_faster", lambda device: "no instructions")
    assert sample([str(folder), "--seeds", "0-3", "--out", "exact", "--precision", "float32"]) == 0
    assert sample([str(folder), "--seeds", "0-3", "--out", "near", "--precision", "bf16"]) == 0
    assert "note: --precision bf16 is no faster here: no instructions" in capsys.readouterr().err
    note = json.loads(Path("near/samples.json").read_text())
    assert note["precision"] == "bfloat16" and "precision" not in json.loads(Path("exact/samples.json").read_text())
    exact, near = (np.stack([pixels(f"{out}/seed-{i:06d}.png") for i in range(4)]) for out in ("exact", "near"))
    difference = np.abs(exact.astype(int) - near.astype(int))
    assert 0 < difference.mean() < 1 and difference.max() < 10
    assert sample([str(folder), "--seeds", "0-7", "--out", "near"]) == 2
    assert "near has images of another precision (samples.json); choose another --out" in line_of(capsys)
    assert sample([str(folder), "--seeds", "0-7", "--out", "exact", "--precision", "bf16"]) == 2
    assert "exact has images of another precision (samples.json)" in line_of(capsys)


def test_images_of_styles_in_bfloat16_are_of_another_origin(folder, capsys):
    assert sample(["run", "--seeds", "0-1", "--save-styles", "w.npy", "--out", "out"]) == 0
    assert sample(["run", "--styles", "w.npy", "--out", "again", "--precision", "bf16"]) == 0
    assert json.loads(Path("again/samples.json").read_text())["precision"] == "bfloat16"
    assert sample(["run", "--styles", "w.npy", "--out", "again"]) == 2
    assert "again has images of another precision (samples.json)" in line_of(capsys)


def test_a_cutoff_without_truncation_is_refused(folder, capsys):
    config = Path("run/config.gin")
    config.write_text(config.read_text().replace("truncation_psi = 0.7", "truncation_psi = 1.0"))
    assert sample(["run", "--seeds", "0", "--truncation-cutoff", "2", "--out", "out"]) == 2
    assert "--truncation-cutoff has no effect: the run does not truncate" in line_of(capsys)
    assert sample(["run", "--seeds", "0", "--truncation-cutoff", "2", "--truncation-psi", "1", "--out", "out"]) == 0


def test_a_cutoff_truncates_the_first_styles_only(folder):
    opened_run = opened(folder)
    none, all_of_them = opened_run.sampler(1.0), opened_run.sampler(0.5)
    w, truncated = none.styles(none.latents(0, 4)), all_of_them.styles(all_of_them.latents(0, 4))
    styles = opened_run.sampler(0.5, truncation_cutoff=2).styles(none.latents(0, 4))
    assert styles.shape == (4, 6, 64)
    assert torch.equal(styles[:, 0], truncated) and torch.equal(styles[:, 1], truncated)
    assert all(torch.equal(styles[:, i], w) for i in range(2, 6))
    options = {"none": ["1"], "two": ["0.5", "--truncation-cutoff", "2"], "all": ["0.5", "--truncation-cutoff", "6"],
               "half": ["0.5"], "zero": ["0.5", "--truncation-cutoff", "0"]}  # fmt: skip
    for name, chosen in options.items():
        assert sample(["run", "--seeds", "3", "--out", name, "--truncation-psi", *chosen]) == 0
    found = {name: Path(f"{name}/seed-000003.png").read_bytes() for name in options}
    assert found["all"] == found["half"] and found["zero"] == found["none"]
    assert len(set(found.values())) == 3
    note = json.loads(Path("two/samples.json").read_text())
    assert note["truncation_cutoff"] == 2


@pytest.mark.parametrize("kind", ["webp", "npy", "lmdb"])
def test_every_format_holds_the_same_pixels(folder, kind):
    argv = ["run", "--seeds", "9,0-3"]
    assert sample([*argv, "--out", "png"]) == 0
    assert sample([*argv, "--out", kind, "--format", kind]) == 0
    expected = [pixels(f"png/seed-{i:06d}.png") for i in (0, 1, 2, 3, 9)]
    if kind == "webp":
        found = [pixels(f"webp/seed-{i:06d}.webp") for i in (0, 1, 2, 3, 9)]
    elif kind == "npy":
        found = list(np.load("npy/samples.npy"))
    else:
        data = LmdbDataset("lmdb/samples.lmdb", 16)
        data.prepare()
        found = [data[i].permute(1, 2, 0).numpy() for i in range(len(data))]
    assert len(found) == 5 and all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))
    assert json.loads(Path(kind, "samples.json").read_text()) == json.loads(Path("png/samples.json").read_text())


def test_the_name_of_an_lmdb_need_not_be_text(folder):
    out = os.fsdecode(b"\xff")
    assert sample(["run", "--seeds", "0-3", "--format", "lmdb", "--out", out]) == 0
    data = LmdbDataset(f"{out}/samples.lmdb", 16)
    data.prepare()
    assert len(data) == 4


def test_an_lmdb_of_samples_goes_on_where_it_was_stopped(folder, monkeypatch):
    images = Sampler.images

    def stopping(self, batch):
        if batch.start == 8:
            raise KeyboardInterrupt
        return images(self, batch)

    argv = ["run", "--seeds", "0-11", "--format", "lmdb", "--out"]
    with monkeypatch.context() as patch:
        patch.setattr(Sampler, "images", stopping)
        assert sample(["run", "--seeds", "0-11", "--format", "npy", "--out", "whole"]) == 75
        assert not Path("whole").exists()
        assert sample([*argv, "out"]) == 75
    assert not Path("out/samples.lmdb").exists()
    made = []
    monkeypatch.setattr(Sampler, "images", lambda self, batch: (made.append(batch), images(self, batch))[1])
    assert sample([*argv, "out"]) == 0 and made == [range(8, 12)]
    assert sample([*argv, "whole"]) == 0
    for name in ("out", "whole"):
        assert evaluate(["run", "--data", f"{name}/samples.lmdb"]) == 0


@pytest.mark.parametrize(("kind", "left"), [("npy", "samples.npy"), ("png", "samples.json")])
def test_what_a_killed_command_left_is_no_obstacle(folder, kind, left):
    Path("out").mkdir()
    partial(Path("out", left)).write_bytes(b"half")
    assert sample(["run", "--seeds", "0-1", "--format", kind, "--out", "out"]) == 0
    assert not list(Path("out").glob(".*"))


@pytest.mark.parametrize("kind", ["png", "npy", "lmdb"])
def test_a_folder_that_holds_something_else_is_left_alone(folder, kind, capsys):
    Path("mine").mkdir()
    Path("mine/thesis.txt").write_text("mine")
    assert sample(["run", "--seeds", "0", "--format", kind, "--out", "mine"]) == 2
    assert "mine is not empty and has no samples.json, so it holds something else" in line_of(capsys)
    assert sample(["run", "--seeds", "0", "--format", kind, "--out", "mine/thesis.txt/out"]) == 2
    assert "mine/thesis.txt is not a folder" in line_of(capsys)
    assert [path.name for path in Path("mine").iterdir()] == ["thesis.txt"]


def test_saved_styles_are_drawn_again(folder, capsys):
    assert sample(["run", "--seeds", "5,2", "--save-styles", "w.npy", "--out", "out"]) == 0
    assert np.load("w.npy").shape == (2, 64)
    assert sample(["run", "--styles", "w.npy", "--out", "again"]) == 0
    for number, seed in enumerate((5, 2)):
        again, first = (pixels(p).astype(int) for p in (f"again/style-{number:06d}.png", f"out/seed-{seed:06d}.png"))
        assert abs(again - first).max() <= 1
    assert sample(["run", "--save-styles", "w.npy", "--out", "other"]) == 2
    assert "w.npy exists" in line_of(capsys) and not Path("other").exists()


def test_wrong_styles_are_one_line(folder, capsys):
    np.save("short.npy", np.zeros((2, 3), "float32"))
    np.save("words.npy", np.array(["a"]))
    np.save("whole.npy", np.zeros((1, 64), "int64"))
    with open("short_file.npy", "wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (10**12, 64)}
        np.lib.format.write_array_header_1_0(file, header)
    np.save("nan.npy", np.full((1, 64), np.nan))
    np.save("large.npy", np.full((1, 64), 1e300))
    np.save("objects.npy", np.array([{}]), allow_pickle=True)
    Path("text.npy").write_text("no")
    for name, message in [
        ("short", "has the shape [2, 3]; the generator takes [count, 64] or [count, 6, 64]"),
        ("words", "not numbers"),
        ("whole", "floating-point numbers"),
        ("short_file", "declares the shape [1000000000000, 64], which the file does not hold"),
        ("nan", "not finite"),
        ("objects", "not a readable NPY file"),
        ("text", "not a readable NPY file"),
        ("missing", "No such file"),
        ("large", "not finite"),
    ]:
        assert sample(["run", "--styles", f"{name}.npy", "--out", "out"]) == 2
        assert message in line_of(capsys)
    assert sample(["run", "--styles", "nan.npy", "--out", "out", "--truncation-psi", "0.5"]) == 2
    assert "--truncation-psi does not apply to --styles" in line_of(capsys)
    assert sample(["run", "--styles", "nan.npy", "--out", "out", "--seeds", "0-3"]) == 2
    assert "--seeds does not apply to --styles" in line_of(capsys)
    assert not Path("out").exists()


def test_throughput_has_parameters_macs_and_a_rate_for_each_batch(folder, monkeypatch, capsys):
    monkeypatch.setattr("stylenat.evaluation.throughput.FEWEST", 2)
    monkeypatch.setattr("stylenat.evaluation.throughput.MOST", 2)
    assert sample(["run", "--throughput"]) == 0
    out = capsys.readouterr().out
    generator = opened(folder).generator
    assert f"{sum(p.numel() for p in generator.parameters()) / 1e6:.2f} M parameters" in out
    rows = [line.split() for line in out.splitlines()[3:]]
    assert [int(row[0]) for row in rows] == [1, 2, 4, 8, 16, 32, 64]
    assert all(float(row[1]) > 0 and float(row[-1]) > 0 for row in rows)


def test_a_file_that_is_not_such_an_image_is_one_line(folder, capsys):
    argv = ["run", "--seeds", "0-3", "--out", "out"]
    assert sample(argv) == 0
    Path("out/seed-000002.png").write_bytes(b"no image")
    assert sample(argv) == 2
    assert "seed-000002.png is not an image of 16x16" in line_of(capsys)
    Image.new("RGB", (8, 8)).save("out/seed-000002.png")
    assert sample(argv) == 2
    assert "it is 8x8" in line_of(capsys)


def test_the_grid_is_bounded_and_says_so(folder, capsys):
    assert sample(["run", "--seeds", "0-69", "--batch", "64", "--out", "out"]) == 0
    assert "70 images and grid.png of the first 64 in out" in capsys.readouterr().out
    assert pixels("out/grid.png").shape == (8 * 66 + 2, 8 * 66 + 2, 3)


def test_two_batches_are_in_memory_at_most(tmp_path):
    alive: list[weakref.ref] = []
    most = []

    class Fake:
        def batch_of(self, index):
            return range(index // 8 * 8, index // 8 * 8 + 8)

        def images(self, batch):
            images = torch.zeros(8, 3, 4, 4, dtype=torch.uint8)
            most.append(sum(ref() is not None for ref in alive))
            alive.append(weakref.ref(images))
            return images

    counts = []
    SampleFolder(tmp_path, {}).write(Fake(), range(80), counts.append)
    assert max(most) <= 2 and counts == list(range(8, 88, 8))
    assert len(list(tmp_path.glob("seed-*.png"))) == 80


def test_bad_input_is_one_line_and_leaves_nothing(folder, capsys):
    Path("file").write_text("mine")
    for argv, message in [
        (["run", "--seeds", "x"], "--seeds takes numbers and ranges"),
        (["run", "--seeds", "0-1000000"], "more than 1000000 images"),
        (["nowhere"], "nowhere does not exist: give a run"),
        (["run", "--batch", "0"], "--batch must be 1 to 4096; got 0"),
        (["run", "--batch", "1000000"], "--batch must be 1 to 4096; got 1000000"),
        (["run", "--truncation-psi", "nan"], "must be finite"),
        (["run", "--truncation-cutoff", "7"], "cutoff is 7; the generator has 6 styles"),
        (["run", "--out", "file"], "--out file: file is not a folder"),
        (["run", "--out", "a.png"], "--out a.png: a folder is made, not a .png file; name it without .png"),
        (["run", "--out", "a.lmdb", "--format", "lmdb"], "a folder is made, not a .lmdb file"),
    ]:
        assert sample([argv[0], "--out", "out", *argv[1:]]) == 2
        assert message in line_of(capsys)
    if not torch.cuda.is_available():
        assert sample(["run", "--device", "cuda", "--out", "out"]) == 2
        assert "--device is 'cuda', but PyTorch sees no GPU" in line_of(capsys)
    assert not Path("out").exists() and not list(Path().glob("a.*")) and Path("file").read_text() == "mine"


def test_seeds_are_each_asked_for_once():
    assert parsed_seeds("7,0-3,2") == [7, 0, 1, 2, 3]


def test_memory_that_runs_out_is_one_line_with_the_batch_that_fits(folder, monkeypatch, capsys):
    def synthesis(self, styles):
        if len(styles) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return torch.zeros(len(styles), 3, 16, 16)

    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    monkeypatch.setattr(StyleGenerator, "synthesis", synthesis)
    assert sample(["run", "--seeds", "0-3", "--out", "out"]) == 2
    assert "with 4 image(s) at once; add --batch 2; saved files are kept" in line_of(capsys)
    assert not Path("out").exists()
    assert sample(["run", "--seeds", "0-3", "--batch", "2", "--out", "out"]) == 0
    assert evaluate(["run", "--batch", "40"]) == 2
    assert "with 40 image(s) at once; add --batch 20" in line_of(capsys)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("form, patched", [("png", samples), ("npy", sample_files)])
def test_a_full_disk_under_samples_is_one_line_and_what_was_written_is_used(folder, monkeypatch, capsys, form, patched):
    """The write fails as on a full disk once two images are there; of an array, at its beginning."""
    command = ["run", "--seeds", "0-3", "--format", form, "--out", "out"]

    def full(path, *more):
        if form == "npy" or "000002" in path.name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return save(path, *more)

    name = {"png": "save_image", "npy": "whole_file"}[form]
    save = getattr(patched, name)
    with monkeypatch.context() as patch:
        patch.setattr(patched, name, full)
        assert sample(command) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("No space left on device; free some space and run the same command again")
    assert sample(command) == 0
    assert ("(3 were there)" in capsys.readouterr().out) is (form == "png")
