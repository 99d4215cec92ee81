/* Power and persistence: the values that can be set through NVML. */
#include "nvml.h"
#include "session.h"
#include "state.h"

#include <stdio.h>
#include <string.h>

#define MILLIWATTS 1000

#define POWER_GETTER(function, key)                                                            \
    NVML_API nvmlReturn_t function(nvmlDevice_t device, unsigned int *milliwatts)              \
    {                                                                                          \
        return gpu_unsigned(device, key, MILLIWATTS, milliwatts);                              \
    }

POWER_GETTER(nvmlDeviceGetPowerUsage, "power_usage_w")
POWER_GETTER(nvmlDeviceGetPowerManagementLimit, "power_limit_w")
POWER_GETTER(nvmlDeviceGetEnforcedPowerLimit, "power_limit_w")
POWER_GETTER(nvmlDeviceGetPowerManagementDefaultLimit, "power_limit_default_w")

NVML_API nvmlReturn_t nvmlDeviceGetPowerManagementLimitConstraints(nvmlDevice_t device, unsigned int *minimum,
                                                                   unsigned int *maximum)
{
    nvmlReturn_t result = gpu_unsigned(device, "power_limit_min_w", MILLIWATTS, minimum);
    return result == NVML_SUCCESS ? gpu_unsigned(device, "power_limit_max_w", MILLIWATTS, maximum) : result;
}

NVML_API nvmlReturn_t nvmlDeviceGetPowerManagementMode(nvmlDevice_t device, unsigned int *mode)
{
    nvmlReturn_t result = gpu_unsigned(device, "power_limit_w", 1, mode);
    if (result == NVML_SUCCESS)
        *mode = 1;
    return result;
}

NVML_API nvmlReturn_t nvmlDeviceGetTotalEnergyConsumption(nvmlDevice_t device, unsigned long long *millijoules)
{
    double value;
    nvmlReturn_t result = gpu_number(device, "energy_mj", &value);
    if (result != NVML_SUCCESS)
        return result;
    if (millijoules == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    *millijoules = (unsigned long long)value;
    return NVML_SUCCESS;
}

/* ---- setting ------------------------------------------------------------------------------ */

struct setting {
    nvmlDevice_t device;
    const char *key;
    const char *digits;
};

static nvmlReturn_t apply(struct json *state, const void *argument)
{
    const struct setting *setting = argument;
    struct json *value = json_member(gpu_record(state, setting->device), setting->key);
    if (value == NULL)
        return NVML_ERROR_NOT_SUPPORTED;
    return json_set_number(value, setting->digits) ? NVML_SUCCESS : NVML_ERROR_MEMORY;
}

NVML_API nvmlReturn_t nvmlDeviceSetPowerManagementLimit(nvmlDevice_t device, unsigned int milliwatts)
{
    char digits[32];
    struct setting setting = {device, "power_limit_w", digits};
    unsigned int minimum, maximum;
    nvmlReturn_t result = nvmlDeviceGetPowerManagementLimitConstraints(device, &minimum, &maximum);
    if (result != NVML_SUCCESS)
        return result;
    if (milliwatts < minimum || milliwatts > maximum)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (milliwatts % MILLIWATTS == 0)
        snprintf(digits, sizeof(digits), "%u", milliwatts / MILLIWATTS);
    else
        snprintf(digits, sizeof(digits), "%u.%03u", milliwatts / MILLIWATTS, milliwatts % MILLIWATTS);
    return state_update(apply, &setting);
}

NVML_API nvmlReturn_t nvmlDeviceSetPowerManagementLimit_v2(nvmlDevice_t device, const nvmlPowerValue_v2_t *value)
{
    if (value == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (value->version != NVML_STRUCT_VERSION(nvmlPowerValue_v2_t, 2))
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    if (value->powerScope != 0) /* NVML_POWER_SCOPE_GPU */
        return NVML_ERROR_NOT_SUPPORTED;
    return nvmlDeviceSetPowerManagementLimit(device, value->powerValueMw);
}

NVML_API nvmlReturn_t nvmlDeviceGetPersistenceMode(nvmlDevice_t device, unsigned int *mode)
{
    return gpu_unsigned(device, "persistence_mode", 1, mode);
}

NVML_API nvmlReturn_t nvmlDeviceSetPersistenceMode(nvmlDevice_t device, unsigned int mode)
{
    struct setting setting = {device, "persistence_mode", mode != 0 ? "1" : "0"};
    unsigned int now;
    nvmlReturn_t result = nvmlDeviceGetPersistenceMode(device, &now);
    if (result != NVML_SUCCESS)
        return result;
    return mode <= 1 ? state_update(apply, &setting) : NVML_ERROR_INVALID_ARGUMENT;
}
