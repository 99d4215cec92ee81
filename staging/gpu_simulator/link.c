/* How GPUs are connected: PCIe, peer-to-peer access, topology. There is no NVLink on these cards. */
#include "nvml.h"
#include "session.h"

#include <stddef.h>

#define NUMBER_GETTER(function, key)                                                           \
    NVML_API nvmlReturn_t function(nvmlDevice_t device, unsigned int *value)                   \
    {                                                                                          \
        return gpu_unsigned(device, key, 1, value);                                            \
    }

NUMBER_GETTER(nvmlDeviceGetCurrPcieLinkGeneration, "pcie_generation")
NUMBER_GETTER(nvmlDeviceGetMaxPcieLinkGeneration, "pcie_generation_max")
NUMBER_GETTER(nvmlDeviceGetGpuMaxPcieLinkGeneration, "pcie_generation_max")
NUMBER_GETTER(nvmlDeviceGetCurrPcieLinkWidth, "pcie_width")
NUMBER_GETTER(nvmlDeviceGetMaxPcieLinkWidth, "pcie_width_max")
NUMBER_GETTER(nvmlDeviceGetPcieReplayCounter, "pcie_replay_counter")
/* NVML_PCIE_LINK_MAX_SPEED_* counts like the generations. */
NUMBER_GETTER(nvmlDeviceGetPcieLinkMaxSpeed, "pcie_generation_max")

NVML_API nvmlReturn_t nvmlDeviceGetPcieSpeed(nvmlDevice_t device, unsigned int *mbps)
{
    static const unsigned int speeds[] = {0, 2500, 5000, 8000, 16000, 32000, 64000};
    unsigned int generation;
    nvmlReturn_t result = nvmlDeviceGetCurrPcieLinkGeneration(device, &generation);
    if (result != NVML_SUCCESS)
        return result;
    if (mbps == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    *mbps = generation < sizeof(speeds) / sizeof(speeds[0]) ? speeds[generation] : 0;
    return NVML_SUCCESS;
}

NVML_API nvmlReturn_t nvmlDeviceGetPcieThroughput(nvmlDevice_t device, unsigned int counter,
                                                  unsigned int *kib_per_second)
{
    static const char *const keys[] = {"pcie_tx_kib_per_second", "pcie_rx_kib_per_second"};
    return counter < 2 ? gpu_unsigned(device, keys[counter], 1, kib_per_second) : NVML_ERROR_INVALID_ARGUMENT;
}

/* A value between two GPUs: `same` for a GPU and itself, else the system's number at `key`. */
static nvmlReturn_t between(nvmlDevice_t first, nvmlDevice_t second, const char *key, unsigned int same,
                            unsigned int *value)
{
    struct gpu gpu;
    double number;
    nvmlReturn_t result = gpu_open(first, &gpu);
    if (result != NVML_SUCCESS)
        return result;
    gpu_close(&gpu);
    result = gpu_open(second, &gpu);
    if (result != NVML_SUCCESS)
        return result;
    if (value == NULL)
        result = NVML_ERROR_INVALID_ARGUMENT;
    else if (first == second)
        *value = same;
    else if (json_number(json_member(json_member(gpu.state, "system"), key), &number))
        *value = (unsigned int)number;
    else
        result = NVML_ERROR_NOT_SUPPORTED;
    gpu_close(&gpu);
    return result;
}

NVML_API nvmlReturn_t nvmlDeviceGetP2PStatus(nvmlDevice_t first, nvmlDevice_t second, unsigned int capability,
                                             unsigned int *status)
{
    if (capability > 4) /* NVML_P2P_CAPS_INDEX_PCI is the last */
        return NVML_ERROR_INVALID_ARGUMENT;
    return between(first, second, "p2p_status", 0, status);
}

NVML_API nvmlReturn_t nvmlDeviceGetTopologyCommonAncestor(nvmlDevice_t first, nvmlDevice_t second, unsigned int *level)
{
    return between(first, second, "topology_level", 0, level);
}

NVML_API nvmlReturn_t nvmlDeviceOnSameBoard(nvmlDevice_t first, nvmlDevice_t second, int *same)
{
    unsigned int level;
    nvmlReturn_t result = nvmlDeviceGetTopologyCommonAncestor(first, second, &level);
    if (result != NVML_SUCCESS)
        return result;
    if (same == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    *same = first == second;
    return NVML_SUCCESS;
}

/* Gives the number of chosen GPUs when `devices` is NULL, otherwise as many as *count allows. */
static nvmlReturn_t list(nvmlDevice_t except, unsigned int level, unsigned int *count, nvmlDevice_t *devices)
{
    unsigned int found = 0, ancestor;
    if (count == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    for (unsigned int i = 0; i < session_count(); i++) {
        nvmlDevice_t device = session_device(i);
        if (except != NULL) {
            nvmlReturn_t result = nvmlDeviceGetTopologyCommonAncestor(except, device, &ancestor);
            if (result == NVML_ERROR_GPU_IS_LOST)
                continue;
            if (result != NVML_SUCCESS)
                return result;
            if (device == except || ancestor != level)
                continue;
        }
        if (devices != NULL && found < *count)
            devices[found] = device;
        found++;
    }
    if (devices == NULL || found < *count)
        *count = found;
    return NVML_SUCCESS;
}

NVML_API nvmlReturn_t nvmlDeviceGetTopologyNearestGpus(nvmlDevice_t device, unsigned int level, unsigned int *count,
                                                       nvmlDevice_t *devices)
{
    struct gpu gpu;
    nvmlReturn_t result = gpu_open(device, &gpu);
    if (result != NVML_SUCCESS)
        return result;
    gpu_close(&gpu);
    return list(device, level, count, devices);
}

NVML_API nvmlReturn_t nvmlSystemGetTopologyGpuSet(unsigned int cpu, unsigned int *count, nvmlDevice_t *devices)
{
    nvmlReturn_t result = session_check();
    (void)cpu; /* one socket: every processor is near every GPU */
    return result == NVML_SUCCESS ? list(NULL, 0, count, devices) : result;
}
