"""Alone, a process is number 0 of 1 and hears only itself; two hear each other in order."""

import os

import torch
from torch import distributed, multiprocessing

from registry import UserError
from stylenat import ranks
from stylenat.training.agreement import must_agree


def test_collectives_of_a_single_process_do_nothing():
    value = torch.tensor([1.0, 2.0])
    assert (ranks.rank(), ranks.world_size()) == (0, 1)
    assert ranks.gathered(value)[0] is value
    assert ranks.mean_over_ranks(value) is value
    assert ranks.any_of_ranks(True) and not ranks.any_of_ranks(False) and ranks.as_first("x") == "x"


def _one_of_two(rank: int, rendezvous: str) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    distributed.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2)
    value = torch.tensor([float(rank), 10.0])
    assert (ranks.rank(), ranks.world_size()) == (rank, 2)
    assert torch.stack(ranks.gathered(value)).tolist() == [[0.0, 10.0], [1.0, 10.0]]
    assert ranks.mean_over_ranks(value).tolist() == [0.5, 10.0]
    mixed = [value, value.double().view(2, 1), torch.tensor(rank + 1.0)]
    ranks.average(mixed)
    assert mixed[0].tolist() == [0.5, 10.0] and mixed[1].tolist() == [[0.5], [10.0]] and mixed[2] == 1.5
    assert ranks.any_of_ranks(rank == 1) and not ranks.any_of_ranks(False)
    assert ranks.as_first(f"grüße von {rank}") == "grüße von 0" and ranks.as_first("") == ""
    assert ranks.gathered_text("ä" * (rank + 1)) == ["ä", "ää"] and ranks.gathered_text("") == ["", ""]
    must_agree({"train.seed": "0"})
    try:
        must_agree({"train.seed": str(rank), "version of torch": "2.14.1"})
    except UserError as error:
        message = str(error)
    assert message.startswith(
        "process 1 of this run was started differently: train.seed: 1 there, 0 in process 0; give"
    )
    distributed.destroy_process_group()


def test_two_processes_hear_each_other_in_order(tmp_path):
    multiprocessing.start_processes(_one_of_two, (str(tmp_path / "rendezvous"),), nprocs=2, start_method="fork")
