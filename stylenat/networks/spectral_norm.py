"""Spectral norm (arXiv 1802.05957): weights divided by their largest singular values, those of a network together."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stylenat.networks.layers import no_autocast

EPS = 1e-12


class SpectralNorm(nn.Module):
    """Holds a weight, and yields it divided by its largest singular value.

    One power iteration a call in training mode; none in evaluation mode. A network with many of them calls
    ``SpectralNorms``.
    """

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        matrix = weight.flatten(1)
        self.register_buffer("u", F.normalize(torch.randn(matrix.shape[0]), dim=0, eps=EPS))
        self.register_buffer("v", F.normalize(torch.randn(matrix.shape[1]), dim=0, eps=EPS))

    def forward(self, gain: float = 1.0) -> Tensor:
        """The weight times ``gain``, divided by its largest singular value."""
        with no_autocast(self.weight):  # In half precision it would not converge.
            with torch.no_grad():
                matrix = self.weight.flatten(1)
                if self.training:
                    # New tensors, not new values in the old ones, which an earlier call's graph may still need.
                    self.v = F.normalize(torch.mv(matrix.t(), self.u), dim=0, eps=EPS)
                    product = torch.mv(matrix, self.v)
                    sigma = torch.linalg.vector_norm(product)
                    self.u = product / sigma.clamp_min(EPS)
                else:
                    sigma = torch.dot(self.u, torch.mv(matrix, self.v))
                factor = gain / sigma
            return _Divided.apply((gain,), None, [self.u], [self.v], [factor], self.weight)[0]


class SpectralNorms(nn.Module):
    """The weights of several spectral norms, each times its gain, as their own calls would yield them.

    Norms, bounds and divisions are done for all of them at once: an iteration of ``ffhq256`` calls 95 spectral norms,
    and on a GPU each small operation costs the host as much as a large one.

    Args:
        norms: held without being registered, so that names in a state dict are those of their own layers.
    """

    def __init__(self, norms: Sequence[SpectralNorm], gains: Sequence[float]) -> None:
        super().__init__()
        self.norms, self.gains = tuple(norms), tuple(gains)
        for name, axis in (("rows", 0), ("columns", 1)):
            sizes = [norm.weight.flatten(1).shape[axis] for norm in norms]
            index = torch.tensor([number for number, size in enumerate(sizes) for _ in range(size)])
            self.register_buffer(name, index, persistent=False)

    def forward(self) -> list[Tensor]:
        weights = [norm.weight for norm in self.norms]
        with no_autocast(weights[0]):
            with torch.no_grad():
                matrices = [weight.flatten(1) for weight in weights]
                if self.training:
                    columns = [torch.mv(m.t(), norm.u) for m, norm in zip(matrices, self.norms, strict=True)]
                    vs, _ = _normalised(columns, self.columns)
                    us, sigma = _normalised([torch.mv(m, v) for m, v in zip(matrices, vs, strict=True)], self.rows)
                    for norm, u, v in zip(self.norms, us, vs, strict=True):
                        norm.u, norm.v = u, v
                else:
                    us, vs = [norm.u for norm in self.norms], [norm.v for norm in self.norms]
                    products = [torch.mv(m, v) for m, v in zip(matrices, vs, strict=True)]
                    sigma = torch.stack([torch.dot(u, product) for u, product in zip(us, products, strict=True)])
                # Gains stay numbers of Python: in double precision they are not float32's.
                factors = torch._foreach_mul(sigma.reciprocal().unbind(), self.gains)
            return list(_Divided.apply(self.gains, self.rows, us, vs, factors, *weights))


def _normalised(vectors: Sequence[Tensor], index: Tensor) -> tuple[list[Tensor], Tensor]:
    """The vectors, each divided by its norm, as tensors of their own, and the norms [len(vectors)].

    index: for each element of all vectors in a row, the number of its vector.
    """
    norms = torch.stack(torch._foreach_norm(vectors))
    joined = torch.cat(list(vectors)) / norms.clamp_min(EPS)[index]
    return list(torch.split_with_sizes_copy(joined, [len(vector) for vector in vectors])), norms


class _Divided(torch.autograd.Function):
    """``weight * gain / sigma`` with sigma = u^T weight v, of constant u and v, for several weights.

    Arguments: gains; index of ``_normalised`` for all u, None for one weight; u and v; gain / sigma;
    the weights.
    """

    @staticmethod
    def forward(ctx: Any, gains: Sequence[float], index: Tensor | None, us, vs, factors, *weights: Tensor):
        outs = tuple(weight * factor for weight, factor in zip(weights, factors, strict=True))
        # A frozen layer's gradient is not computed.
        ctx.mark_non_differentiable(*(out for i, out in enumerate(outs) if not ctx.needs_input_grad[5 + i]))
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(index, *us, *vs, *factors, *weights)
        ctx.gains = gains
        return outs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None):
        index, *saved = ctx.saved_tensors
        count = len(ctx.gains)
        us, vs, factors, weights = (saved[i * count : (i + 1) * count] for i in range(4))
        found: list[Tensor | None] = [None] * count
        used = [i for i, grad in enumerate(grads) if grad is not None]
        if torch.is_grad_enabled():  # A second derivative is wanted: through differentiable pieces.
            for i in used:
                sigma = torch.dot(us[i], torch.mv(weights[i].flatten(1), vs[i]))
                divided = weights[i] * (ctx.gains[i] / sigma)
                (found[i],) = torch.autograd.grad(divided, weights[i], grads[i], create_graph=True)
            return None, None, None, None, None, *found
        # gain / sigma * (grad - <grad, weight> / sigma * u v^T)
        products = torch._foreach_mul([grads[i] for i in used], [weights[i] for i in used])
        along = torch.stack([product.sum() for product in products]) * torch.stack([factors[i] for i in used])
        if index is not None and len(used) == count:
            scaled = (torch.cat(us) * along[index]).split([len(u) for u in us])
        else:
            scaled = [us[i] * value for i, value in zip(used, along.unbind(), strict=True)]
        for i, vector in zip(used, scaled, strict=True):
            gradient = torch.addr(grads[i].flatten(1), vector, vs[i], alpha=-1 / ctx.gains[i]).mul_(factors[i])
            found[i] = gradient if weights[i].ndim == 2 else gradient.view(weights[i].shape)
        return None, None, None, None, None, *found
