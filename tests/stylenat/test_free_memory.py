import pytest
import torch

from stylenat.free_memory import free_memory, memory_ran_out

GIB = 2**30
FREE = {"proc/meminfo": f"MemTotal: {8 * 2**20} kB\nMemAvailable: {4 * 2**20} kB\nSwapFree: {2**20} kB\n"}
MACHINE = FREE | {"proc/self/cgroup": "0::/\n"}
GROUP = {"proc/self/cgroup": "0::/docker/one\n"}
GROUPS_1 = {"proc/self/cgroup": "5:cpu,cpuacct:/x\n4:memory:/docker/one\n0::/\n"}


def unified(folder, most, used, inactive=0):
    there = f"sys/fs/cgroup/{folder}"
    stat = f"anon 5\ninactive_file {inactive}\n"
    return {f"{there}/memory.max": f"{most}\n", f"{there}/memory.current": f"{used}\n", f"{there}/memory.stat": stat}


def first(folder, most, used, inactive=0):
    there = f"sys/fs/cgroup/memory/{folder}"
    return {
        f"{there}/memory.limit_in_bytes": f"{most}\n",
        f"{there}/memory.usage_in_bytes": f"{used}\n",
        f"{there}/memory.stat": f"inactive_file 7\ntotal_inactive_file {inactive}\n",
    }


@pytest.mark.parametrize(
    "files, expected",
    [
        ({}, None),
        (FREE, 5 * GIB),
        (MACHINE | unified("", "max", GIB), 5 * GIB),
        (MACHINE | unified("", 2 * GIB, GIB), GIB),
        (FREE | GROUP | unified("docker/one", 2 * GIB, 2 * GIB, GIB // 2), GIB // 2),
        (FREE | GROUP | unified("docker/one", "max", GIB) | unified("docker", 3 * GIB, GIB), 2 * GIB),
        (FREE | GROUP | unified("", 2 * GIB, GIB), GIB),  # In a container the group itself is mounted.
        (FREE | GROUP | unified("docker/one", GIB, 2 * GIB), 0),
        (FREE | GROUPS_1 | first("docker/one", 3 * GIB, 2 * GIB, GIB), 2 * GIB),
        (FREE | GROUPS_1 | first("docker/one", 2**63 - 4096, GIB), 5 * GIB),
        (FREE | GROUPS_1 | first("", 2 * GIB, GIB), GIB),
        (FREE | {"proc/self/cgroup": "0::/../elsewhere\n"}, 5 * GIB),
        (FREE | unified("docker/one", "damaged", "?") | GROUP, 5 * GIB),
    ],
)
def test_it_is_the_least_that_machine_and_control_groups_leave(files, expected, tmp_path):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert free_memory(tmp_path) == expected


def test_memory_that_ran_out_is_told_from_other_errors():
    with pytest.raises(RuntimeError) as refused:
        torch.empty(2**50, dtype=torch.uint8)
    assert memory_ran_out(refused.value)
    assert memory_ran_out(MemoryError()) and memory_ran_out(torch.OutOfMemoryError("CUDA"))
    assert not memory_ran_out(RuntimeError("shapes differ")) and not memory_ran_out(OSError("no space"))
