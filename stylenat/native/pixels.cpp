// From decoded pixels to what a network is given: planes instead of pixels, mirrored or not, normalised or not, in one
// pass. Writing the floats is what takes the time.

#include <cstdint>
#include <vector>

namespace {

// One uint8 image: three channels by strides in bytes. Decoders leave pixels (column 3, channel 1), tensors are planes.
struct Image {
    const uint8_t* data;
    int64_t channel, row, column, height, width;
};

inline void put(uint8_t value, uint8_t& out, float, float) { out = value; }
// Subtracted first: no compiler can contract this into another rounding, and PyTorch's way gives the same bits.
inline void put(uint8_t value, float& out, float mean, float scale) { out = (value - mean) * scale; }

template <class Out>
void write(const Image& image, Out* out, bool mirrored, const float* mean, const float* scale) {
    const int64_t width = image.width, plane = image.height * width;
    std::vector<uint8_t> scratch(3 * width);
    uint8_t *const red = scratch.data(), *const green = red + width, *const blue = green + width;
    for (int64_t y = 0; y < image.height; y++) {
        const uint8_t* in = image.data + y * image.row;
        if (image.channel == 1 && image.column == 3)  // All three in one loop is what the compiler makes shuffles of.
            for (int64_t x = 0; x < width; x++) red[x] = in[3 * x], green[x] = in[3 * x + 1], blue[x] = in[3 * x + 2];
        else
            for (int c = 0; c < 3; c++)
                for (int64_t x = 0; x < width; x++) red[c * width + x] = in[c * image.channel + x * image.column];
        for (int c = 0; c < 3; c++) {
            const uint8_t* from = red + c * width;
            Out* to = out + c * plane + y * width;
            const float m = mean[c], s = scale[c];
            if (mirrored)
                for (int64_t x = 0; x < width; x++) put(from[width - 1 - x], to[x], m, s);
            else
                for (int64_t x = 0; x < width; x++) put(from[x], to[x], m, s);
        }
    }
}

}  // namespace

extern "C" {

// Contiguous [3][height][width]: (value - mean[c]) * scale[c].
void write_floats(const uint8_t* data, int64_t channel, int64_t row, int64_t column, int64_t height, int64_t width,
                  float* out, int64_t mirrored, const float* mean, const float* scale) {
    write({data, channel, row, column, height, width}, out, mirrored, mean, scale);
}

// The values as they are.
void write_bytes(const uint8_t* data, int64_t channel, int64_t row, int64_t column, int64_t height, int64_t width,
                 uint8_t* out, int64_t mirrored, const float* mean, const float* scale) {
    write({data, channel, row, column, height, width}, out, mirrored, mean, scale);
}
}
