"""Batch norm whose statistics do not depend on how a batch is divided, and the running statistics of any network."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm as TorchBatchNorm

from registry import UserError
from stylenat import ranks


class BatchNorm(nn.Module):
    """Batch norm (arXiv 1502.03167) of [batch, ..., channels]: by channel, over positions and a group of images.

    Of a batch over all processes, image i belongs to group i modulo (batch / group), so that a process or microbatch
    with a multiple of ``group`` images holds complete groups. Running statistics are means over groups; the training
    step averages them over processes and microbatches.

    Args:
        group: images that are normalised together in training; None for all images of a microbatch, over all processes.
        eps: added to the variance, which is biased where it normalises and unbiased where it is tracked.
        momentum: part of the running statistics that a batch replaces.
    """

    def __init__(self, channels: int, group: int | None = None, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.group, self.eps, self.momentum = group, eps, momentum
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            rows = x.reshape(-1, x.shape[-1])
            running = self.running_mean, self.running_var
            return F.batch_norm(rows, *running, self.weight, self.bias, False, 0.0, self.eps).view(x.shape)
        if self.group is None and ranks.world_size() > 1:
            return self._over_processes(x)
        batch, channels = x.shape[0], x.shape[-1]
        group = min(self.group or batch, batch)
        if batch % group:
            raise UserError(f"{batch} images do not divide into batch-norm groups of {group}")
        groups = batch // group
        # Groups side by side as channels: one call for all of them.
        rows = x.reshape(group, groups, -1, channels).transpose(1, 2).reshape(-1, groups * channels)
        mean, variance = torch.zeros_like(self.running_mean).repeat(groups), self.running_var.new_ones(len(rows[0]))
        affine = self.weight.repeat(groups), self.bias.repeat(groups)
        out = F.batch_norm(rows, mean, variance, *affine, True, 1.0, self.eps)  # A momentum of 1: the batch's own.
        self._track(mean.view(groups, channels).mean(dim=0), variance.view(groups, channels).mean(dim=0))
        return out.view(group, -1, groups, channels).transpose(1, 2).reshape(x.shape)

    def _over_processes(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1]).to(torch.promote_types(x.dtype, torch.float32))
        own = torch.stack(torch.var_mean(rows, dim=0, correction=0))
        variances, means = ranks.gathered_with_gradient(own).unbind(dim=1)  # [processes, channels] each.
        mean = means.mean(dim=0)
        variance = variances.mean(dim=0) + (means - mean).square().mean(dim=0)
        count = rows.shape[0] * ranks.world_size()
        self._track(mean.detach(), variance.detach() * count / (count - 1))
        out = torch.addcmul(self.bias, rows - mean, torch.rsqrt(variance + self.eps) * self.weight)
        return out.view(x.shape).to(x.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor) -> None:
        self.running_mean = torch.lerp(self.running_mean, mean, self.momentum)
        self.running_var = torch.lerp(self.running_var, variance, self.momentum)


def running_statistics(network: nn.Module) -> list[tuple[nn.Module, str]]:
    """Where a network has running means and variances of batch norm, PyTorch's or ours, as module and attribute.

    They are averages over images, as other buffers are not.
    """
    norms = [m for m in network.modules() if isinstance(m, BatchNorm | TorchBatchNorm)]
    names = "running_mean", "running_var"
    return [(norm, name) for norm in norms for name in names if getattr(norm, name) is not None]


def means_over_images(network: nn.Module) -> list[tuple[nn.Module, str]]:
    """The same, and the buffers that modules name in ``means_over_images``: means over images that are part of the
    weights as they are, and are copied into averages of the weights."""
    own = [(m, name) for m in network.modules() for name in getattr(m, "means_over_images", ())]
    return [*running_statistics(network), *own]


def norm_groups(network: nn.Module) -> set[int]:
    """The group sizes of a network's batch norms that have any."""
    return {m.group for m in network.modules() if isinstance(m, BatchNorm) and m.group is not None}


def check_groups(network: nn.Module, images: int, batch: int) -> None:
    """Raises UserError where ``images`` that are processed at once, of a batch, would split batch-norm groups."""
    for group in norm_groups(network):
        if images % min(group, batch):
            raise UserError(
                f"{images} images at once (train.batch_size / processes / train.accumulate) do not divide into "
                f"batch-norm groups of {group}; use a multiple of {group} images, or another group"
            )


def coupling(network: nn.Module) -> str | None:
    """How batch norm makes training depend on the division of a batch, for people; None without batch norm. One in
    evaluation mode, as of a network that is not trained, does not count."""
    norms = [m for m in network.modules() if isinstance(m, BatchNorm | TorchBatchNorm) and m.training]
    if any(isinstance(norm, TorchBatchNorm) and not isinstance(norm, nn.SyncBatchNorm) for norm in norms):
        return (
            "sees the images of one process and microbatch: another number of processes x train.accumulate trains "
            "another model"
        )
    groups = {getattr(norm, "group", None) for norm in norms}
    if None in groups:
        return (
            "sees the images of one microbatch over all processes: another train.accumulate trains another model; the "
            "number of processes does not matter"
        )
    if groups:
        listed = ", ".join(map(str, sorted(groups)))
        return f"sees groups of {listed} images: processes x train.accumulate do not matter"
    return None
