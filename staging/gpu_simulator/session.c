#include "session.h"
#include "nvml.h"
#include "state.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define DEVICE_LIMIT 16

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static unsigned int references;
/* Handles given out in this process, in the order of first use. */
static struct nvmlDevice_st devices[DEVICE_LIMIT];
/* The GPUs that the last nvmlInit found, in the order of the state. */
static nvmlDevice_t enumerated[DEVICE_LIMIT];
static unsigned int enumerated_count;

static nvmlDevice_t find_or_add_handle(const char *uuid)
{
    for (unsigned int i = 0; i < DEVICE_LIMIT; i++) {
        if (strcmp(devices[i].uuid, uuid) == 0)
            return &devices[i];
        if (devices[i].uuid[0] == '\0') {
            if (copy_text(devices[i].uuid, sizeof(devices[i].uuid), uuid) != NVML_SUCCESS)
                return NULL;
            return &devices[i];
        }
    }
    return NULL;
}

nvmlDevice_t session_handle(const char *uuid)
{
    nvmlDevice_t device;
    pthread_mutex_lock(&mutex);
    device = find_or_add_handle(uuid);
    pthread_mutex_unlock(&mutex);
    return device;
}

int session_knows(nvmlDevice_t device)
{
    for (unsigned int i = 0; i < DEVICE_LIMIT; i++)
        if (device == &devices[i])
            return device->uuid[0] != '\0';
    return 0;
}

nvmlReturn_t session_check(void)
{
    nvmlReturn_t result;
    pthread_mutex_lock(&mutex);
    result = references > 0 ? NVML_SUCCESS : NVML_ERROR_UNINITIALIZED;
    pthread_mutex_unlock(&mutex);
    return result;
}

unsigned int session_count(void)
{
    return enumerated_count;
}

nvmlDevice_t session_device(unsigned int index)
{
    return index < enumerated_count ? enumerated[index] : NULL;
}

int gpu_present(const struct json *state, const struct json *record)
{
    const char *directory = json_string(json_member(json_member(state, "system"), "device_directory"));
    char path[256];
    double value;

    if (json_number(json_member(record, "dropped"), &value) && value != 0)
        return 0;
    if (directory == NULL || !json_number(json_member(record, "minor_number"), &value))
        return 1;
    snprintf(path, sizeof(path), "%s/nvidia%u", directory, (unsigned int)value);
    return access(path, F_OK) == 0;
}

/* Whether the driver would accept this library, and which GPUs it would show. */
static nvmlReturn_t enumerate(void)
{
    char loaded[80];
    const char *library, *uuid;
    struct json *state, *record;
    nvmlReturn_t result = NVML_SUCCESS;

    if (!module_version(loaded, sizeof(loaded)))
        return NVML_ERROR_DRIVER_NOT_LOADED;
    state = state_read();
    if (state == NULL) {
        fprintf(stderr, "gpu simulator: no valid state at %s; make one with `control.py init`\n", state_path());
        return NVML_ERROR_UNKNOWN;
    }
    library = json_string(json_member(json_member(state, "driver"), "library_version"));
    if (library == NULL || strcmp(library, loaded) != 0)
        result = NVML_ERROR_LIB_RM_VERSION_MISMATCH;
    enumerated_count = 0;
    for (unsigned int i = 0; result == NVML_SUCCESS && enumerated_count < DEVICE_LIMIT; i++) {
        record = json_element(json_member(state, "gpus"), i);
        if (record == NULL)
            break;
        uuid = json_string(json_member(record, "uuid"));
        if (uuid == NULL || !gpu_present(state, record))
            continue;
        enumerated[enumerated_count] = find_or_add_handle(uuid);
        if (enumerated[enumerated_count] == NULL)
            result = NVML_ERROR_MEMORY;
        else
            enumerated_count++;
    }
    json_free(state);
    return result;
}

NVML_API nvmlReturn_t nvmlInitWithFlags(unsigned int flags)
{
    nvmlReturn_t result = NVML_SUCCESS;
    (void)flags;
    pthread_mutex_lock(&mutex);
    if (references == 0)
        result = enumerate();
    if (result == NVML_SUCCESS)
        references++;
    pthread_mutex_unlock(&mutex);
    return result;
}

NVML_API nvmlReturn_t nvmlInit_v2(void)
{
    return nvmlInitWithFlags(0);
}

NVML_API nvmlReturn_t nvmlInit(void)
{
    return nvmlInitWithFlags(0);
}

NVML_API nvmlReturn_t nvmlShutdown(void)
{
    nvmlReturn_t result = NVML_SUCCESS;
    pthread_mutex_lock(&mutex);
    if (references == 0)
        result = NVML_ERROR_UNINITIALIZED;
    else
        references--;
    pthread_mutex_unlock(&mutex);
    return result;
}

struct json *gpu_record(const struct json *state, nvmlDevice_t device)
{
    const char *uuid;
    struct json *record;
    for (unsigned int i = 0; (record = json_element(json_member(state, "gpus"), i)) != NULL; i++) {
        uuid = json_string(json_member(record, "uuid"));
        if (uuid != NULL && strcmp(uuid, device->uuid) == 0)
            return record;
    }
    return NULL;
}

nvmlReturn_t gpu_open(nvmlDevice_t device, struct gpu *gpu)
{
    nvmlReturn_t result = session_check();
    if (result != NVML_SUCCESS)
        return result;
    if (!session_knows(device))
        return NVML_ERROR_INVALID_ARGUMENT;
    gpu->state = state_read();
    if (gpu->state == NULL)
        return NVML_ERROR_UNKNOWN;
    gpu->record = gpu_record(gpu->state, device);
    if (gpu->record == NULL || !gpu_present(gpu->state, gpu->record)) {
        gpu_close(gpu);
        return NVML_ERROR_GPU_IS_LOST;
    }
    return NVML_SUCCESS;
}

void gpu_close(struct gpu *gpu)
{
    json_free(gpu->state);
    gpu->state = NULL;
    gpu->record = NULL;
}

nvmlReturn_t gpu_number(nvmlDevice_t device, const char *key, double *value)
{
    struct gpu gpu;
    nvmlReturn_t result = gpu_open(device, &gpu);
    if (result != NVML_SUCCESS)
        return result;
    if (!json_number(json_member(gpu.record, key), value))
        result = NVML_ERROR_NOT_SUPPORTED;
    gpu_close(&gpu);
    return result;
}

nvmlReturn_t gpu_unsigned(nvmlDevice_t device, const char *key, double scale, unsigned int *value)
{
    double number;
    nvmlReturn_t result = gpu_number(device, key, &number);
    if (result != NVML_SUCCESS)
        return result;
    if (value == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    *value = number > 0 ? (unsigned int)(number * scale + 0.5) : 0;
    return NVML_SUCCESS;
}

nvmlReturn_t copy_text(char *text, unsigned int length, const char *from)
{
    if (text == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (strlen(from) >= length)
        return NVML_ERROR_INSUFFICIENT_SIZE;
    strcpy(text, from);
    return NVML_SUCCESS;
}

nvmlReturn_t gpu_text(nvmlDevice_t device, const char *key, char *text, unsigned int length)
{
    struct gpu gpu;
    const char *found;
    nvmlReturn_t result = gpu_open(device, &gpu);
    if (result != NVML_SUCCESS)
        return result;
    found = json_string(json_member(gpu.record, key));
    result = found != NULL ? copy_text(text, length, found) : NVML_ERROR_NOT_SUPPORTED;
    gpu_close(&gpu);
    return result;
}
