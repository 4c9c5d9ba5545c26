"""Triton kernels of neighborhood attention: forward, gradients of q and the bias, gradients of k and v.

A dilation d leaves d x d residue classes that never mix; each is an image of its own with dilation 1. A program takes
one tile of queries (or of keys) of one class, head and image, and walks in strips over the keys (queries) that it can
see. There are no atomics: every element of every result is written by one program, added up in a fixed order, so that
equal inputs give equal bits.

Coordinates are those within the class. ``seen`` and ``window_start`` are the only places that know which keys a query
sees; they equal ``stylenat.attention.window``. Softmax is in base 2: ``scale`` and ``bias`` are multiplied by log2(e).
"""

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def window_start(place, size, KERNEL: tl.constexpr):
    """The first key that the query at ``place`` sees, on an axis of a class of ``size`` tokens."""
    return tl.minimum(tl.maximum(place - KERNEL // 2, 0), size - KERNEL)


@triton.jit
def first_query(place, KERNEL: tl.constexpr):
    """The first query that sees the key at ``place``: ``window_start`` inverted."""
    return tl.where(place < KERNEL, 0, place - KERNEL // 2)


@triton.jit
def last_query(place, size, KERNEL: tl.constexpr):
    """The last query that sees the key at ``place``."""
    return tl.where(place >= size - KERNEL, size - 1, place + KERNEL // 2)


@triton.jit
def seen(query, key, size, KERNEL: tl.constexpr):
    """Whether a query sees a key, on one axis."""
    offset = key - window_start(query, size, KERNEL)
    return (offset >= 0) & (offset < KERNEL)


@triton.jit
def located(heads, height, width, dilation, TY: tl.constexpr, TX: tl.constexpr):
    """What this program works on: image, head, residue, the class's size, and the first row and column of its tile.

    Tiles are counted over the longest class; in a shorter one, the last tile may lie beyond its end.
    """
    tiles_x = tl.cdiv(tl.cdiv(width, dilation), TX)
    tiles = tiles_x * tl.cdiv(tl.cdiv(height, dilation), TY)
    program = tl.program_id(0)
    tile, rest = program % tiles, program // tiles
    residue, rest = rest % (dilation * dilation), rest // (dilation * dilation)
    head, batch = rest % heads, rest // heads
    residue_y, residue_x = residue // dilation, residue % dilation
    rows, columns = tl.cdiv(height - residue_y, dilation), tl.cdiv(width - residue_x, dilation)
    return batch, head, residue_y, residue_x, rows, columns, tile // tiles_x * TY, tile % tiles_x * TX


@triton.jit
def dot(a, b, PRECISION: tl.constexpr, UPCAST: tl.constexpr):
    """A product with a float32 sum. ``UPCAST`` is for Triton's interpreter, whose products in bf16 are wrong."""
    if UPCAST:
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, input_precision=PRECISION)


@triton.jit
def biased(bias, head, qy, qx, ky, kx, visible, KERNEL: tl.constexpr):
    """The bias of each pair, in base 2."""
    span: tl.constexpr = 2 * KERNEL - 1
    index = (ky - qy + KERNEL - 1) * span + kx - qx + KERNEL - 1
    return tl.load(bias + head * span * span + index, mask=visible, other=0.0).to(tl.float32) * LOG2E


@triton.jit
def attention_forward(
    q, k, v, bias, out, logsum,
    scale, heads, height, width, dilation, l_b,
    q_b, q_y, q_x, q_h, k_b, k_y, k_x, k_h, v_b, v_y, v_x, v_h, o_b, o_y, o_x, o_h,
    KERNEL: tl.constexpr, DIM: tl.constexpr, BLOCK: tl.constexpr, HAS_BIAS: tl.constexpr,
    TY: tl.constexpr, TX: tl.constexpr, SY: tl.constexpr, SX: tl.constexpr,
    PRECISION: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """Writes ``out`` and ``logsum`` [batch, heads, 2 * height, width].

    These are each query's largest score, and in rows of their own the logarithm (base 2) of its sum of exponentials of
    scores less that one. Added up, a bias of -1e9 would round the logarithm away.
    """
    batch, head, ry, rx, rows, columns, y0, x0 = located(heads, height, width, dilation, TY, TX)
    i, j, c = tl.arange(0, TY * TX), tl.arange(0, SY * SX), tl.arange(0, BLOCK)
    # Queries beyond the class are copies of its last one and are not written.
    inside = (y0 + i // TX < rows) & (x0 + i % TX < columns)
    qy, qx = tl.minimum(y0 + i // TX, rows - 1), tl.minimum(x0 + i % TX, columns - 1)
    y, x = ry + dilation * qy, rx + dilation * qx
    q += batch.to(tl.int64) * q_b + head * q_h
    k += batch.to(tl.int64) * k_b + head * k_h
    v += batch.to(tl.int64) * v_b + head * v_h
    queries = tl.load(q + (y * q_y + x * q_x)[:, None] + c[None, :], mask=(c < DIM)[None, :], other=0.0)

    first_y, first_x = (
        window_start(tl.minimum(y0, rows - 1), rows, KERNEL),
        window_start(tl.minimum(x0, columns - 1), columns, KERNEL),
    )
    end_y = window_start(tl.minimum(y0 + TY, rows) - 1, rows, KERNEL) + KERNEL
    end_x = window_start(tl.minimum(x0 + TX, columns) - 1, columns, KERNEL) + KERNEL
    largest = tl.full([TY * TX], float("-inf"), tl.float32)
    total = tl.zeros([TY * TX], tl.float32)
    result = tl.zeros([TY * TX, BLOCK], tl.float32)
    for strip_y in range(first_y, end_y, SY):
        for strip_x in range(first_x, end_x, SX):
            ky, kx = strip_y + j // SX, strip_x + j % SX
            there = (ky < end_y) & (kx < end_x)
            loaded = there[:, None] & (c < DIM)[None, :]
            at_y, at_x = ry + dilation * ky, rx + dilation * kx
            keys = tl.load(k + (at_y * k_y + at_x * k_x)[:, None] + c[None, :], mask=loaded, other=0.0)
            values = tl.load(v + (at_y * v_y + at_x * v_x)[:, None] + c[None, :], mask=loaded, other=0.0)
            visible = seen(qy[:, None], ky[None, :], rows, KERNEL) & seen(qx[:, None], kx[None, :], columns, KERNEL)
            visible &= there[None, :]
            score = dot(queries, tl.trans(keys), PRECISION, UPCAST) * (scale * LOG2E)
            if HAS_BIAS:
                score += biased(bias, head, qy[:, None], qx[:, None], ky[None, :], kx[None, :], visible, KERNEL)
            score = tl.where(visible, score, float("-inf"))
            above = tl.maximum(largest, tl.max(score, 1))
            shift = tl.where(above == float("-inf"), 0.0, above)
            weights, fade = tl.exp2(score - shift[:, None]), tl.exp2(largest - shift)
            total = total * fade + tl.sum(weights, 1)
            result = result * fade[:, None] + dot(weights.to(values.dtype), values, PRECISION, UPCAST)
            largest = above
    # A query whose keys all have a bias of -inf gives 0, and its gradients are 0 too.
    empty = total == 0.0
    result = tl.where(empty[:, None], 0.0, result / tl.where(empty, 1.0, total)[:, None])
    out += batch.to(tl.int64) * o_b + head * o_h
    written = inside[:, None] & (c < DIM)[None, :]
    tl.store(out + (y * o_y + x * o_x)[:, None] + c[None, :], result.to(out.dtype.element_ty), mask=written)
    logsum += batch.to(tl.int64) * l_b + head * 2 * height * width
    tl.store(logsum + y * width + x, tl.where(empty, 0.0, largest), mask=inside)
    tl.store(logsum + (height + y) * width + x, tl.log2(tl.where(empty, 1.0, total)), mask=inside)


@triton.jit
def attention_backward_queries(
    q, k, v, bias, out, logsum, grad, delta, grad_q, partial,
    scale, heads, height, width, dilation, l_b,
    q_b, q_y, q_x, q_h, k_b, k_y, k_x, k_h, v_b, v_y, v_x, v_h, o_b, o_y, o_x, o_h,
    g_b, g_y, g_x, g_h, dq_b, dq_y, dq_x, dq_h,
    KERNEL: tl.constexpr, DIM: tl.constexpr, BLOCK: tl.constexpr, HAS_BIAS: tl.constexpr, GRAD_BIAS: tl.constexpr,
    SPAN: tl.constexpr, TY: tl.constexpr, TX: tl.constexpr, SY: tl.constexpr, SX: tl.constexpr,
    PRECISION: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """Writes the gradient of q, ``delta`` (each query's sum of out x grad) and this program's share of the bias's
    gradient, [2 * KERNEL - 1, 2 * KERNEL - 1]."""
    batch, head, ry, rx, rows, columns, y0, x0 = located(heads, height, width, dilation, TY, TX)
    i, j, c = tl.arange(0, TY * TX), tl.arange(0, SY * SX), tl.arange(0, BLOCK)
    inside = (y0 + i // TX < rows) & (x0 + i % TX < columns)
    qy, qx = tl.minimum(y0 + i // TX, rows - 1), tl.minimum(x0 + i % TX, columns - 1)
    y, x = ry + dilation * qy, rx + dilation * qx
    q += batch.to(tl.int64) * q_b + head * q_h
    k += batch.to(tl.int64) * k_b + head * k_h
    v += batch.to(tl.int64) * v_b + head * v_h
    out += batch.to(tl.int64) * o_b + head * o_h
    grad += batch.to(tl.int64) * g_b + head * g_h
    logsum += batch.to(tl.int64) * l_b + head * 2 * height * width
    delta += batch.to(tl.int64) * (l_b // 2) + head * height * width
    own = inside[:, None] & (c < DIM)[None, :]
    queries = tl.load(q + (y * q_y + x * q_x)[:, None] + c[None, :], mask=own, other=0.0)
    grads = tl.load(grad + (y * g_y + x * g_x)[:, None] + c[None, :], mask=own, other=0.0)
    outs = tl.load(out + (y * o_y + x * o_x)[:, None] + c[None, :], mask=own, other=0.0)
    mean = tl.sum(grads.to(tl.float32) * outs.to(tl.float32), 1)
    tl.store(delta + y * width + x, mean, mask=inside)
    largest, sums = tl.load(logsum + y * width + x), tl.load(logsum + (height + y) * width + x)

    first_y, first_x = (
        window_start(tl.minimum(y0, rows - 1), rows, KERNEL),
        window_start(tl.minimum(x0, columns - 1), columns, KERNEL),
    )
    end_y = window_start(tl.minimum(y0 + TY, rows) - 1, rows, KERNEL) + KERNEL
    end_x = window_start(tl.minimum(x0 + TX, columns) - 1, columns, KERNEL) + KERNEL
    result = tl.zeros([TY * TX, BLOCK], tl.float32)
    table = tl.zeros([SPAN, SPAN], tl.float32)
    for strip_y in range(first_y, end_y, SY):
        for strip_x in range(first_x, end_x, SX):
            ky, kx = strip_y + j // SX, strip_x + j % SX
            there = (ky < end_y) & (kx < end_x)
            loaded = there[:, None] & (c < DIM)[None, :]
            at_y, at_x = ry + dilation * ky, rx + dilation * kx
            keys = tl.load(k + (at_y * k_y + at_x * k_x)[:, None] + c[None, :], mask=loaded, other=0.0)
            values = tl.load(v + (at_y * v_y + at_x * v_x)[:, None] + c[None, :], mask=loaded, other=0.0)
            visible = seen(qy[:, None], ky[None, :], rows, KERNEL) & seen(qx[:, None], kx[None, :], columns, KERNEL)
            visible &= there[None, :] & inside[:, None]
            score = dot(queries, tl.trans(keys), PRECISION, UPCAST) * (scale * LOG2E)
            if HAS_BIAS:
                score += biased(bias, head, qy[:, None], qx[:, None], ky[None, :], kx[None, :], visible, KERNEL)
            weights = tl.where(visible, tl.exp2(score - largest[:, None] - sums[:, None]), 0.0)
            slope = weights * (dot(grads, tl.trans(values), PRECISION, UPCAST) - mean[:, None])
            result += dot(slope.to(keys.dtype), keys, PRECISION, UPCAST)
            if GRAD_BIAS:
                # [query row, query column, key row, key column] is added up along its diagonals by two products with
                # matrices of ones and zeros: columns first, then rows.
                by_axis = tl.reshape(slope, [TY, TX, SY, SX]).permute(0, 2, 1, 3).reshape(TY * SY, TX * SX)
                xs, ys, o = tl.arange(0, TX * SX), tl.arange(0, TY * SY), tl.arange(0, SPAN)
                offset_x = strip_x + xs % SX - (x0 + xs // SX) + KERNEL - 1
                offset_y = strip_y + ys % SY - (y0 + ys // SY) + KERNEL - 1
                columns_of = (offset_x[:, None] == o[None, :]).to(tl.float32)
                rows_of = (o[:, None] == offset_y[None, :]).to(tl.float32)
                table += dot(rows_of, dot(by_axis, columns_of, PRECISION, UPCAST), PRECISION, UPCAST)
    grad_q += batch.to(tl.int64) * dq_b + head * dq_h
    tl.store(
        grad_q + (y * dq_y + x * dq_x)[:, None] + c[None, :], (result * scale).to(grad_q.dtype.element_ty), mask=own
    )
    if GRAD_BIAS:
        span: tl.constexpr = 2 * KERNEL - 1
        a, b = tl.arange(0, SPAN)[:, None], tl.arange(0, SPAN)[None, :]
        partial += tl.program_id(0).to(tl.int64) * span * span
        tl.store(partial + a * span + b, table, mask=(a < span) & (b < span))


@triton.jit
def attention_backward_keys(
    q, k, v, bias, logsum, grad, delta, grad_k, grad_v,
    scale, heads, height, width, dilation, l_b,
    q_b, q_y, q_x, q_h, k_b, k_y, k_x, k_h, v_b, v_y, v_x, v_h,
    g_b, g_y, g_x, g_h, dk_b, dk_y, dk_x, dk_h, dv_b, dv_y, dv_x, dv_h,
    KERNEL: tl.constexpr, DIM: tl.constexpr, BLOCK: tl.constexpr, HAS_BIAS: tl.constexpr,
    TY: tl.constexpr, TX: tl.constexpr, SY: tl.constexpr, SX: tl.constexpr,
    PRECISION: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """Writes the gradients of k and v. The tile is one of keys; strips are of the queries that see any of them."""
    batch, head, ry, rx, rows, columns, y0, x0 = located(heads, height, width, dilation, TY, TX)
    i, j, c = tl.arange(0, TY * TX), tl.arange(0, SY * SX), tl.arange(0, BLOCK)
    inside = (y0 + i // TX < rows) & (x0 + i % TX < columns)
    ky, kx = tl.minimum(y0 + i // TX, rows - 1), tl.minimum(x0 + i % TX, columns - 1)
    y, x = ry + dilation * ky, rx + dilation * kx
    q += batch.to(tl.int64) * q_b + head * q_h
    k += batch.to(tl.int64) * k_b + head * k_h
    v += batch.to(tl.int64) * v_b + head * v_h
    grad += batch.to(tl.int64) * g_b + head * g_h
    logsum += batch.to(tl.int64) * l_b + head * 2 * height * width
    delta += batch.to(tl.int64) * (l_b // 2) + head * height * width
    own = inside[:, None] & (c < DIM)[None, :]
    keys = tl.load(k + (y * k_y + x * k_x)[:, None] + c[None, :], mask=own, other=0.0)
    values = tl.load(v + (y * v_y + x * v_x)[:, None] + c[None, :], mask=own, other=0.0)

    begin_y, begin_x = first_query(tl.minimum(y0, rows - 1), KERNEL), first_query(tl.minimum(x0, columns - 1), KERNEL)
    end_y = last_query(tl.minimum(y0 + TY, rows) - 1, rows, KERNEL) + 1
    end_x = last_query(tl.minimum(x0 + TX, columns) - 1, columns, KERNEL) + 1
    result_k, result_v = tl.zeros([TY * TX, BLOCK], tl.float32), tl.zeros([TY * TX, BLOCK], tl.float32)
    for strip_y in range(begin_y, end_y, SY):
        for strip_x in range(begin_x, end_x, SX):
            qy, qx = strip_y + j // SX, strip_x + j % SX
            there = (qy < end_y) & (qx < end_x)
            loaded = there[:, None] & (c < DIM)[None, :]
            at_y, at_x = ry + dilation * qy, rx + dilation * qx
            queries = tl.load(q + (at_y * q_y + at_x * q_x)[:, None] + c[None, :], mask=loaded, other=0.0)
            grads = tl.load(grad + (at_y * g_y + at_x * g_x)[:, None] + c[None, :], mask=loaded, other=0.0)
            largest = tl.load(logsum + at_y * width + at_x, mask=there, other=0.0)
            sums = tl.load(logsum + (height + at_y) * width + at_x, mask=there, other=0.0)
            means = tl.load(delta + at_y * width + at_x, mask=there, other=0.0)
            visible = seen(qy[None, :], ky[:, None], rows, KERNEL) & seen(qx[None, :], kx[:, None], columns, KERNEL)
            visible &= there[None, :] & inside[:, None]
            score = dot(keys, tl.trans(queries), PRECISION, UPCAST) * (scale * LOG2E)
            if HAS_BIAS:
                score += biased(bias, head, qy[None, :], qx[None, :], ky[:, None], kx[:, None], visible, KERNEL)
            weights = tl.where(visible, tl.exp2(score - largest[None, :] - sums[None, :]), 0.0)
            slope = weights * (dot(values, tl.trans(grads), PRECISION, UPCAST) - means[None, :])
            result_v += dot(weights.to(grads.dtype), grads, PRECISION, UPCAST)
            result_k += dot(slope.to(queries.dtype), queries, PRECISION, UPCAST)
    grad_k += batch.to(tl.int64) * dk_b + head * dk_h
    grad_v += batch.to(tl.int64) * dv_b + head * dv_h
    tl.store(
        grad_k + (y * dk_y + x * dk_x)[:, None] + c[None, :], (result_k * scale).to(grad_k.dtype.element_ty), mask=own
    )
    tl.store(grad_v + (y * dv_y + x * dv_x)[:, None] + c[None, :], result_v.to(grad_v.dtype.element_ty), mask=own)
