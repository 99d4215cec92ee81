/* How a GPU is: memory, temperature, fans, load, clocks, errors, processes. */
#include "nvml.h"
#include "session.h"

#include <string.h>

#define MIB (1024ULL * 1024ULL)
/* The sampling period, in microseconds, that is reported with the use of encoder and decoder. */
#define SAMPLING_PERIOD 167000

#define NUMBER_GETTER(function, key)                                                           \
    NVML_API nvmlReturn_t function(nvmlDevice_t device, unsigned int *value)                   \
    {                                                                                          \
        return gpu_unsigned(device, key, 1, value);                                            \
    }

/* ---- memory ------------------------------------------------------------------------------- */

struct memory {
    unsigned long long total, reserved, used, free;
};

/* Reads amounts in bytes; all of them from one state, so that they add up. */
static nvmlReturn_t read_memory(nvmlDevice_t device, struct memory *memory)
{
    struct gpu gpu;
    double total, reserved, used;
    nvmlReturn_t result = gpu_open(device, &gpu);
    if (result != NVML_SUCCESS)
        return result;
    if (json_number(json_member(gpu.record, "memory_total_mib"), &total) &&
        json_number(json_member(gpu.record, "memory_reserved_mib"), &reserved) &&
        json_number(json_member(gpu.record, "memory_used_mib"), &used)) {
        memory->total = (unsigned long long)total * MIB;
        memory->reserved = (unsigned long long)reserved * MIB;
        memory->used = (unsigned long long)used * MIB;
        memory->free = memory->total - memory->reserved - memory->used;
    } else {
        result = NVML_ERROR_NOT_SUPPORTED;
    }
    gpu_close(&gpu);
    return result;
}

NVML_API nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory)
{
    struct memory found;
    nvmlReturn_t result = read_memory(device, &found);
    if (result != NVML_SUCCESS)
        return result;
    if (memory == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    /* The first version counts what the driver reserves as used. */
    memory->total = found.total;
    memory->free = found.free;
    memory->used = found.used + found.reserved;
    return NVML_SUCCESS;
}

NVML_API nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t *memory)
{
    struct memory found;
    nvmlReturn_t result = read_memory(device, &found);
    if (result != NVML_SUCCESS)
        return result;
    if (memory == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (memory->version != NVML_STRUCT_VERSION(nvmlMemory_v2_t, 2))
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    memory->total = found.total;
    memory->reserved = found.reserved;
    memory->free = found.free;
    memory->used = found.used;
    return NVML_SUCCESS;
}

NVML_API nvmlReturn_t nvmlDeviceGetBAR1MemoryInfo(nvmlDevice_t device, nvmlBAR1Memory_t *memory)
{
    double total, used;
    nvmlReturn_t result = gpu_number(device, "bar1_total_mib", &total);
    if (result == NVML_SUCCESS)
        result = gpu_number(device, "bar1_used_mib", &used);
    if (result != NVML_SUCCESS)
        return result;
    if (memory == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    memory->bar1Total = (unsigned long long)total * MIB;
    memory->bar1Used = (unsigned long long)used * MIB;
    memory->bar1Free = memory->bar1Total - memory->bar1Used;
    return NVML_SUCCESS;
}

/* ---- temperature -------------------------------------------------------------------------- */

NVML_API nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t device, unsigned int sensor, unsigned int *celsius)
{
    if (sensor != 0) /* NVML_TEMPERATURE_GPU is the only sensor */
        return NVML_ERROR_INVALID_ARGUMENT;
    return gpu_unsigned(device, "temperature_c", 1, celsius);
}

NVML_API nvmlReturn_t nvmlDeviceGetTemperatureV(nvmlDevice_t device, nvmlTemperature_t *temperature)
{
    unsigned int celsius;
    nvmlReturn_t result;
    if (temperature == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (temperature->version != NVML_STRUCT_VERSION(nvmlTemperature_t, 1))
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    result = nvmlDeviceGetTemperature(device, temperature->sensorType, &celsius);
    if (result == NVML_SUCCESS)
        temperature->temperature = (int)celsius;
    return result;
}

NVML_API nvmlReturn_t nvmlDeviceGetTemperatureThreshold(nvmlDevice_t device, unsigned int threshold,
                                                        unsigned int *celsius)
{
    /* By NVML_TEMPERATURE_THRESHOLD_*; these cards have no further thresholds. */
    static const char *const keys[] = {"temperature_shutdown_c", "temperature_slowdown_c", NULL, "temperature_max_c"};
    if (threshold >= 8)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (threshold >= sizeof(keys) / sizeof(keys[0]) || keys[threshold] == NULL)
        return session_check() == NVML_SUCCESS ? NVML_ERROR_NOT_SUPPORTED : NVML_ERROR_UNINITIALIZED;
    return gpu_unsigned(device, keys[threshold], 1, celsius);
}

NVML_API nvmlReturn_t nvmlDeviceGetMarginTemperature(nvmlDevice_t device, nvmlMarginTemperature_t *margin)
{
    double now, maximum;
    nvmlReturn_t result = gpu_number(device, "temperature_c", &now);
    if (result == NVML_SUCCESS)
        result = gpu_number(device, "temperature_max_c", &maximum);
    if (result != NVML_SUCCESS)
        return result;
    if (margin == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (margin->version != NVML_STRUCT_VERSION(nvmlMarginTemperature_t, 1))
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    margin->marginTemperature = (int)(maximum - now);
    return NVML_SUCCESS;
}

/* ---- fans --------------------------------------------------------------------------------- */

NUMBER_GETTER(nvmlDeviceGetNumFans, "fan_count")
NUMBER_GETTER(nvmlDeviceGetFanSpeed, "fan_speed_percent")

NVML_API nvmlReturn_t nvmlDeviceGetFanSpeed_v2(nvmlDevice_t device, unsigned int fan, unsigned int *percent)
{
    unsigned int count;
    nvmlReturn_t result = nvmlDeviceGetNumFans(device, &count);
    if (result != NVML_SUCCESS)
        return result;
    return fan < count ? nvmlDeviceGetFanSpeed(device, percent) : NVML_ERROR_INVALID_ARGUMENT;
}

NVML_API nvmlReturn_t nvmlDeviceGetTargetFanSpeed(nvmlDevice_t device, unsigned int fan, unsigned int *percent)
{
    return nvmlDeviceGetFanSpeed_v2(device, fan, percent);
}

NVML_API nvmlReturn_t nvmlDeviceGetFanSpeedRPM(nvmlDevice_t device, nvmlFanSpeedInfo_t *info)
{
    if (info == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (info->version != NVML_STRUCT_VERSION(nvmlFanSpeedInfo_t, 1))
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    return gpu_unsigned(device, "fan_speed_rpm", 1, &info->speed);
}

/* ---- load and clocks ---------------------------------------------------------------------- */

NVML_API nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t *rates)
{
    nvmlReturn_t result;
    if (rates == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    result = gpu_unsigned(device, "utilization_percent", 1, &rates->gpu);
    return result == NVML_SUCCESS ? gpu_unsigned(device, "memory_utilization_percent", 1, &rates->memory) : result;
}

static nvmlReturn_t engine_utilization(nvmlDevice_t device, const char *key, unsigned int *percent,
                                       unsigned int *period)
{
    if (period == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    *period = SAMPLING_PERIOD;
    return gpu_unsigned(device, key, 1, percent);
}

NVML_API nvmlReturn_t nvmlDeviceGetEncoderUtilization(nvmlDevice_t device, unsigned int *percent, unsigned int *period)
{
    return engine_utilization(device, "encoder_utilization_percent", percent, period);
}

NVML_API nvmlReturn_t nvmlDeviceGetDecoderUtilization(nvmlDevice_t device, unsigned int *percent, unsigned int *period)
{
    return engine_utilization(device, "decoder_utilization_percent", percent, period);
}

/* By NVML_CLOCK_*. */
static const char *const clock_keys[] = {"clock_graphics_mhz", "clock_sm_mhz", "clock_memory_mhz", "clock_video_mhz"};
static const char *const maximum_clock_keys[] = {"clock_graphics_max_mhz", "clock_sm_max_mhz", "clock_memory_max_mhz",
                                                 "clock_video_max_mhz"};

NVML_API nvmlReturn_t nvmlDeviceGetClockInfo(nvmlDevice_t device, unsigned int type, unsigned int *mhz)
{
    return type < 4 ? gpu_unsigned(device, clock_keys[type], 1, mhz) : NVML_ERROR_INVALID_ARGUMENT;
}

NVML_API nvmlReturn_t nvmlDeviceGetMaxClockInfo(nvmlDevice_t device, unsigned int type, unsigned int *mhz)
{
    return type < 4 ? gpu_unsigned(device, maximum_clock_keys[type], 1, mhz) : NVML_ERROR_INVALID_ARGUMENT;
}

NVML_API nvmlReturn_t nvmlDeviceGetClock(nvmlDevice_t device, unsigned int type, unsigned int id, unsigned int *mhz)
{
    /* NVML_CLOCK_ID_CURRENT; the others belong to cards with application clocks. */
    return id == 0 ? nvmlDeviceGetClockInfo(device, type, mhz) : NVML_ERROR_NOT_SUPPORTED;
}

NUMBER_GETTER(nvmlDeviceGetPerformanceState, "performance_state")
NUMBER_GETTER(nvmlDeviceGetPowerState, "performance_state")

NVML_API nvmlReturn_t nvmlDeviceGetCurrentClocksEventReasons(nvmlDevice_t device, unsigned long long *reasons)
{
    double value;
    nvmlReturn_t result = gpu_number(device, "clocks_event_reasons", &value);
    if (result != NVML_SUCCESS)
        return result;
    if (reasons == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    *reasons = (unsigned long long)value;
    return NVML_SUCCESS;
}

NVML_API nvmlReturn_t nvmlDeviceGetCurrentClocksThrottleReasons(nvmlDevice_t device, unsigned long long *reasons)
{
    return nvmlDeviceGetCurrentClocksEventReasons(device, reasons);
}

NVML_API nvmlReturn_t nvmlDeviceGetSupportedClocksEventReasons(nvmlDevice_t device, unsigned long long *reasons)
{
    nvmlReturn_t result = nvmlDeviceGetCurrentClocksEventReasons(device, reasons);
    if (result == NVML_SUCCESS)
        *reasons = 0x1FF; /* every reason up to DisplayClockSetting */
    return result;
}

NVML_API nvmlReturn_t nvmlDeviceGetSupportedClocksThrottleReasons(nvmlDevice_t device, unsigned long long *reasons)
{
    return nvmlDeviceGetSupportedClocksEventReasons(device, reasons);
}

/* ---- ECC ---------------------------------------------------------------------------------- */

NVML_API nvmlReturn_t nvmlDeviceGetEccMode(nvmlDevice_t device, unsigned int *current, unsigned int *pending)
{
    nvmlReturn_t result = gpu_unsigned(device, "ecc_mode", 1, current);
    if (result != NVML_SUCCESS)
        return result;
    if (pending == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    *pending = *current;
    return NVML_SUCCESS;
}

NVML_API nvmlReturn_t nvmlDeviceGetTotalEccErrors(nvmlDevice_t device, unsigned int type, unsigned int counter,
                                                  unsigned long long *count)
{
    static const char *const keys[] = {"ecc_corrected", "ecc_uncorrected"};
    unsigned int mode, pending;
    double value;
    nvmlReturn_t result = nvmlDeviceGetEccMode(device, &mode, &pending);
    if (result != NVML_SUCCESS)
        return result;
    if (type > 1 || counter > 1 || count == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (mode == 0)
        return NVML_ERROR_NOT_SUPPORTED;
    result = gpu_number(device, keys[type], &value);
    if (result == NVML_SUCCESS)
        *count = (unsigned long long)value;
    return result;
}

NVML_API nvmlReturn_t nvmlDeviceGetMemoryErrorCounter(nvmlDevice_t device, unsigned int type, unsigned int counter,
                                                      unsigned int location, unsigned long long *count)
{
    if (location >= 8)
        return NVML_ERROR_INVALID_ARGUMENT;
    /* All errors are counted in the device's DRAM. */
    if (location != 2)
        return NVML_ERROR_NOT_SUPPORTED;
    return nvmlDeviceGetTotalEccErrors(device, type, counter, count);
}
