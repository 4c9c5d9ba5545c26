"""Triton kernels of the modulated instance norm: statistics, forward, sums of the backward, backward.

A program takes ``chunk`` tokens of one image and ``BLOCK`` of its channels. Where these are all tokens (``ALONE``), it
finds the statistics, or the sums, itself. Otherwise a kernel before has written those of each chunk, and every program
pools them. There are no atomics: every number is added up in a fixed order, so that equal inputs give equal bits.

x, out, gradients: [batch, tokens, channels], rows with stride 1. modulation: [batch, 2 * channels], gamma before beta.
partial: [batch, chunks, 2, channels]; statistics: [batch, 2, channels], the means, then the inverse deviations.
"""

import triton
import triton.language as tl


@triton.jit
def located(tokens, channels, chunk, BLOCK: tl.constexpr):
    """What this program works on: image, chunk, tokens [first, last), its channels, and which of them there are."""
    blocks, chunks = tl.cdiv(channels, BLOCK), tl.cdiv(tokens, chunk)
    block, rest = tl.program_id(0) % blocks, tl.program_id(0) // blocks
    first = rest % chunks * chunk
    c = block * BLOCK + tl.arange(0, BLOCK)
    return (rest // chunks).to(tl.int64), rest % chunks, first, tl.minimum(first + chunk, tokens), c, c < channels


@triton.jit
def rows_of(x, stride, at, last, c, inside, ROWS: tl.constexpr):
    """Tokens ``at`` to ``at + ROWS`` as addresses, and which of them there are before ``last``."""
    row = at + tl.arange(0, ROWS)
    return x + row.to(tl.int64)[:, None] * stride + c[None, :], (row < last)[:, None] & inside[None, :]


@triton.jit
def pooled(counts, means, squares):
    """The mean and the sum of squared differences from it, of parts along the first axis (Chan et al., 1979)."""
    total = tl.sum(counts, 0)
    mean = tl.sum(counts * means, 0) / total
    # Where the mean is large, the rounding of that sum is large beside the deviation.
    mean += tl.sum(counts * (means - mean[None, :]), 0) / total
    off = means - mean[None, :]
    return mean, tl.sum(squares + counts * off * off, 0)


@triton.jit
def statistics_of(x, stride, first, last, c, inside, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """Of tokens [first, last): the mean and the sum of squared differences from it, by Welford's method in each row."""
    mean, squares, number = tl.zeros([ROWS, BLOCK], tl.float32), tl.zeros([ROWS, BLOCK], tl.float32), 0.0
    for at in range(first, last, ROWS):
        pointers, there = rows_of(x, stride, at, last, c, inside, ROWS)
        value = tl.load(pointers, mask=there, other=0.0).to(tl.float32)
        number += 1.0
        change = tl.where(there, value - mean, 0.0)
        mean += change * (1.0 / number)
        squares += change * (value - mean)
    counts = (last - first - tl.arange(0, ROWS) + ROWS - 1) // ROWS
    return pooled(tl.maximum(counts, 0).to(tl.float32)[:, None], mean, squares)


@triton.jit
def parts_of(partial, batch, chunks, number, channels, c, inside, CHUNKS: tl.constexpr):
    """One of the two numbers of every chunk and channel: [CHUNKS, channels], 0 beyond the last chunk."""
    j = tl.arange(0, CHUNKS)
    pointers = partial + ((batch * chunks + j)[:, None] * 2 + number) * channels + c[None, :]
    return tl.load(pointers, mask=(j < chunks)[:, None] & inside[None, :], other=0.0)


@triton.jit
def store_pair(target, index, channels, c, inside, one, other):
    """A pair of numbers for each channel."""
    tl.store(target + (index * 2) * channels + c, one.to(target.dtype.element_ty), mask=inside)
    tl.store(target + (index * 2 + 1) * channels + c, other.to(target.dtype.element_ty), mask=inside)


@triton.jit
def norm_statistics(
    x, partial, tokens, channels, chunk, x_b, x_t, ROWS: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """Writes each chunk's mean and sum of squared differences from it."""
    batch, number, first, last, c, inside = located(tokens, channels, chunk, BLOCK)
    mean, squares = statistics_of(x + batch * x_b, x_t, first, last, c, inside, ROWS, BLOCK)
    store_pair(partial, batch * tl.cdiv(tokens, chunk) + number, channels, c, inside, mean, squares)


@triton.jit
def norm_forward(
    x, modulation, partial, out, statistics, eps, tokens, channels, chunk, x_b, x_t, m_b, m_c,
    ALONE: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr, CHUNKS: tl.constexpr,
):  # fmt: skip
    """Writes ``out`` and ``statistics``."""
    batch, number, first, last, c, inside = located(tokens, channels, chunk, BLOCK)
    x += batch * x_b
    if ALONE:
        mean, squares = statistics_of(x, x_t, first, last, c, inside, ROWS, BLOCK)
    else:
        chunks = tl.cdiv(tokens, chunk)
        means = parts_of(partial, batch, chunks, 0, channels, c, inside, CHUNKS)
        each = parts_of(partial, batch, chunks, 1, channels, c, inside, CHUNKS)
        counts = tl.maximum(tl.minimum(tokens - tl.arange(0, CHUNKS) * chunk, chunk), 0)
        mean, squares = pooled(counts.to(tl.float32)[:, None], means, each)
    inverse = 1.0 / tl.sqrt(squares / tokens + eps)
    if number == 0:
        store_pair(statistics, batch, channels, c, inside, mean, inverse)
    modulation += batch * m_b + c * m_c
    slope = tl.load(modulation, mask=inside, other=0.0).to(tl.float32) * inverse
    beta = tl.load(modulation + channels * m_c, mask=inside, other=0.0).to(tl.float32)
    out += batch * tokens * channels
    for at in range(first, last, ROWS):
        pointers, there = rows_of(x, x_t, at, last, c, inside, ROWS)
        # Centred first: a map's mean can be large beside its deviation.
        centred = tl.load(pointers, mask=there, other=0.0).to(tl.float32) - mean[None, :]
        targets, there = rows_of(out, channels, at, last, c, inside, ROWS)
        tl.store(targets, (centred * slope[None, :] + beta[None, :]).to(out.dtype.element_ty), mask=there)


@triton.jit
def sums_of(grad, x, g_t, x_t, first, last, c, inside, mean, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """Of tokens [first, last): the sum of the gradient, and of the gradient times the centred x."""
    total, along = tl.zeros([ROWS, BLOCK], tl.float32), tl.zeros([ROWS, BLOCK], tl.float32)
    for at in range(first, last, ROWS):
        pointers, there = rows_of(grad, g_t, at, last, c, inside, ROWS)
        slope = tl.load(pointers, mask=there, other=0.0).to(tl.float32)
        pointers, there = rows_of(x, x_t, at, last, c, inside, ROWS)
        total += slope
        along += slope * (tl.load(pointers, mask=there, other=0.0).to(tl.float32) - mean[None, :])
    return tl.sum(total, 0), tl.sum(along, 0)


@triton.jit
def norm_backward_sums(
    grad, x, statistics, partial, tokens, channels, chunk, g_b, g_t, x_b, x_t,
    ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Writes each chunk's sums."""
    batch, number, first, last, c, inside = located(tokens, channels, chunk, BLOCK)
    mean = tl.load(statistics + batch * 2 * channels + c, mask=inside, other=0.0)
    grad, x = grad + batch * g_b, x + batch * x_b
    total, along = sums_of(grad, x, g_t, x_t, first, last, c, inside, mean, ROWS, BLOCK)
    store_pair(partial, batch * tl.cdiv(tokens, chunk) + number, channels, c, inside, total, along)


@triton.jit
def norm_backward(
    grad, x, modulation, statistics, partial, grad_x, grad_modulation, tokens, channels, chunk,
    g_b, g_t, x_b, x_t, m_b, m_c,
    ALONE: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr, CHUNKS: tl.constexpr,
):  # fmt: skip
    """Writes the gradients of x and of the modulation."""
    batch, number, first, last, c, inside = located(tokens, channels, chunk, BLOCK)
    mean = tl.load(statistics + batch * 2 * channels + c, mask=inside, other=0.0)
    inverse = tl.load(statistics + (batch * 2 + 1) * channels + c, mask=inside, other=0.0)
    grad, x = grad + batch * g_b, x + batch * x_b
    if ALONE:
        total, along = sums_of(grad, x, g_t, x_t, first, last, c, inside, mean, ROWS, BLOCK)
    else:
        chunks = tl.cdiv(tokens, chunk)
        total = tl.sum(parts_of(partial, batch, chunks, 0, channels, c, inside, CHUNKS), 0)
        along = tl.sum(parts_of(partial, batch, chunks, 1, channels, c, inside, CHUNKS), 0)
    grad_gamma = along * inverse
    if number == 0:
        store_pair(grad_modulation, batch, channels, c, inside, grad_gamma, total)
    slope = tl.load(modulation + batch * m_b + c * m_c, mask=inside, other=0.0).to(tl.float32) * inverse
    # dx = slope * (grad - mean(grad) - normalised x * mean(grad * normalised x))
    shift, factor = slope * total / tokens, slope * inverse * grad_gamma / tokens
    grad_x += batch * tokens * channels
    for at in range(first, last, ROWS):
        pointers, there = rows_of(x, x_t, at, last, c, inside, ROWS)
        centred = tl.load(pointers, mask=there, other=0.0).to(tl.float32) - mean[None, :]
        pointers, there = rows_of(grad, g_t, at, last, c, inside, ROWS)
        given = tl.load(pointers, mask=there, other=0.0).to(tl.float32)
        result = given * slope[None, :] - shift[None, :] - centred * factor[None, :]
        targets, there = rows_of(grad_x, channels, at, last, c, inside, ROWS)
        tl.store(targets, result.to(grad_x.dtype.element_ty), mask=there)
