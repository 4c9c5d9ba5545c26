// bfloat16: the upper half of a float. Read exactly; written rounded to the nearest, ties to even. Sums are of floats.

#pragma once

#include <cstdint>
#include <cstring>

namespace {

typedef uint16_t Half;

inline float to_float(float x) { return x; }
inline float to_float(Half x) {
    const uint32_t bits = static_cast<uint32_t>(x) << 16;
    float y;
    std::memcpy(&y, &bits, 4);
    return y;
}

template <class Number>
inline Number from_float(float x);
template <>
inline float from_float<float>(float x) {
    return x;
}
template <>
inline Half from_float<Half>(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    return static_cast<Half>(x == x ? rounded : 0x7fc0);  // Rounding would carry some NaNs over to 0.
}

}  // namespace
