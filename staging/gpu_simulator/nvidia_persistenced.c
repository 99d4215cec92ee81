/* A simulated nvidia-persistenced: keeps persistence mode on for as long as it runs. */
#include "nvml.h"

#include <signal.h>
#include <stdio.h>

/* Sets the mode of all GPUs; the number of those that refused. */
static unsigned int set_all(unsigned int mode)
{
    unsigned int count = 0, failed = 0;
    nvmlDeviceGetCount_v2(&count);
    for (unsigned int i = 0; i < count; i++) {
        nvmlDevice_t device;
        nvmlReturn_t result = nvmlDeviceGetHandleByIndex_v2(i, &device);
        if (result == NVML_SUCCESS)
            result = nvmlDeviceSetPersistenceMode(device, mode);
        if (result == NVML_SUCCESS) {
            printf("GPU %u (simulated): persistence mode %s\n", i, mode ? "enabled" : "disabled");
        } else {
            printf("GPU %u (simulated): persistence mode unchanged: %s\n", i, nvmlErrorString(result));
            failed++;
        }
    }
    fflush(stdout);
    return failed;
}

int main(void)
{
    sigset_t stop;
    int received;
    nvmlReturn_t result;

    /* Before anything else, so that no signal is lost between setting and waiting. */
    sigemptyset(&stop);
    sigaddset(&stop, SIGTERM);
    sigaddset(&stop, SIGINT);
    sigprocmask(SIG_BLOCK, &stop, NULL);

    result = nvmlInit_v2();
    if (result != NVML_SUCCESS) {
        printf("Failed to query NVIDIA devices (simulated): %s. Is the kernel module loaded?\n",
               nvmlErrorString(result));
        return 1;
    }
    if (set_all(1) != 0)
        return 1;
    sigwait(&stop, &received);
    set_all(0);
    nvmlShutdown();
    return 0;
}
