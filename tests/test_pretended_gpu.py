"""The pretended GPU behaves as CUDA does where it matters to the tests that use it."""

import copy

import pytest
import torch
from pretended_gpu import pretended_gpu
from torch import nn
from torch.nn import functional as F

GPU = torch.device("cuda", 0)


@pytest.fixture
def gpu():
    with pretended_gpu() as record:
        yield record


def test_operations_stay_on_it_and_have_the_cpus_numbers(gpu):
    x = torch.arange(6.0, device="cuda").view(2, 3)
    y = x.t() @ x + 1
    z = torch.zeros_like(y).copy_(y)
    assert {t.device for t in (x, y, z, z[0], x.new_empty(1), torch.cat([x, x]))} == {GPU} and z.is_cuda
    assert torch.equal(z.cpu(), torch.arange(6.0).view(2, 3).t() @ torch.arange(6.0).view(2, 3) + 1)
    assert z.half().device == GPU and z.to(torch.float64).cpu().dtype == torch.float64
    assert torch.ones(2).to(x).device == GPU


@pytest.mark.parametrize(
    "mix",
    [
        lambda x: x + torch.ones(3),
        lambda x: torch.stack([x[0], torch.tensor(1.0)]),
        lambda x: F.linear(x, torch.ones(2, 3)),
        lambda x: torch.lerp(x, x, torch.tensor(0.5)),
        lambda x: x.numpy(),
        lambda x: x.data_ptr(),
    ],
)
def test_devices_do_not_mix(gpu, mix):
    with pytest.raises((RuntimeError, TypeError)):
        mix(torch.ones(3, device="cuda"))


def test_a_number_of_the_host_is_no_transfer_and_an_index_is_one(gpu):
    x = torch.ones(3, device="cuda")
    assert (x * torch.tensor(2.0) + 1).device == GPU and not gpu.events
    assert x[[0, 2]].device == GPU
    assert [(event.kind, event.blocking) for event in gpu.events] == [("to device", True)]


def test_only_a_transfer_between_pinned_memory_and_the_device_does_not_block(gpu):
    x = torch.ones(3)
    there = x.to("cuda"), x.to("cuda", non_blocking=True), x.pin_memory().to("cuda", non_blocking=True)
    buffer = torch.empty(3, pin_memory=True)
    buffer.copy_(there[0], non_blocking=True)
    buffer.copy_(there[0])
    found = [(event.kind, event.blocking, event.bytes) for event in gpu.events]
    assert found[:3] == [("to device", True, 12), ("to device", True, 12), ("to device", False, 12)]
    assert found[3:] == [("to host", False, 12), ("to host", True, 12)]


def test_whatever_the_host_reads_is_a_wait(gpu):
    x = torch.ones(3, device="cuda")
    for read in (lambda: float(x[0]), lambda: bool(x.any()), lambda: x[x > 0], x.nonzero, torch.cuda.synchronize):
        before = len(gpu.events)
        read()
        assert len(gpu.events) == before + 1 and gpu.events[-1].blocking


@pytest.mark.parametrize("precision", ["fp16", "bf16", None])
def test_a_network_trains_as_on_the_cpu(precision):
    def trained(device):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 1)).to(device)
        average = copy.deepcopy(network)
        optimizer = torch.optim.Adam(network.parameters(), fused=True)
        scaler = torch.amp.GradScaler(device, 8.0, enabled=precision == "fp16")
        dtype = {"fp16": torch.float16, "bf16": torch.bfloat16, None: None}[precision]
        for _ in range(3):
            x = torch.linspace(-1, 1, 8).view(2, 4).to(device).requires_grad_()
            with torch.autocast(device, dtype, enabled=dtype is not None):
                loss = network(x).square().mean()
            (slope,) = torch.autograd.grad(loss, x, create_graph=True)
            scaler.scale(loss + slope.float().square().sum()).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
        assert not torch.equal(network[0].weight.cpu(), average[0].weight.cpu())
        return [value.cpu() for value in network.state_dict().values()]

    here = trained("cpu")
    with pretended_gpu():
        there = trained("cuda")
    assert all(torch.equal(a, b) for a, b in zip(here, there, strict=True))


def test_after_it_pytorch_is_as_before():
    before = torch.Tensor.to, torch.tensor, torch.autocast, torch.cuda.is_available
    with pretended_gpu():
        assert torch.cuda.is_available() and torch.cuda.device_count() == 1
    assert (torch.Tensor.to, torch.tensor, torch.autocast, torch.cuda.is_available) == before
