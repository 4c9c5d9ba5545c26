// Vectors of LANES floats, in GCC's own terms, and the products over lines of them that neighborhood attention needs.

#pragma once

#include <algorithm>
#include <cstdint>

#include "numbers.h"

namespace {

#ifdef __AVX512F__
constexpr int LANES = 16;
#else
constexpr int LANES = 8;
#endif
constexpr int CHUNK = 8;  // Offsets at once: their sums stay in registers.

typedef float Lanes __attribute__((vector_size(LANES * 4)));
typedef int32_t Ints __attribute__((vector_size(LANES * 4)));
typedef float Anywhere __attribute__((vector_size(LANES * 4), aligned(4), may_alias));

inline Lanes load(const float* p) { return *reinterpret_cast<const Anywhere*>(p); }
inline void store(float* p, Lanes x) { *reinterpret_cast<Anywhere*>(p) = x; }

// bfloat16 in memory, as in numbers.h.
typedef uint32_t Bits __attribute__((vector_size(LANES * 4)));
typedef Half Halves __attribute__((vector_size(LANES * 2)));
typedef Half HalvesAnywhere __attribute__((vector_size(LANES * 2), aligned(2), may_alias));

inline Lanes load(const Half* p) {
    return (Lanes)(__builtin_convertvector(Halves(*reinterpret_cast<const HalvesAnywhere*>(p)), Bits) << 16);
}
inline void store(Half* p, Lanes x) {
    const Bits bits = (Bits)x, rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    *reinterpret_cast<HalvesAnywhere*>(p) = __builtin_convertvector(x == x ? rounded : Bits{} + 0x7fc0, Halves);
}

inline float total(Lanes x) {
    float sum = 0;
    for (int lane = 0; lane < LANES; lane++) sum += x[lane];
    return sum;
}

// e^x for x of about 0 or less, to 2 units in the last place; exactly 0 below -87, -inf included. NaN stays NaN.
inline Lanes exponential(Lanes x) {
    const Ints low = x < -87.0f;
    x = low ? Lanes{} - 87.0f : x;
    const Lanes shifter = Lanes{} + 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer.
    const Lanes rounded = x * 1.44269504f + shifter, n = rounded - shifter;
    const Lanes r = (x - n * 0.693359375f) + n * 2.12194440e-4f;  // x - n log 2, log 2 in two pieces.
    Lanes y = Lanes{} + 1.9875691500e-4f;
    y = y * r + 1.3981999507e-3f;
    y = y * r + 8.3334519073e-3f;
    y = y * r + 4.1665795894e-2f;
    y = y * r + 1.6666665459e-1f;
    y = y * r + 5.0000001201e-1f;
    y = y * r * r + r + 1.0f;
    const Lanes power = (Lanes)(((Ints)rounded - (Ints)shifter + 127) << 23);  // 2^n, by its exponent's bits.
    return low ? Lanes{} : y * power;
}

// sums[j] = sum over dim of a[d] * b[d], b shifted by j steps, for j < n: CHUNK of them at once, then the rest.
template <int N = CHUNK>
void dots(const float* a, const float* b, int64_t pitch, int64_t step, int64_t dim, int64_t n, Lanes* sums) {
    if constexpr (N > 1)
        if (n < N) return dots<N - 1>(a, b, pitch, step, dim, n, sums);
    Lanes sum[N] = {};
    for (int64_t d = 0; d < dim; d++) {
        const Lanes x = load(a + d * pitch);
        for (int j = 0; j < N; j++) sum[j] += x * load(b + d * pitch + j * step);
    }
    for (int j = 0; j < N; j++) sums[j] = sum[j];
    if (n > N) dots(a, b + N * step, pitch, step, dim, n - N, sums + N);
}

// out[d] += sum over j < n of weights[j] * b[d], b shifted by j steps.
template <int N = CHUNK>
void mix(const Lanes* weights, const float* b, int64_t pitch, int64_t step, int64_t dim, int64_t n, float* out,
         int64_t out_pitch) {
    if constexpr (N > 1)
        if (n < N) return mix<N - 1>(weights, b, pitch, step, dim, n, out, out_pitch);
    Lanes w[N];
    for (int j = 0; j < N; j++) w[j] = weights[j];
    for (int64_t d = 0; d < dim; d++) {
        Lanes sum = load(out + d * out_pitch);
        for (int j = 0; j < N; j++) sum += w[j] * load(b + d * pitch + j * step);
        store(out + d * out_pitch, sum);
    }
    if (n > N) mix(weights + N, b + N * step, pitch, step, dim, n - N, out, out_pitch);
}

#ifdef __AVX512F__
const Ints LOW = {0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23};
#else
const Ints LOW = {0, 8, 1, 9, 2, 10, 3, 11};
#endif
const Ints HIGH = LOW + LANES / 2;

// Transposes LANES vectors of LANES: rounds of interleaving the first half with the second.
inline void transpose(Lanes* x) {
    for (int round = 1; round < LANES; round *= 2) {
        Lanes y[LANES];
        for (int i = 0; i < LANES / 2; i++) {
            y[2 * i] = __builtin_shuffle(x[i], x[i + LANES / 2], LOW);
            y[2 * i + 1] = __builtin_shuffle(x[i], x[i + LANES / 2], HIGH);
        }
        std::copy(y, y + LANES, x);
    }
}

}  // namespace
