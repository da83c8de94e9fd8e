// Kernels of the GPU path: NV12 in GPU memory to the network's input, the network's scores to the class map, and the class map to
// the rendered frame. The arithmetic is that of rtseg/core/letterbox.py, rtseg/inference/argmax.py and rtseg/render/overlay.py,
// without the rounding between their steps. `make kernels` compiles this file to kernels.ptx; the tests also compile it for the CPU.

struct Job {  // rtseg/gpu/kernels.py has the same fields in the same order
    const unsigned char* luma;    // [height][luma_pitch]
    const unsigned char* chroma;  // [height / 2][chroma_pitch], U and V interleaved
    unsigned char* image;         // [input_height][input_width][3], RGB
    const void* scores;           // [class_count][scores_height][scores_width], FP16 or FP32
    unsigned char* classes;       // [input_height][input_width]
    const float* weights;         // [4][256]: added to Y, U and V, and the share of the source pixel
    unsigned char* rendered;      // Y [height][width], then U and V, [height / 2][width / 2] each
    int luma_pitch, chroma_pitch, width, height;
    int input_width, input_height, left, top, inner_width, inner_height;  // the frame's rectangle in the network's input
    int luma_halvings, chroma_halvings;                                   // halvings of a plane before it is scaled
    int scores_width, scores_height, class_count, half_scores;            // half_scores: 1 for FP16, 0 for FP32
    int upsampled_width, upsampled_height;  // size of the upsampled scores; their upper left part is the class map
    float rgb[12];                                                        // matrix from Y, U, V to R, G, B: [3][4]
};

// A plane halved `halvings` times: pixel (x, y) is the mean of a square of 2^halvings pixels.
struct HalvedPlane {
    const unsigned char* first;
    int pitch, step, width, height, halvings;

    __device__ float at(int x, int y) const {
        int side = 1 << halvings, sum = 0;
        for (int row = y * side; row < (y + 1) * side; ++row)
            for (int column = x * side; column < (x + 1) * side; ++column)
                sum += first[(long long)row * pitch + column * step];
        return sum / (float)(side * side);
    }
};

// Length of the part of pixel `pixel` between two positions.
__device__ inline float overlap(int pixel, float from, float to) {
    return fminf(pixel + 1.0f, to) - fmaxf((float)pixel, from);
}

// Linear interpolation between two source pixels of a row or column: `low`, `high` and the weight of `high`.
struct LinearSample {
    int low, high;
    float share;

    __device__ LinearSample(int pixel, int target_length, int source_length) {
        float position = (pixel + 0.5f) * source_length / target_length - 0.5f;
        position = fminf(fmaxf(position, 0.0f), source_length - 1.0f);
        low = (int)position;
        high = low + 1 < source_length ? low + 1 : low;
        share = position - low;
    }
};

// Bilinear interpolation between four pixels of a plane.
template <class Plane>
__device__ inline float interpolate(const Plane& plane, const LinearSample& across, const LinearSample& down) {
    float upper = plane.at(across.low, down.low) * (1 - across.share) + plane.at(across.high, down.low) * across.share;
    float lower = plane.at(across.low, down.high) * (1 - across.share) + plane.at(across.high, down.high) * across.share;
    return upper * (1 - down.share) + lower * down.share;
}

__device__ inline float resample(HalvedPlane plane, int x, int y, int target_width, int target_height) {
    if (plane.width == target_width && plane.height == target_height) return plane.at(x, y);
    if (plane.width >= 2 * target_width && plane.height >= 2 * target_height) {  // no further halving possible: area average
        float left = (float)x * plane.width / target_width, right = (float)(x + 1) * plane.width / target_width;
        float top = (float)y * plane.height / target_height, bottom = (float)(y + 1) * plane.height / target_height, sum = 0;
        for (int row = (int)top; row < plane.height && row < bottom; ++row)
            for (int column = (int)left; column < plane.width && column < right; ++column)
                sum += overlap(row, top, bottom) * overlap(column, left, right) * plane.at(column, row);
        return sum / ((right - left) * (bottom - top));
    }
    return interpolate(plane, LinearSample(x, target_width, plane.width), LinearSample(y, target_height, plane.height));
}

__device__ inline unsigned char to_uint8(float value) { return (unsigned char)fminf(fmaxf(value + 0.5f, 0.0f), 255.0f); }

// One thread for each pixel of the frame's rectangle in the network's input.
extern "C" __global__ void scale(const Job* job) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= job->inner_width || y >= job->inner_height) return;
    int luma = job->luma_halvings, chroma = job->chroma_halvings, width = job->inner_width, height = job->inner_height;
    int half_width = job->width / 2 >> chroma, half_height = job->height / 2 >> chroma;
    float yuv[3];
    yuv[0] = resample({job->luma, job->luma_pitch, 1, job->width >> luma, job->height >> luma, luma}, x, y, width, height);
    for (int plane = 0; plane < 2; ++plane)
        yuv[1 + plane] =
            resample({job->chroma + plane, job->chroma_pitch, 2, half_width, half_height, chroma}, x, y, width, height);
    unsigned char* pixel = job->image + ((long long)(job->top + y) * job->input_width + job->left + x) * 3;
    for (int channel = 0; channel < 3; ++channel) {
        const float* row = job->rgb + 4 * channel;
        pixel[channel] = to_uint8(row[0] * yuv[0] + row[1] * yuv[1] + row[2] * yuv[2] + row[3]);
    }
}

// Scores of one class.
struct ScorePlane {
    const Job* job;
    int index;

    __device__ float at(int x, int y) const {
        long long offset = ((long long)index * job->scores_height + y) * job->scores_width + x;
        if (!job->half_scores) return ((const float*)job->scores)[offset];
        unsigned bits = ((const unsigned short*)job->scores)[offset];
        // FP16's exponent and fraction in the fields of FP32; 2^112 is the ratio of the exponents' biases.
        return __uint_as_float((bits & 0x8000) << 16 | (bits & 0x7fff) << 13) * 0x1p112f;
    }
};

// One thread for each pixel of the class map: the class with the largest score, the lowest index on ties.
extern "C" __global__ void argmax(const Job* job) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= job->input_width || y >= job->input_height) return;
    LinearSample across(x, job->upsampled_width, job->scores_width), down(y, job->upsampled_height, job->scores_height);
    int best = 0;
    float best_score = interpolate(ScorePlane{job, 0}, across, down);
    for (int index = 1; index < job->class_count; ++index) {
        float score = interpolate(ScorePlane{job, index}, across, down);
        if (score > best_score) best = index, best_score = score;
    }
    job->classes[(long long)y * job->input_width + x] = best;
}

// Blend of a pixel of a plane: the value that the class map adds, and the share of the source pixel that remains.
struct Blend {
    float add, source_share;

    __device__ void accumulate(const Job* job, const float* table, int column, int row, float weight) {
        int index = job->classes[(long long)(job->top + row) * job->input_width + job->left + column];
        add += weight * table[index];
        source_share += weight * job->weights[3 * 256 + index];
    }
};

__device__ inline Blend blend(const Job* job, int plane, int x, int y, int width, int height) {
    Blend sum = {0.0f, 0.0f};
    const float* table = job->weights + 256 * plane;
    int columns = job->inner_width, rows = job->inner_height;
    if (columns > width && rows > height) {  // the class map is larger: area average
        float left = (float)x * columns / width, right = (float)(x + 1) * columns / width;
        float top = (float)y * rows / height, bottom = (float)(y + 1) * rows / height, area = (right - left) * (bottom - top);
        for (int row = (int)top; row < rows && row < bottom; ++row)
            for (int column = (int)left; column < columns && column < right; ++column)
                sum.accumulate(job, table, column, row, overlap(column, left, right) * overlap(row, top, bottom) / area);
        return sum;
    }
    LinearSample across(x, width, columns), down(y, height, rows);
    sum.accumulate(job, table, across.low, down.low, (1 - across.share) * (1 - down.share));
    sum.accumulate(job, table, across.high, down.low, across.share * (1 - down.share));
    sum.accumulate(job, table, across.low, down.high, (1 - across.share) * down.share);
    sum.accumulate(job, table, across.high, down.high, across.share * down.share);
    return sum;
}

__device__ inline void color_pixel(const Job* job, int plane, const unsigned char* from, unsigned char* to, int x, int y,
                                   int width, int height) {
    Blend sum = blend(job, plane, x, y, width, height);
    *to = to_uint8(*from * sum.source_share + sum.add);
}

// One thread for each chroma sample and its four luma samples.
extern "C" __global__ void color(const Job* job) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    int width = job->width, height = job->height, half_width = width / 2, half_height = height / 2;
    if (x >= half_width || y >= half_height) return;
    for (int row = 2 * y; row < 2 * y + 2; ++row)
        for (int column = 2 * x; column < 2 * x + 2; ++column)
            color_pixel(job, 0, job->luma + (long long)row * job->luma_pitch + column,
                        job->rendered + (long long)row * width + column, column, row, width, height);
    unsigned char* chroma = job->rendered + (long long)width * height;
    for (int plane = 0; plane < 2; ++plane)
        color_pixel(job, 1 + plane, job->chroma + (long long)y * job->chroma_pitch + 2 * x + plane,
                    chroma + ((long long)plane * half_height + y) * half_width + x, x, y, half_width, half_height);
}
