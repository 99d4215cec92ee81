/* Functions about the machine and the driver, and those that find a GPU. */
#include "nvml.h"
#include "pci.h"
#include "session.h"
#include "state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

NVML_API const char *nvmlErrorString(nvmlReturn_t result)
{
    static const struct {
        nvmlReturn_t result;
        const char *text;
    } texts[] = {
        {NVML_SUCCESS, "Success"},
        {NVML_ERROR_UNINITIALIZED, "Uninitialized"},
        {NVML_ERROR_INVALID_ARGUMENT, "Invalid Argument"},
        {NVML_ERROR_NOT_SUPPORTED, "Not Supported"},
        {NVML_ERROR_NO_PERMISSION, "Insufficient Permissions"},
        {NVML_ERROR_NOT_FOUND, "Not Found"},
        {NVML_ERROR_INSUFFICIENT_SIZE, "Insufficient Size"},
        {NVML_ERROR_DRIVER_NOT_LOADED, "Driver Not Loaded"},
        {NVML_ERROR_TIMEOUT, "Timeout"},
        {NVML_ERROR_GPU_IS_LOST, "GPU is lost"},
        {NVML_ERROR_LIB_RM_VERSION_MISMATCH, "Driver/library version mismatch"},
        {NVML_ERROR_MEMORY, "Insufficient Memory"},
        {NVML_ERROR_ARGUMENT_VERSION_MISMATCH, "Argument version mismatch"},
    };
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        if (texts[i].result == result)
            return texts[i].text;
    return "Unknown Error";
}

/* A text of the state's `driver`, with `prefix` before it. NVML gives versions without nvmlInit too,
   but not without a driver; here they need a session, as nvidia-ml-py's users have one. */
static nvmlReturn_t driver_text(const char *key, const char *prefix, char *text, unsigned int length)
{
    char joined[128];
    struct json *state;
    const char *found;
    nvmlReturn_t result = session_check();
    if (result != NVML_SUCCESS)
        return result;
    state = state_read();
    found = json_string(json_member(json_member(state, "driver"), key));
    if (found == NULL) {
        result = NVML_ERROR_UNKNOWN;
    } else {
        snprintf(joined, sizeof(joined), "%s%s", prefix, found);
        result = copy_text(text, length, joined);
    }
    json_free(state);
    return result;
}

NVML_API nvmlReturn_t nvmlSystemGetDriverVersion(char *version, unsigned int length)
{
    return driver_text("library_version", "", version, length);
}

/* As NVML does: the major CUDA version before the driver's. */
NVML_API nvmlReturn_t nvmlSystemGetNVMLVersion(char *version, unsigned int length)
{
    char cuda[32], prefix[40];
    nvmlReturn_t result = driver_text("cuda_version", "", cuda, sizeof(cuda));
    if (result != NVML_SUCCESS)
        return result;
    snprintf(prefix, sizeof(prefix), "%.*s.", (int)strcspn(cuda, "."), cuda);
    return driver_text("library_version", prefix, version, length);
}

NVML_API nvmlReturn_t nvmlSystemGetDriverBranch(nvmlSystemDriverBranchInfo_t *info, unsigned int length)
{
    char version[80];
    nvmlReturn_t result;
    if (info == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (info->version != NVML_STRUCT_VERSION(nvmlSystemDriverBranchInfo_t, 1))
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    result = driver_text("library_version", "r", version, sizeof(version));
    if (result != NVML_SUCCESS)
        return result;
    version[strcspn(version, ".")] = '\0';
    return copy_text(info->branch, length < sizeof(info->branch) ? length : sizeof(info->branch), version);
}

NVML_API nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int *version)
{
    char text[32];
    const char *minor;
    nvmlReturn_t result = driver_text("cuda_version", "", text, sizeof(text));
    if (result != NVML_SUCCESS)
        return result;
    if (version == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    minor = strchr(text, '.');
    *version = atoi(text) * 1000 + (minor != NULL ? atoi(minor + 1) * 10 : 0);
    return NVML_SUCCESS;
}

NVML_API nvmlReturn_t nvmlSystemGetCudaDriverVersion(int *version)
{
    return nvmlSystemGetCudaDriverVersion_v2(version);
}

NVML_API nvmlReturn_t nvmlDeviceGetCount_v2(unsigned int *count)
{
    nvmlReturn_t result = session_check();
    if (result != NVML_SUCCESS)
        return result;
    if (count == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    *count = session_count();
    return NVML_SUCCESS;
}

NVML_API nvmlReturn_t nvmlDeviceGetCount(unsigned int *count)
{
    return nvmlDeviceGetCount_v2(count);
}

NVML_API nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t *device)
{
    struct gpu gpu;
    nvmlReturn_t result = session_check();
    if (result != NVML_SUCCESS)
        return result;
    if (device == NULL || session_device(index) == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    result = gpu_open(session_device(index), &gpu);
    if (result != NVML_SUCCESS)
        return result;
    gpu_close(&gpu);
    *device = session_device(index);
    return NVML_SUCCESS;
}

NVML_API nvmlReturn_t nvmlDeviceGetHandleByIndex(unsigned int index, nvmlDevice_t *device)
{
    return nvmlDeviceGetHandleByIndex_v2(index, device);
}

static int same_text(const char *found, const char *wanted)
{
    return strcmp(found, wanted) == 0;
}

static int same_pci_address(const char *found, const char *wanted)
{
    struct pci_address left, right;
    return pci_parse(found, &left) && pci_parse(wanted, &right) && left.domain == right.domain &&
           left.bus == right.bus && left.device == right.device;
}

/* The handle of the enumerated GPU whose text at `key` equals `wanted`. */
static nvmlReturn_t find_device(const char *key, const char *wanted, int (*equal)(const char *, const char *),
                                nvmlDevice_t *device)
{
    struct json *state;
    nvmlReturn_t result = session_check();
    if (result != NVML_SUCCESS)
        return result;
    if (wanted == NULL || device == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    state = state_read();
    if (state == NULL)
        return NVML_ERROR_UNKNOWN;
    result = NVML_ERROR_NOT_FOUND;
    for (unsigned int i = 0; i < session_count(); i++) {
        struct json *record = gpu_record(state, session_device(i));
        const char *found = json_string(json_member(record, key));
        if (found == NULL || !equal(found, wanted))
            continue;
        result = gpu_present(state, record) ? NVML_SUCCESS : NVML_ERROR_GPU_IS_LOST;
        *device = session_device(i);
    }
    json_free(state);
    return result;
}

NVML_API nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *device)
{
    return find_device("uuid", uuid, same_text, device);
}

NVML_API nvmlReturn_t nvmlDeviceGetHandleByUUIDV(const nvmlUUID_t *uuid, nvmlDevice_t *device)
{
    char text[sizeof(uuid->value.str) + 1];
    if (uuid == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (uuid->version != NVML_STRUCT_VERSION(nvmlUUID_t, 1))
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    /* 1 is the ASCII form; nothing here asks for the binary one. */
    if (uuid->type != 1)
        return NVML_ERROR_NOT_SUPPORTED;
    snprintf(text, sizeof(text), "%.*s", (int)sizeof(uuid->value.str), uuid->value.str);
    return find_device("uuid", text, same_text, device);
}

NVML_API nvmlReturn_t nvmlDeviceGetHandleBySerial(const char *serial, nvmlDevice_t *device)
{
    return find_device("serial", serial, same_text, device);
}

NVML_API nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, nvmlDevice_t *device)
{
    return find_device("pci_bus_id", bus_id, same_pci_address, device);
}

NVML_API nvmlReturn_t nvmlDeviceGetHandleByPciBusId(const char *bus_id, nvmlDevice_t *device)
{
    return nvmlDeviceGetHandleByPciBusId_v2(bus_id, device);
}
