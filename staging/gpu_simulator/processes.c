/* The processes that the state says are running on a GPU. */
#include "nvml.h"
#include "session.h"
#include "state.h"

#include <string.h>

#define MIB (1024ULL * 1024ULL)
/* What NVML writes where a card is not divided into instances. */
#define NO_INSTANCE 0xFFFFFFFFu

/* Puts one process into the caller's array, whose elements depend on the version of the function. */
typedef void (*store_process)(void *infos, unsigned int index, unsigned int pid, unsigned long long bytes);

/* Stores the GPU's processes of one type, as many as *count allows, and sets *count to their number. */
static nvmlReturn_t processes(nvmlDevice_t device, const char *type, unsigned int *count, void *infos,
                              store_process store)
{
    struct gpu gpu;
    struct json *list;
    unsigned int found = 0;
    nvmlReturn_t result = gpu_open(device, &gpu);
    if (result != NVML_SUCCESS)
        return result;
    if (count == NULL) {
        gpu_close(&gpu);
        return NVML_ERROR_INVALID_ARGUMENT;
    }
    list = json_member(gpu.record, "processes");
    for (struct json *entry = list != NULL ? list->child : NULL; entry != NULL; entry = entry->next) {
        const char *kind = json_string(json_member(entry, "type"));
        double pid, mib;
        if (strcmp(kind != NULL ? kind : "compute", type) != 0 || !json_number(json_member(entry, "pid"), &pid))
            continue;
        if (!json_number(json_member(entry, "memory_mib"), &mib))
            mib = 0;
        if (infos != NULL && found < *count)
            store(infos, found, (unsigned int)pid, (unsigned long long)mib * MIB);
        found++;
    }
    gpu_close(&gpu);
    result = found > *count || (found > 0 && infos == NULL) ? NVML_ERROR_INSUFFICIENT_SIZE : NVML_SUCCESS;
    *count = found;
    return result;
}

static void store_v1(void *infos, unsigned int index, unsigned int pid, unsigned long long bytes)
{
    ((nvmlProcessInfo_v1_t *)infos)[index] = (nvmlProcessInfo_v1_t){pid, bytes};
}

static void store_v2(void *infos, unsigned int index, unsigned int pid, unsigned long long bytes)
{
    ((nvmlProcessInfo_v2_t *)infos)[index] = (nvmlProcessInfo_v2_t){pid, bytes, NO_INSTANCE, NO_INSTANCE};
}

#define PROCESS_GETTER(function, type, store)                                                  \
    NVML_API nvmlReturn_t function(nvmlDevice_t device, unsigned int *count, void *infos)      \
    {                                                                                          \
        return processes(device, type, count, infos, store);                                   \
    }

PROCESS_GETTER(nvmlDeviceGetComputeRunningProcesses, "compute", store_v1)
PROCESS_GETTER(nvmlDeviceGetComputeRunningProcesses_v2, "compute", store_v2)
PROCESS_GETTER(nvmlDeviceGetComputeRunningProcesses_v3, "compute", store_v2)
PROCESS_GETTER(nvmlDeviceGetGraphicsRunningProcesses, "graphics", store_v1)
PROCESS_GETTER(nvmlDeviceGetGraphicsRunningProcesses_v2, "graphics", store_v2)
PROCESS_GETTER(nvmlDeviceGetGraphicsRunningProcesses_v3, "graphics", store_v2)
PROCESS_GETTER(nvmlDeviceGetMPSComputeRunningProcesses_v2, "mps", store_v2)
PROCESS_GETTER(nvmlDeviceGetMPSComputeRunningProcesses_v3, "mps", store_v2)

NVML_API nvmlReturn_t nvmlSystemGetProcessName(unsigned int pid, char *name, unsigned int length)
{
    struct json *state, *gpu;
    nvmlReturn_t result = session_check();
    if (result != NVML_SUCCESS)
        return result;
    state = state_read();
    if (state == NULL)
        return NVML_ERROR_UNKNOWN;
    result = NVML_ERROR_NOT_FOUND;
    for (unsigned int i = 0; (gpu = json_element(json_member(state, "gpus"), i)) != NULL; i++) {
        struct json *list = json_member(gpu, "processes");
        for (struct json *entry = list != NULL ? list->child : NULL; entry != NULL; entry = entry->next) {
            const char *found = json_string(json_member(entry, "name"));
            double number;
            if (found != NULL && json_number(json_member(entry, "pid"), &number) && (unsigned int)number == pid)
                result = copy_text(name, length, found);
        }
    }
    json_free(state);
    return result;
}
