// kernels.cu compiled for the CPU: the tests run the same source as the GPU.

#include <cmath>
#include <cstddef>
#include <cstring>

struct Index {
    int x, y;
};
static thread_local Index blockIdx, blockDim, threadIdx;

static inline float __uint_as_float(unsigned bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

#define __global__
#define __device__
#include "kernels.cu"

extern "C" void launch(int kernel, int blocks_x, int blocks_y, int threads_x, int threads_y, const Job* job) {
    static void (*const kernels[])(const Job*) = {scale, argmax, color};
    blockDim = {threads_x, threads_y};
    for (blockIdx.y = 0; blockIdx.y < blocks_y; ++blockIdx.y)
        for (blockIdx.x = 0; blockIdx.x < blocks_x; ++blockIdx.x)
            for (threadIdx.y = 0; threadIdx.y < threads_y; ++threadIdx.y)
                for (threadIdx.x = 0; threadIdx.x < threads_x; ++threadIdx.x) kernels[kernel](job);
}

extern "C" int layout(int field) {
    const std::size_t offsets[] = {sizeof(Job),          offsetof(Job, luma),        offsetof(Job, scores), offsetof(Job, rendered),
                                   offsetof(Job, width), offsetof(Job, class_count), offsetof(Job, rgb)};
    return static_cast<int>(offsets[field]);
}

extern "C" void read_fp16(const void* numbers, float* values, int count) {
    Job job = {};
    job.scores = numbers, job.scores_width = count, job.half_scores = 1;
    for (int x = 0; x < count; ++x) values[x] = ScorePlane{&job, 0}.at(x, 0);
}
