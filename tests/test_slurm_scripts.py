"""The SLURM scripts of the documentation, with commands in the place of SLURM's that record what they are given."""

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = r"```\n(#!/bin/bash\n.*?)```"
SCRIPTS = {
    (page, number): script
    for page in ("scaling", "ablations")
    for number, script in enumerate(re.findall(SCRIPT, (ROOT / f"docs/{page}.md").read_text(), re.DOTALL))
}
STANDING_IN = {
    "srun": 'exec "$@"',
    "scontrol": 'case $1 in show) printf "node1\\nnode2\\n";; *) echo "$@" >> "$RECORD.scontrol";; esac',
    "torchrun": 'printf "%s\\0" "$@" > "$RECORD.torchrun"; [ -z "$STOP" ] || touch "$STOP"; exit $CODE',
}


@pytest.fixture
def submit(tmp_path):
    """Runs a script; returns the arguments of ``torchrun``, parsed, and the lines given to ``scontrol``."""
    for name, body in STANDING_IN.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "runs/ffhq256").mkdir(parents=True)

    def run(script, code=0, stop=False, **variables):
        marker = str(tmp_path / "runs/ffhq256/PREEMPTED") if stop else ""
        given = {"RECORD": str(tmp_path / "record"), "CODE": str(code), "STOP": marker}
        paths = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
        script = script.replace("/shared/", f"{tmp_path}/")
        subprocess.run(["bash", "-eu", "-n", "-c", script], check=True)
        subprocess.run(["bash", "-u", "-c", script], check=True, env=os.environ | paths | given | variables, timeout=60)
        from torch.distributed.run import parse_args

        words = (tmp_path / "record.torchrun").read_text().split("\0")[:-1]
        asked = tmp_path / "record.scontrol"
        return parse_args(words), asked.read_text().splitlines() if asked.exists() else []

    return run


def test_there_are_three_scripts():
    assert list(SCRIPTS) == [("scaling", 0), ("scaling", 1), ("ablations", 0)]


@pytest.mark.parametrize("stop", [False, True])
def test_one_job_of_two_machines_is_requeued_where_it_was_stopped_alone(submit, stop, tmp_path):
    variables = {"SLURM_JOB_NODELIST": "node[1-2]", "SLURM_NNODES": "2", "SLURM_JOB_ID": "7"}
    asked, requeued = submit(SCRIPTS["scaling", 0], code=int(stop), stop=stop, **variables)
    assert (asked.nnodes, asked.nproc_per_node, asked.rdzv_endpoint) == ("2", "8", "node1:29500")
    assert (asked.rdzv_id, asked.rdzv_backend, asked.max_restarts) == ("7-0", "c10d", 3)
    assert asked.training_script == "tools/run.py" and f"{tmp_path}/runs/ffhq256" in asked.training_script_args
    assert "SIGUSR1" in asked.signals_to_handle
    assert requeued == (["requeue 7"] if stop else [])


@pytest.mark.parametrize("task, code, stop, again", [(0, 0, False, False), (1, 0, True, True), (1, 1, False, True)])
def test_a_machine_of_an_array_finds_the_first_and_comes_back_until_the_run_is_finished(
    submit, tmp_path, task, code, stop, again
):
    variables = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": str(task)}
    if task:
        (tmp_path / "runs/ffhq256.endpoint-7").write_text("node9 7-2\n")
    asked, requeued = submit(SCRIPTS["scaling", 1], code, stop, **variables)
    here = subprocess.run(["hostname"], capture_output=True, text=True, check=True).stdout.strip()
    assert (asked.rdzv_endpoint, asked.rdzv_id) == (("node9:29500", "7-2") if task else (f"{here}:29500", "7-0"))
    assert asked.nnodes == "1:4" and asked.rdzv_conf == f"is_host={1 - bool(task)},join_timeout=3600"
    assert requeued == ([f"requeue 7_{task}"] if again else [])


def test_a_task_of_an_ablation_runs_its_line(tmp_path):
    script = SCRIPTS["ablations", 0].replace("srun bash", "bash")
    (tmp_path / "scontrol").write_text('#!/bin/bash\necho "$@" > asked\n')
    (tmp_path / "scontrol").chmod(0o755)
    (tmp_path / "commands.txt").write_text("true one\nbash -c 'exit 75'\n")
    for task, asked in (("1", None), ("2", "requeue 7_2\n")):
        given = {"SLURM_ARRAY_TASK_ID": task, "SLURM_ARRAY_JOB_ID": "7", "PATH": f"{tmp_path}:{os.environ['PATH']}"}
        subprocess.run(["bash", "-u", "-c", script], check=True, cwd=tmp_path, env=os.environ | given)
        assert (tmp_path / "asked").exists() is (asked is not None)
    assert (tmp_path / "asked").read_text() == asked
