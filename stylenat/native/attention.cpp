// Neighborhood attention with a relative position bias on a CPU: forward, and backward by recomputation. In float32; the
// forward also reads and writes bfloat16, and computes as in float32.
//
// A vector holds neighbouring query columns of one row. All of them see the key dx places of the dilation d away at
// the same distance in memory, dx * d, so that dilation costs nothing; only how many dx there are differs, at borders.
// Rows are therefore kept as [dim][column]. One task is a band of rows of one head and one residue class: forward, it
// owns its queries; backward, its queries and its keys. No two tasks write to one place, so that results do not
// depend on the number of threads.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <omp.h>

#include "lanes.h"

namespace {

constexpr int BAND = 32;  // Rows of a task. Smaller: more tasks; larger: fewer rows read or computed twice.

// A tensor [batch, row, column, head, dim] of floats or halves, dim contiguous, strides in numbers.
template <class Number>
struct ViewOf {
    Number* data;
    int64_t batch, row, column, head;
    Number* at(int64_t b, int64_t y, int64_t h) const { return data + b * batch + y * row + h * head; }
};
typedef ViewOf<float> View;

struct Problem {
    int64_t batch, height, width, heads, dim, kernel, dilation, threads;
    float scale;

    int64_t span() const { return 2 * kernel - 1; }
    int64_t blocks() const { return (width + LANES - 1) / LANES; }
    int64_t margin() const { return ((kernel - 1) * dilation + LANES - 1) / LANES * LANES; }
    // Floats from one line of a row to the next; an odd number of vectors, so that lines do not share a cache set.
    int64_t pitch() const { return ((2 * margin() / LANES + blocks()) | 1) * LANES; }
    int64_t row() const { return dim * pitch(); }
    int64_t longest() const { return (height + dilation - 1) / dilation; }
    int64_t bands() const { return (longest() + BAND - 1) / BAND; }
    int64_t band() const { return (longest() + bands() - 1) / bands(); }
    int64_t tasks() const { return batch * heads * dilation * bands(); }
};

// The first key's index within a residue class of n tokens.
inline int64_t window(int64_t place, int64_t n, int64_t kernel) {
    return std::min(std::max<int64_t>(place - kernel / 2, 0), n - kernel);
}

struct Task {
    int64_t index, b, head, residue, rows, first, last;  // `rows` in the class; the task's own are [first, last).
    Task(const Problem& p, int64_t i) : index(i) {
        const int64_t band = i % p.bands();
        i /= p.bands();
        residue = i % p.dilation;
        i /= p.dilation;
        head = i % p.heads;
        b = i / p.heads;
        rows = (p.height - residue + p.dilation - 1) / p.dilation;
        first = std::min(band * p.band(), rows);
        last = std::min(first + p.band(), rows);
    }
};

// Hands out a thread's scratch memory, vector by vector; from nullptr it only counts.
struct Memory {
    float* next;
    template <typename T = float>
    T* take(int64_t floats) {
        T* taken = reinterpret_cast<T*>(next);
        next += (floats + LANES - 1) / LANES * LANES;
        return taken;
    }
};

// Which offsets (key minus query, plus kernel - 1) a block of columns needs, as queries and as keys, and which of its
// lanes each is for: mask [block][offset] is 0 or -inf.
struct Columns {
    int64_t *first, *count, *key_first, *key_count;
    float* mask;

    Columns(const Problem& p, Memory& memory)
        : first(memory.take<int64_t>(2 * p.blocks())),
          count(memory.take<int64_t>(2 * p.blocks())),
          key_first(memory.take<int64_t>(2 * p.blocks())),
          key_count(memory.take<int64_t>(2 * p.blocks())),
          mask(memory.take(p.blocks() * p.span() * LANES)) {}

    void fill(const Problem& p) {
        std::fill(mask, mask + p.blocks() * p.span() * LANES, -INFINITY);
        for (int64_t x = 0; x < p.width; x++) {
            const int64_t n = (p.width - x % p.dilation + p.dilation - 1) / p.dilation, place = x / p.dilation;
            const int64_t low = window(place, n, p.kernel) - place + p.kernel - 1;
            for (int64_t o = low; o < low + p.kernel; o++) {
                const int64_t key = x + (o - p.kernel + 1) * p.dilation;
                mask[(x / LANES * p.span() + o) * LANES + x % LANES] = 0;
                widen(first[x / LANES], count[x / LANES], o);
                widen(key_first[key / LANES], key_count[key / LANES], o);
            }
        }
    }

    static void widen(int64_t& first, int64_t& count, int64_t offset) {
        if (count == 0) first = offset;
        const int64_t end = std::max(first + count, offset + 1);
        first = std::min(first, offset);
        count = end - first;
    }
};

// One row of one head, [column][dim] in memory, to [dim][column], times a factor.
template <class Number>
void to_lanes(const Problem& p, const ViewOf<Number>& view, const Number* source, float factor, float* row) {
    const int64_t pitch = p.pitch(), column = view.column;
    for (int64_t x = 0; x < p.width; x += LANES) {
        const Number* from = source + x * column;
        int64_t d = 0;
        for (; x + LANES <= p.width && d + LANES <= p.dim; d += LANES) {
            Lanes square[LANES];
            for (int i = 0; i < LANES; i++) square[i] = load(from + i * column + d) * factor;
            transpose(square);
            for (int i = 0; i < LANES; i++) store(row + (d + i) * pitch + x, square[i]);
        }
        for (int64_t i = 0; i < std::min<int64_t>(LANES, p.width - x); i++)
            for (int64_t rest = d; rest < p.dim; rest++) row[rest * pitch + x + i] = to_float(from[i * column + rest]) * factor;
    }
}

// The k rows of keys and values around the current query row, in a ring.
struct Ring {
    const Problem& p;
    float *keys, *values;
    int64_t end;  // Class rows up to here have been loaded.

    Ring(const Problem& problem, Memory& memory)
        : p(problem), keys(memory.take(p.kernel * p.row())), values(memory.take(p.kernel * p.row())) {}

    float* key(int64_t i) const { return keys + i % p.kernel * p.row() + p.margin(); }
    float* value(int64_t i) const { return values + i % p.kernel * p.row() + p.margin(); }
    template <class Number>
    void advance(const Task& task, const ViewOf<Number>& k, const ViewOf<Number>& v, int64_t first) {
        for (int64_t i = std::max(end, first); i < first + p.kernel; i++) {
            const int64_t y = task.residue + i * p.dilation;
            to_lanes(p, k, k.at(task.b, y, task.head), 1, key(i));
            to_lanes(p, v, v.at(task.b, y, task.head), 1, value(i));
        }
        end = first + p.kernel;
    }
};

// A thread's scratch memory. Zero at first: margins and offsets that a block does not need stay so.
struct Forward {
    Columns columns;
    Ring ring;
    float *query, *sum;  // Rows have margins of zeros left and right; the pointers skip the left one.
    Lanes* scores;

    Forward(const Problem& p, Memory& memory)
        : columns(p, memory),
          ring(p, memory),
          query(memory.take(p.row()) + p.margin()),
          sum(memory.take(p.dim * LANES)),
          scores(memory.take<Lanes>(p.kernel * p.span() * LANES)) {}
};

struct Backward : Forward {
    float *given, *result, *weights, *slopes, *grad_k, *grad_v, *largest, *log, *delta;
    Lanes* grad_bias;

    Backward(const Problem& p, Memory& memory)
        : Forward(p, memory),
          given(memory.take(p.row()) + p.margin()),
          result(memory.take(p.row()) + p.margin()),
          // Of one query row [key row][offset][column]: the weights, and the gradients of the logits.
          weights(memory.take(p.kernel * p.span() * p.pitch()) + p.margin()),
          slopes(memory.take(p.kernel * p.span() * p.pitch()) + p.margin()),
          grad_k(memory.take(p.band() * p.row())),
          grad_v(memory.take(p.band() * p.row())),
          largest(memory.take(p.pitch())),
          log(memory.take(p.pitch())),
          delta(memory.take(p.pitch())),
          grad_bias(memory.take<Lanes>(p.span() * p.span() * LANES)) {}
};

template <typename Work>
int64_t floats(const Problem& p) {
    Memory memory{nullptr};
    Work(p, memory);
    return memory.next - static_cast<float*>(nullptr);
}

template <typename Work>
Work workspace(const Problem& p, float* scratch) {
    Memory memory{scratch + omp_get_thread_num() * floats<Work>(p)};
    std::fill(memory.next, memory.next + floats<Work>(p), 0.0f);
    Work work(p, memory);
    work.columns.fill(p);
    return work;
}

// A row of queries, and the window of rows that it sees.
struct Row {
    int64_t y, first, bias_row;  // In the image; in the class; of the bias table, for the window's first row.
    Row(const Problem& p, const Task& task, int64_t i)
        : y(task.residue + i * p.dilation), first(window(i, task.rows, p.kernel)), bias_row(first - i + p.kernel - 1) {}
};

// A block of queries, and the offsets along the row that it needs.
struct Block {
    int64_t x, columns, offset, count, shift;  // shift: where the first offset's keys begin.
    const float* mask;
    Block(const Problem& p, const Columns& all, int64_t i)
        : x(i * LANES),
          columns(std::min<int64_t>(LANES, p.width - x)),
          offset(all.first[i]),
          count(all.count[i]),
          shift(x + (offset - p.kernel + 1) * p.dilation),
          mask(all.mask + (i * p.span() + offset) * LANES) {}
};

// A block of queries' or keys' results, [dim][lane], times a factor, to [column][dim] in memory.
template <class Number>
void from_lanes(const Problem& p, const ViewOf<Number>& view, const float* lanes, int64_t pitch, const Block& block,
                const Lanes& factor, Number* target) {
    target += block.x * view.column;
    int64_t d = 0;
    for (; block.columns == LANES && d + LANES <= p.dim; d += LANES) {
        Lanes square[LANES];
        for (int i = 0; i < LANES; i++) square[i] = load(lanes + (d + i) * pitch) * factor;
        transpose(square);
        for (int i = 0; i < LANES; i++) store(target + i * view.column + d, square[i]);
    }
    for (int64_t i = 0; i < block.columns; i++)
        for (int64_t rest = d; rest < p.dim; rest++)
            target[i * view.column + rest] = from_float<Number>(factor[i] * lanes[rest * pitch + i]);
}

template <class Number>
void forward_block(const Problem& p, const Task& task, const Row& row, const Block& block, const float* bias,
                   const ViewOf<Number>& out, float* logsum, Forward& work) {
    const int64_t n = block.count;
    Lanes largest = Lanes{} - INFINITY, weight = {};
    for (int64_t r = 0; r < p.kernel; r++) {
        Lanes* scores = work.scores + r * n;
        dots(work.query + block.x, work.ring.key(row.first + r) + block.shift, p.pitch(), p.dilation, p.dim, n, scores);
        for (int64_t j = 0; j < n; j++) {
            scores[j] += bias[(row.bias_row + r) * p.span() + block.offset + j] + load(block.mask + j * LANES);
            largest = largest > scores[j] ? largest : scores[j];
        }
    }
    const Ints nothing = largest == Lanes{} - INFINITY;  // The bias masks every key: all weights are 0.
    largest = nothing ? Lanes{} : largest;
    for (int64_t s = 0; s < p.kernel * n; s++) weight += work.scores[s] = exponential(work.scores[s] - largest);
    weight = nothing ? Lanes{} + 1.0f : weight;
    std::fill(work.sum, work.sum + p.dim * LANES, 0.0f);
    for (int64_t r = 0; r < p.kernel; r++)
        mix(work.scores + r * n, work.ring.value(row.first + r) + block.shift, p.pitch(), p.dilation, p.dim, n,
              work.sum, LANES);
    from_lanes(p, out, work.sum, LANES, block, 1.0f / weight, out.at(task.b, row.y, task.head));
    for (int64_t lane = 0; lane < block.columns; lane++)
        logsum[block.x + lane] = largest[lane], logsum[p.height * p.width + block.x + lane] = std::log(weight[lane]);
}

// Weights and logits' gradients of the window's rows [low, high); if the query is the task's own, its gradient too.
void backward_queries(const Problem& p, const Task& task, const Row& row, const Block& block, int64_t low, int64_t high,
                      bool own, const float* bias, const View& grad_q, Backward& work) {
    const int64_t n = block.count, x = block.x;
    Lanes *scores = work.scores, *products = work.scores + n;
    std::fill(work.sum, work.sum + p.dim * LANES, 0.0f);
    for (int64_t r = low; r < high; r++) {
        const float *keys = work.ring.key(row.first + r) + block.shift, *values = work.ring.value(row.first + r) + block.shift;
        dots(work.query + x, keys, p.pitch(), p.dilation, p.dim, n, scores);
        dots(work.given + x, values, p.pitch(), p.dilation, p.dim, n, products);
        for (int64_t j = 0; j < n; j++) {
            const int64_t entry = (row.bias_row + r) * p.span() + block.offset + j;
            const int64_t at = (r * p.span() + block.offset + j) * p.pitch() + x;
            const Lanes score = scores[j] + bias[entry] + load(block.mask + j * LANES);
            const Lanes weight = exponential(score - load(work.largest + x) - load(work.log + x));
            scores[j] = weight * (products[j] - load(work.delta + x));  // Softmax's backward.
            store(work.weights + at, weight);
            store(work.slopes + at, scores[j]);
            if (own) work.grad_bias[entry] += scores[j];
        }
        if (own) mix(scores, keys, p.pitch(), p.dilation, p.dim, n, work.sum, LANES);
    }
    if (own) from_lanes(p, grad_q, work.sum, LANES, block, Lanes{} + p.scale, grad_q.at(task.b, row.y, task.head));
}

// Gathers into a block of keys of the window's row r, from the queries at minus the offset.
void backward_keys(const Problem& p, int64_t r, int64_t block, float* grad_k, float* grad_v, Backward& work) {
    const int64_t offset = work.columns.key_first[block], n = work.columns.key_count[block];
    const int64_t shift = block * LANES - (offset - p.kernel + 1) * p.dilation;
    const int64_t from = (r * p.span() + offset) * p.pitch() + shift;
    Lanes *weights = work.scores, *slopes = work.scores + n;
    for (int64_t j = 0; j < n; j++) {
        weights[j] = load(work.weights + from + j * (p.pitch() - p.dilation));
        slopes[j] = load(work.slopes + from + j * (p.pitch() - p.dilation));
    }
    mix(weights, work.given + shift, p.pitch(), -p.dilation, p.dim, n, grad_v + block * LANES, p.pitch());
    mix(slopes, work.query + shift, p.pitch(), -p.dilation, p.dim, n, grad_k + block * LANES, p.pitch());
}

template <class Number>
void attend(const Problem& p, const ViewOf<Number>& q, const ViewOf<Number>& k, const ViewOf<Number>& v,
            const float* bias, const ViewOf<Number>& out, float* logsum, int64_t logsum_batch, float* scratch) {
#pragma omp parallel num_threads(p.threads)
    {
        Forward work = workspace<Forward>(p, scratch);
#pragma omp for schedule(dynamic)
        for (int64_t index = 0; index < p.tasks(); index++) {
            const Task task(p, index);
            const float* table = bias + task.head * p.span() * p.span();
            work.ring.end = 0;
            for (int64_t i = task.first; i < task.last; i++) {
                const Row row(p, task, i);
                work.ring.advance(task, k, v, row.first);
                to_lanes(p, q, q.at(task.b, row.y, task.head), p.scale, work.query);
                float* log = logsum + task.b * logsum_batch + (2 * task.head * p.height + row.y) * p.width;
                for (int64_t b = 0; b < p.blocks(); b++)
                    forward_block(p, task, row, Block(p, work.columns, b), table, out, log, work);
            }
        }
    }
}

}  // namespace

extern "C" {

int64_t tasks(const Problem* p) { return p->tasks(); }

// Floats of scratch memory for all threads.
int64_t scratch_floats(const Problem* p, int64_t backward) {
    return p->threads * (backward ? floats<Backward>(*p) : floats<Forward>(*p));
}

// out, and logsum [batch, heads, 2, height, width]: each query's largest score, and the logarithm of its sum of
// exponentials of scores less that one. Added up, a bias of -1e9 would round the logarithm away. logsum_batch: its stride.
void forward(const Problem* problem, const View* q, const View* k, const View* v, const float* bias, const View* out,
             float* logsum, int64_t logsum_batch, float* scratch) {
    attend(*problem, *q, *k, *v, bias, *out, logsum, logsum_batch, scratch);
}

// The same of halves.
void forward_halves(const Problem* problem, const ViewOf<Half>* q, const ViewOf<Half>* k, const ViewOf<Half>* v,
                    const float* bias, const ViewOf<Half>* out, float* logsum, int64_t logsum_batch, float* scratch) {
    attend(*problem, *q, *k, *v, bias, *out, logsum, logsum_batch, scratch);
}

// Gradients of q, k and v, and the bias's [tasks, 2k-1, 2k-1], to be summed over the tasks of each head.
void backward(const Problem* problem, const View* q, const View* k, const View* v, const float* bias, const View* out,
              const float* logsum, int64_t logsum_batch, const View* grad, const View* grad_q, const View* grad_k, const View* grad_v,
              float* grad_bias, float* scratch) {
    const Problem& p = *problem;
    const int64_t entries = p.span() * p.span();
#pragma omp parallel num_threads(p.threads)
    {
        Backward work = workspace<Backward>(p, scratch);
#pragma omp for schedule(dynamic)
        for (int64_t index = 0; index < p.tasks(); index++) {
            const Task task(p, index);
            work.ring.end = 0;
            std::fill(work.grad_k, work.grad_k + p.band() * p.row(), 0.0f);
            std::fill(work.grad_v, work.grad_v + p.band() * p.row(), 0.0f);
            std::fill(work.grad_bias, work.grad_bias + entries, Lanes{});
            for (int64_t i = 0; i < task.rows; i++) {
                const Row row(p, task, i);
                const int64_t low = std::max<int64_t>(task.first - row.first, 0);
                const int64_t high = std::min(task.last - row.first, p.kernel);
                if (low >= high) continue;  // It sees none of the task's keys.
                const bool own = task.first <= i && i < task.last;
                const float* log = logsum + task.b * logsum_batch + (2 * task.head * p.height + row.y) * p.width;
                work.ring.advance(task, *k, *v, row.first);
                to_lanes(p, *q, q->at(task.b, row.y, task.head), p.scale, work.query);
                to_lanes(p, *grad, grad->at(task.b, row.y, task.head), 1, work.given);
                to_lanes(p, *out, out->at(task.b, row.y, task.head), 1, work.result);
                std::copy(log, log + p.width, work.largest);
                std::copy(log + p.height * p.width, log + (p.height + 1) * p.width, work.log);
                for (int64_t b = 0; b < p.blocks(); b++) {
                    const Block block(p, work.columns, b);
                    Lanes delta = {};
                    for (int64_t d = 0; d < p.dim; d++) {
                        const int64_t at = d * p.pitch() + block.x;
                        delta += load(work.given + at) * load(work.result + at);
                    }
                    store(work.delta + block.x, delta);
                    backward_queries(p, task, row, block, own ? 0 : low, own ? p.kernel : high, own,
                                     bias + task.head * entries, *grad_q, work);
                }
                for (int64_t r = low; r < high; r++) {
                    const int64_t at = (row.first + r - task.first) * p.row() + p.margin();
                    for (int64_t b = 0; b < p.blocks(); b++)
                        backward_keys(p, r, b, work.grad_k + at, work.grad_v + at, work);
                }
            }
            for (int64_t i = task.first; i < task.last; i++) {
                const int64_t y = task.residue + i * p.dilation;
                for (int64_t b = 0; b < p.blocks(); b++) {
                    const Block block(p, work.columns, b);
                    const int64_t at = (i - task.first) * p.row() + p.margin() + block.x;
                    from_lanes(p, *grad_k, work.grad_k + at, p.pitch(), block, Lanes{} + 1.0f, grad_k->at(task.b, y, task.head));
                    from_lanes(p, *grad_v, work.grad_v + at, p.pitch(), block, Lanes{} + 1.0f, grad_v->at(task.b, y, task.head));
                }
            }
            for (int64_t e = 0; e < entries; e++) grad_bias[index * entries + e] = total(work.grad_bias[e]);
        }
    }
}

}  // extern "C"
