// A libcuda that only prints its calls.

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <dlfcn.h>

static const int unbuffered = std::setvbuf(stdout, nullptr, _IONBF, 0);  // keeps the order with the output of Python

extern "C" {
int cuModuleLoadData(void** module, const char* image) {
    std::printf("cuModuleLoadData %.*s\n", static_cast<int>(std::strcspn(image, "\n")), image);
    *module = reinterpret_cast<void*>(7);
    return 0;
}
int cuModuleGetFunction(void** function, void* module, const char* name) {
    if (!std::strcmp(name, "missing")) return 500;
    std::printf("cuModuleGetFunction %s of %lu\n", name, reinterpret_cast<std::uintptr_t>(module));
    *function = reinterpret_cast<void*>(11);
    return 0;
}
int cuLaunchKernel(void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, void* stream, void** parameters, void**) {
    std::printf("cuLaunchKernel %lu: %ux%ux%u blocks of %ux%ux%u, %u bytes, stream %lu, parameter %p\n",
                reinterpret_cast<std::uintptr_t>(function), gx, gy, gz, bx, by, bz, shared,
                reinterpret_cast<std::uintptr_t>(stream), *static_cast<void**>(parameters[0]));
    return 0;
}
int cuModuleUnload(void* module) {
    std::printf("cuModuleUnload %lu\n", reinterpret_cast<std::uintptr_t>(module));
    return 0;
}
int cuGetErrorString(int, const char** text) {
    *text = "named symbol not found";
    return 0;
}
int cuInit(unsigned) { return 0; }
int cuDriverGetVersion(int* version) {
    *version = 13000;
    return 0;
}
int cuGetProcAddress_v2(const char* name, void** function, int, std::uint64_t, int*) {
    *function = dlsym(RTLD_DEFAULT, name);
    return *function ? 0 : 500;
}
int cuGetProcAddress(const char* name, void** function, int version, std::uint64_t flags) {
    return cuGetProcAddress_v2(name, function, version, flags, nullptr);
}
}
