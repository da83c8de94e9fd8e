// kernels.cu compiled for the CPU: the tests run the same source as the GPU.

#include <cmath>
#include <cstddef>

struct Index {
    int x, y;
};
static thread_local Index blockIdx, blockDim, threadIdx;

#define __global__
#define __device__
#include "kernels.cu"

extern "C" void launch(int kernel, int blocks_x, int blocks_y, int threads_x, int threads_y, const Job* job) {
    blockDim = {threads_x, threads_y};
    for (blockIdx.y = 0; blockIdx.y < blocks_y; ++blockIdx.y)
        for (blockIdx.x = 0; blockIdx.x < blocks_x; ++blockIdx.x)
            for (threadIdx.y = 0; threadIdx.y < threads_y; ++threadIdx.y)
                for (threadIdx.x = 0; threadIdx.x < threads_x; ++threadIdx.x) kernel ? color(job) : scale(job);
}

extern "C" int layout(int field) {
    const std::size_t offsets[] = {sizeof(Job),          offsetof(Job, luma),        offsetof(Job, rendered),
                                   offsetof(Job, width), offsetof(Job, inner_width), offsetof(Job, rgb)};
    return static_cast<int>(offsets[field]);
}
