// kernels.cu compiled for the processor: the tests run the very text that the card runs.

#include <cmath>
#include <cstddef>

struct Place {
    int x, y;
};
static thread_local Place blockIdx, blockDim, threadIdx;

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

extern "C" int layout(int what) {
    const std::size_t places[] = {sizeof(Job),          offsetof(Job, luma),        offsetof(Job, shown),
                                  offsetof(Job, width), offsetof(Job, inner_width), offsetof(Job, rgb)};
    return static_cast<int>(places[what]);
}
