// Instance norm over tokens: moments in one pass over a map, and the modulated result in another; backward likewise.
//
// A map is [batch][tokens][channels], in float or bfloat16, each image contiguous. Sums are of floats over BLOCK tokens, then of doubles
// over chunks at fixed places, so that results do not depend on the number of threads.

#include <algorithm>
#include <cstdint>
#include <vector>

#include "numbers.h"

namespace {

constexpr int64_t BLOCK = 64, CHUNK = 1024;

// Of tokens [first, last): sums of the differences from `near`, and of their squares.
template <class Number>
void add_up(const Number* x, int64_t first, int64_t last, int64_t channels, const float* near, double* sums) {
    std::vector<float> some(2 * channels);
    float *const sum = some.data(), *const squares = sum + channels;
    std::fill(sums, sums + 2 * channels, 0.0);
    for (int64_t block = first; block < last; block += BLOCK) {
        std::fill(some.begin(), some.end(), 0.0f);
        for (int64_t t = block; t < std::min(block + BLOCK, last); t++) {
            const Number* row = x + t * channels;
            for (int64_t c = 0; c < channels; c++) {
                const float difference = to_float(row[c]) - near[c];
                sum[c] += difference;
                squares[c] += difference * difference;
            }
        }
        for (int64_t c = 0; c < 2 * channels; c++) sums[c] += some[c];
    }
}

struct Sizes {
    int64_t batch, tokens, channels, stride, halves, threads;  // Image i begins i * stride numbers after the first.
};

template <class Number>
void moments(const Number* x, int64_t tokens, int64_t channels, float* variance, float* mean, int64_t threads) {
    const int64_t chunks = (tokens + CHUNK - 1) / CHUNK;
    std::vector<float> near(channels);  // A mean that is large beside the deviation then costs no digits.
    for (int64_t c = 0; c < channels; c++) near[c] = to_float(x[c]);
    std::vector<double> sums(2 * chunks * channels);
#pragma omp parallel for num_threads(threads) schedule(static) if (chunks > 1 && threads > 1)
    for (int64_t i = 0; i < chunks; i++)
        add_up(x, i * CHUNK, std::min((i + 1) * CHUNK, tokens), channels, near.data(), &sums[2 * i * channels]);
    for (int64_t c = 0; c < channels; c++) {
        double sum = 0, squares = 0;
        for (int64_t i = 0; i < chunks; i++) sum += sums[2 * i * channels + c], squares += sums[(2 * i + 1) * channels + c];
        sum /= tokens;
        mean[c] = static_cast<float>(near[c] + sum);
        variance[c] = static_cast<float>(std::max(squares / tokens - sum * sum, 0.0));
    }
}

template <class Number>
void modulate(const Number* x, int64_t tokens, int64_t channels, const float* mean, const float* slope,
              const float* beta, Number* out, int64_t threads) {
#pragma omp parallel for num_threads(threads) schedule(static) if (tokens >= CHUNK && threads > 1)
    for (int64_t t = 0; t < tokens; t++) {
        const Number* row = x + t * channels;
        Number* to = out + t * channels;
        for (int64_t c = 0; c < channels; c++)  // Centred first, as moments are.
            to[c] = from_float<Number>((to_float(row[c]) - mean[c]) * slope[c] + beta[c]);
    }
}

// Sums of the gradient, and of its products with the centred map: [2][channels].
void gradient_sums(const float* x, const float* grad, int64_t tokens, int64_t channels, const float* mean, float* out,
                   int64_t threads) {
    const int64_t chunks = (tokens + CHUNK - 1) / CHUNK;
    std::vector<double> sums(2 * chunks * channels);
#pragma omp parallel for num_threads(threads) schedule(static) if (chunks > 1 && threads > 1)
    for (int64_t i = 0; i < chunks; i++) {
        std::vector<float> some(2 * channels);
        float *const sum = some.data(), *const products = sum + channels;
        double* total = &sums[2 * i * channels];
        for (int64_t block = i * CHUNK; block < std::min((i + 1) * CHUNK, tokens); block += BLOCK) {
            std::fill(some.begin(), some.end(), 0.0f);
            for (int64_t t = block; t < std::min(block + BLOCK, tokens); t++) {
                const float *row = x + t * channels, *slope = grad + t * channels;
                for (int64_t c = 0; c < channels; c++) {
                    sum[c] += slope[c];
                    products[c] += slope[c] * (row[c] - mean[c]);
                }
            }
            for (int64_t c = 0; c < 2 * channels; c++) total[c] += some[c];
        }
    }
    for (int64_t c = 0; c < 2 * channels; c++) {
        double sum = 0;
        for (int64_t i = 0; i < chunks; i++) sum += sums[2 * i * channels + c];
        out[c] = static_cast<float>(sum);
    }
}

// grad * slope + (x - mean) * centred + constant, each of these [channels].
void gradient(const float* x, const float* grad, int64_t tokens, int64_t channels, const float* mean,
              const float* slope, const float* centred, const float* constant, float* out, int64_t threads) {
#pragma omp parallel for num_threads(threads) schedule(static) if (tokens >= CHUNK && threads > 1)
    for (int64_t t = 0; t < tokens; t++) {
        const float *row = x + t * channels, *from = grad + t * channels;
        float* to = out + t * channels;
        for (int64_t c = 0; c < channels; c++)
            to[c] = from[c] * slope[c] + ((row[c] - mean[c]) * centred[c] + constant[c]);
    }
}

template <class Number>
void moments_of_batch(const Sizes& s, const void* x, float* variance, float* mean) {
    for (int64_t b = 0, c = s.channels; b < s.batch; b++)
        moments(static_cast<const Number*>(x) + b * s.stride, s.tokens, c, variance + b * c, mean + b * c, s.threads);
}

template <class Number>
void modulate_batch(const Sizes& s, const void* x, const float* mean, const float* slope, const float* beta,
                    int64_t beta_stride, void* out, int64_t out_stride) {
    for (int64_t b = 0, c = s.channels; b < s.batch; b++)
        modulate(static_cast<const Number*>(x) + b * s.stride, s.tokens, c, mean + b * c, slope + b * c,
                 beta + b * beta_stride, static_cast<Number*>(out) + b * out_stride, s.threads);
}

}  // namespace

extern "C" {

// Variance (of all tokens) and mean [batch][channels].
void moments(const Sizes* s, const void* x, float* variance, float* mean) {
    (s->halves ? moments_of_batch<Half> : moments_of_batch<float>)(*s, x, variance, mean);
}

// (x - mean) * slope + beta: mean and slope [batch][channels], an image's beta beta_stride after the last one's.
void modulate(const Sizes* s, const void* x, const float* mean, const float* slope, const float* beta,
              int64_t beta_stride, void* out, int64_t out_stride) {
    (s->halves ? modulate_batch<Half> : modulate_batch<float>)(*s, x, mean, slope, beta, beta_stride, out, out_stride);
}

// Of floats: sums [batch][2][channels], and out [batch][tokens][channels]. grad: an image grad_stride after the last.
void gradient_sums(const Sizes* s, const float* x, const float* grad, int64_t grad_stride, const float* mean,
                   float* sums) {
    for (int64_t b = 0, c = s->channels; b < s->batch; b++)
        gradient_sums(x + b * s->stride, grad + b * grad_stride, s->tokens, c, mean + b * c, sums + 2 * b * c, s->threads);
}
void gradient(const Sizes* s, const float* x, const float* grad, int64_t grad_stride, const float* mean,
              const float* slope, const float* centred, const float* constant, float* out) {
    for (int64_t b = 0, c = s->channels; b < s->batch; b++)
        gradient(x + b * s->stride, grad + b * grad_stride, s->tokens, c, mean + b * c, slope + b * c, centred + b * c,
                 constant + b * c, out + b * s->tokens * c, s->threads);
}
}
