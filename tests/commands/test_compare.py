import csv
import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from plugins.trackers.aim_tracker import AimTracker as Aim
from stylenat.ablation.outcomes import record_outcome
from stylenat.commands.compare import main
from stylenat.commands.evaluate import main as evaluate
from stylenat.commands.sample import main as sample
from stylenat.comparison import throughput

BOOM = """
from registry import hookimpl


class Boom:
    def __call__(self, site):
        raise ZeroDivisionError("no luck")


@hookimpl
def stylenat_register(register):
    register("partition", "boom", Boom)
"""


@pytest.fixture
def runs(ablated, tmp_path, monkeypatch):
    """A copy of the ablation's folder, ``runs/heads`` below the current one."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ablated, "runs/heads")
    return Path("runs/heads")


def edited(run: Path, change):
    """Rewrites each line of a run's metrics.jsonl."""
    file = run / "metrics.jsonl"
    records = [json.loads(line) for line in file.read_text().splitlines()]
    for record in records:
        change(record)
    file.write_text("".join(json.dumps(record) + "\n" for record in records))


def test_the_table_shows_what_differs_and_nothing_else(runs, capsys):
    assert main(["--experiment", "heads", "--format", "csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["variant"] for row in rows] == ["near", "far"]
    parameters = [name for name in rows[0] if "." in name and not name.startswith("frechet")]
    assert parameters == ["block.hydra.partition"]
    assert [row["seeds"] for row in rows] == ["2", "2"] and int(rows[0]["parameters"]) > 10000
    finals = [
        json.loads((runs / f"near-seed{seed}" / "metrics.jsonl").read_text().splitlines()[-1])["metrics"]
        for seed in (0, 1)
    ]
    values = [found["frechet_random_features"] for found in finals]
    assert float(rows[0]["frechet_random_features.final"]) == pytest.approx(sum(values) / 2)
    assert float(rows[0]["frechet_random_features.final_std"]) == pytest.approx(abs(values[0] - values[1]) / 2**0.5)


def test_runs_that_are_named_are_grouped_by_all_but_their_seeds(runs, capsys):
    assert main([*map(str, sorted(runs.glob("*-seed*"))), "--format", "markdown"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith(": variants") and lines[3].startswith("| --- | --- | --- | ---: |")
    assert "| 2 finished | 2 |" in lines[4] and "| 2 finished | 2 |" in lines[5] and lines[6] == ""


def test_equal_protocols_are_ranked(runs, capsys):
    for seed, value in enumerate((0.001, 0.003)):
        edited(runs / f"far-seed{seed}", lambda r, v=value: r["metrics"].update(frechet_random_features=v))
    assert main(["--experiment", "heads", "--format", "markdown"]) == 0
    out, err = capsys.readouterr()
    assert "**0.002 ± 0.0014**" in out and "protocol" not in err


def test_other_protocols_are_not_ranked_and_the_field_is_named(runs, capsys):
    for seed in (0, 1):
        edited(runs / f"far-seed{seed}", lambda r: r["protocol"]["generated"].update(count=17))
    assert main(["--experiment", "heads", "--format", "markdown"]) == 0
    out, err = capsys.readouterr()
    assert "**" not in out and "frechet_random_features (count 17)" in out
    assert "2 protocols, a column each, ranked by itself: generated.count 16 and 17" in err


def test_results_without_a_protocol_are_shown_and_said_to_be(runs, capsys):
    for seed in (0, 1):
        edited(runs / f"far-seed{seed}", lambda r: r.pop("protocol"))
    assert main(["--experiment", "heads", "--format", "markdown"]) == 0
    out, err = capsys.readouterr()
    assert "| far |" in out and "frechet_random_features (no protocol): not ranked" in err and "**" not in out


def test_an_ablation_half_done_is_compared_as_far_as_it_goes(runs, capsys):
    shutil.rmtree(runs / "far-seed1")
    (runs / "far-seed0" / "metrics.jsonl").write_text(
        (runs / "far-seed0" / "metrics.jsonl").read_text().splitlines()[0] + "\n"
    )
    assert main(["--experiment", "heads"]) == 0
    out = capsys.readouterr().out
    assert "not begun: runs/heads/far-seed1" in out and "1 finished, 1 not begun" in out
    assert "seeds differ: near [0, 1]; far [0]" in out and "one seed alone (far)" in out
    # What was lost is the last evaluations, so there is no difference at the end, and one where both have a value.
    assert "ranked only at equal images seen: near 32; far 8" in out
    assert main(["--experiment", "heads", "--at", "2", "--format", "csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert sorted(row["frechet_random_features.pairs"] for row in rows) == ["", "1"]


def test_three_copies_of_a_run_are_one_seed(runs, capsys):
    for number in range(2):
        shutil.copytree(runs / "near-seed0", f"runs/copy-{number}")
    names = [str(runs / "near-seed0"), f"./{runs}/near-seed0", "runs/copy-0", "runs/copy-1"]
    assert main([*names, "--format", "markdown"]) == 0
    out, err = capsys.readouterr()
    assert "| 1 finished | 1 |" in out and " ± " not in out
    assert err.count("equal config and seed 0 are one run") == 1 and "one seed alone" in err


def test_the_report_is_one_file_that_fetches_and_runs_nothing(runs, capsys):
    evil = "<script>alert(1)</script>"
    assert main(["--experiment", "heads", "--out", "report", "--measure", "--remark", evil]) == 0
    page = Path("report/report.html").read_text()
    assert "<script" not in page and "&lt;script&gt;" in page
    outside = re.findall(r'(?:src|href)="([^"#]*)"', page)
    assert all(url.startswith(("data:image/", "http://127.0.0.1:43800/")) for url in outside)
    assert len([url for url in outside if url.startswith("data:")]) == 3 + 1 + 2 + 2  # plots, rows, heads, grids
    assert "default-src 'none'" in page and "url(" not in page and "@import" not in page
    for name in ("curve-frechet_random_features", "pareto-parameters", "pareto-throughput"):
        assert Path(f"report/{name}.png").read_bytes().startswith(b"\x89PNG")
        assert b"<svg" in Path(f"report/{name}.svg").read_bytes()
    assert "images/s sampling" in Path("report/table.md").read_text()


def test_the_report_shows_what_there_is(runs, capsys):
    """Samples without one variant's, and once what the heads of all see."""
    for seed in (0, 1):
        shutil.rmtree(runs / f"far-seed{seed}" / "samples")
        config = runs / f"far-seed{seed}" / "config.gin"
        config.write_text(config.read_text().replace("@partition.global()", "@partition.uniform()"))
        config.write_text(config.read_text().replace("partition.global.", "partition.uniform."))
    assert main(["--experiment", "heads", "--out", "report"]) == 0
    page = Path("report/report.html").read_text()
    assert "The same latents" in page and "no samples of far: there is no sample grid" in page
    assert page.count("<figcaption>What the heads of all variants see.") == 1


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "nothing to compare"),
        (["runs/nowhere"], "there is no run runs/nowhere"),
        (["runs/heads/configs"], "is no run folder"),
        (["runs/heads", "--experiment", "heads"], "not both"),
        (["--experiment", "haeds"], "did you mean 'heads'?"),
        (["--experiment", "heads", "--metric", "frechet_random_feature"], "did you mean 'frechet_random_features'?"),
        (["--experiment", "heads", "--group-by", "block.hydra.partitions"], "did you mean 'block.hydra.partition'?"),
        (["--experiment", "heads", "--out", "/proc/nowhere"], "cannot write to /proc/nowhere"),
    ],
)
def test_bad_input_gets_one_line_and_exit_code_2(arguments, message, runs, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1 and error[0].startswith("error: ") and message in error[0]


def test_a_run_without_results_or_with_a_damaged_list_is_refused_by_name(runs, capsys):
    (runs / "near-seed0" / "metrics.jsonl").write_text("")
    assert main([str(runs / "near-seed0")]) == 2
    assert "near-seed0 has no results in metrics.jsonl, and its status is: finished" in capsys.readouterr().err
    (runs / "ablation.json").write_text('{"format_version": 9, "name": "x", "variants": {}, "runs": {}}')
    assert main([str(runs)]) == 2
    assert "upgrade" in capsys.readouterr().err
    (runs / "ablation.json").write_text("[")
    assert main([str(runs)]) == 2
    assert "cannot be read as an ablation's list of runs" in capsys.readouterr().err


def test_links_are_grouped_by_a_key_that_every_run_has(runs, capsys):
    assert main(["--experiment", "heads", "--group-by", "block.hydra.partition"]) == 0
    out = capsys.readouterr().out
    assert "grouped by block.hydra.partition" in out and "http://127.0.0.1:43800/images?select=O-" in out
    assert main(["--experiment", "heads", "--group-by", "partition.uniform.kernel_size"]) == 2
    assert "far-seed0 has no 'partition.uniform.kernel_size' to group by" in capsys.readouterr().err


def test_an_evaluation_by_another_protocol_leaves_the_column_of_training_as_it_was(runs, capsys, monkeypatch):
    told = []
    monkeypatch.setattr(Aim, "record_evaluation", lambda self, *arguments: told.append(arguments))
    assert main(["--experiment", "heads", "--format", "csv"]) == 0
    (before, *_) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    arguments = [str(runs / "near-seed0"), "--samples", "24", "--no-cache"]
    assert evaluate(arguments) == 0
    assert evaluate([*arguments, "--average", "generator"]) == 0
    assert len(told) == 1  # Aim has no protocols: another average's values would be taken for the run's.
    capsys.readouterr()
    assert main(["--experiment", "heads", "--format", "csv"]) == 0
    out, err = capsys.readouterr()
    (after, *_) = csv.DictReader(io.StringIO(out))
    column = "frechet_random_features"
    assert after[f"{column} (count 16).final"] == before[f"{column}.final"]
    assert after[f"{column} (count 24).n"] == "1" and f"{column} of the average generator" in err


def test_runs_that_failed_or_have_not_begun_are_shown_and_not_ranked(runs, capsys):
    record_outcome(runs, "far-seed1", 1, "RuntimeError: boom")
    shutil.rmtree(runs / "far-seed1" / "checkpoints")
    lines = (runs / "far-seed1" / "metrics.jsonl").read_text().splitlines()
    (runs / "far-seed1" / "metrics.jsonl").write_text(lines[0] + "\n")
    shutil.rmtree(runs / "near-seed1")
    assert main(["--experiment", "heads", "--format", "csv-by-seed"]) == 0
    out, err = capsys.readouterr()
    rows = {(row["variant"], row["seed"]): row for row in csv.DictReader(io.StringIO(out))}
    assert rows["far", "1"]["status"] == "failed" and rows["far", "1"]["ranked"] == "0"
    assert rows["near", "1"]["status"] == "not begun" and rows["near", "1"]["frechet_random_features"] == ""
    assert rows["far", "0"]["status"] == "finished" and rows["far", "0"]["images"] == "32"
    assert "far-seed1 failed at iteration 2 of 8: RuntimeError: boom" in err


def test_no_speed_is_shown_unless_it_is_measured(runs, capsys, monkeypatch):
    assert main(["--experiment", "heads", "--out", "report"]) == 0
    assert "images/s" not in capsys.readouterr().out and not Path("report/pareto-throughput.svg").exists()
    clock = iter([(0.0, 0.0, 0.0), (10.0, 20.0, 1.0)])  # Others used 9 of the 20 seconds that the cores had.
    monkeypatch.setattr(throughput, "cpu_seconds", lambda: next(clock))
    assert main(["--experiment", "heads", "--out", "report", "--measure"]) == 0
    out = capsys.readouterr().out
    assert "images/s sampling" in out and "mean ± standard deviation of 5" in out
    assert "other processes used 45% of the cores meanwhile" in out
    assert "images/s training" not in out
    assert Path("report/pareto-throughput.svg").exists()


def test_training_is_timed_and_its_memory_counted_when_asked(runs, capsys):
    assert main(["--experiment", "heads", "--measure-training", "--format", "csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    for row in rows:
        assert float(row["training_images_per_second"]) > 0 and float(row["MB_a_training_image"]) > 0.1


def test_a_run_whose_construction_raises_is_named_and_the_rest_is_compared(runs, capsys):
    Path("boom.py").write_text(BOOM)
    for seed in (0, 1):
        config = runs / f"far-seed{seed}" / "config.gin"
        text = config.read_text().replace("@partition.global()", "@partition.boom()")
        config.write_text("\n".join(line for line in text.splitlines() if not line.startswith("partition.global.")))
    assert main(["--experiment", "heads", "--plugin", "boom.py"]) == 0
    out = capsys.readouterr().out
    assert "far-seed0 is not compared, it cannot be built: ZeroDivisionError: no luck" in out and "near" in out


def test_a_run_whose_plugin_is_not_loaded_is_named_with_what_to_add(runs, capsys):
    for seed in (0, 1):
        config = runs / f"far-seed{seed}" / "config.gin"
        text = config.read_text().replace("@partition.global()", "@partition.boom()")
        text = text.replace("# Plugins in use: ", "# Plugins in use: --plugin boom.py, rings 1.2, ")
        config.write_text("\n".join(line for line in text.splitlines() if not line.startswith("partition.global.")))
    assert main(["--experiment", "heads"]) == 0
    out = capsys.readouterr().out
    assert "far-seed1 is not compared: " in out
    assert "it uses boom.py, rings 1.2: install it, or add --plugin MODULE_OR_FILE.py to this command" in out


def test_chosen_samples_are_drawn_from_the_same_latents_with_a_caption(runs, capsys):
    assert main(["--experiment", "heads", "--out", "report", "--draw", "1,3", "--draw-psi", "0.7"]) == 0
    said = "Chosen samples 1, 3 (columns) of near, far (rows) from the same latents, seed 0, truncated with psi 0.7"
    assert said in Path("report/captions.txt").read_text() and said in Path("report/report.html").read_text()
    assert sample([str(runs / "far-seed0"), "--seeds", "3", "--truncation-psi", "0.7", "--out", "samples"]) == 0
    sheet = np.asarray(Image.open("report/chosen-samples.png"))
    single = np.asarray(Image.open("samples/seed-000003.png")).repeat(4, 0).repeat(4, 1)
    places = np.lib.stride_tricks.sliding_window_view(sheet, single.shape)[-4:, -4:, 0]
    assert any((place == single).all() for row in places for place in row)  # The last row and column.
    capsys.readouterr()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--draw", "3"], "--draw needs --out"),
        (["--draw-psi", "0.7"], "need --draw INDICES"),
        (["--draw", "x", "--out", "report"], "--draw takes numbers"),
        (["--draw", "0-99", "--out", "report"], "more than 64"),
        (["--draw", "1", "--draw-classes", "0", "--out", "report"], "has no classes"),
    ],
)
def test_samples_that_cannot_be_drawn_are_refused(arguments, message, runs, capsys):
    assert main(["--experiment", "heads", *arguments]) == 2
    assert message in capsys.readouterr().err and not Path("report/report.html").exists()
