/* Event sets: Xid errors that are appended to the state are delivered once to each set. */
#include "nvml.h"
#include "session.h"
#include "state.h"

#include <pthread.h>
#include <string.h>
#include <time.h>

#define XID_CRITICAL_ERROR 0x8ULL
#define SET_LIMIT 64
#define REGISTRATION_LIMIT 16
/* How often a waiting call looks at the state, in milliseconds. */
#define POLL_INTERVAL 50
#define NO_INSTANCE 0xFFFFFFFFu

struct registration {
    nvmlDevice_t device;
    double delivered; /* the sequence number of the last event that this set needs no more */
};

struct nvmlEventSet_st {
    int used;
    unsigned int count;
    struct registration registrations[REGISTRATION_LIMIT];
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct nvmlEventSet_st sets[SET_LIMIT];

static int known(nvmlEventSet_t set)
{
    for (unsigned int i = 0; i < SET_LIMIT; i++)
        if (set == &sets[i])
            return set->used;
    return 0;
}

NVML_API nvmlReturn_t nvmlEventSetCreate(nvmlEventSet_t *set)
{
    nvmlReturn_t result = session_check();
    if (result != NVML_SUCCESS)
        return result;
    if (set == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    result = NVML_ERROR_MEMORY;
    pthread_mutex_lock(&mutex);
    for (unsigned int i = 0; i < SET_LIMIT; i++)
        if (!sets[i].used) {
            sets[i].used = 1;
            sets[i].count = 0;
            *set = &sets[i];
            result = NVML_SUCCESS;
            break;
        }
    pthread_mutex_unlock(&mutex);
    return result;
}

NVML_API nvmlReturn_t nvmlEventSetFree(nvmlEventSet_t set)
{
    nvmlReturn_t result = session_check();
    if (result != NVML_SUCCESS)
        return result;
    pthread_mutex_lock(&mutex);
    if (known(set))
        set->used = 0;
    else
        result = NVML_ERROR_INVALID_ARGUMENT;
    pthread_mutex_unlock(&mutex);
    return result;
}

NVML_API nvmlReturn_t nvmlDeviceGetSupportedEventTypes(nvmlDevice_t device, unsigned long long *types)
{
    struct gpu gpu;
    nvmlReturn_t result = gpu_open(device, &gpu);
    if (result != NVML_SUCCESS)
        return result;
    gpu_close(&gpu);
    if (types == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    *types = XID_CRITICAL_ERROR;
    return NVML_SUCCESS;
}

NVML_API nvmlReturn_t nvmlDeviceRegisterEvents(nvmlDevice_t device, unsigned long long types, nvmlEventSet_t set)
{
    struct gpu gpu;
    double sequence = 0;
    nvmlReturn_t result = gpu_open(device, &gpu);
    if (result != NVML_SUCCESS)
        return result;
    json_number(json_member(json_member(gpu.state, "system"), "xid_sequence"), &sequence);
    gpu_close(&gpu);
    if ((types & ~XID_CRITICAL_ERROR) != 0)
        return NVML_ERROR_NOT_SUPPORTED;
    pthread_mutex_lock(&mutex);
    if (!known(set)) {
        result = NVML_ERROR_INVALID_ARGUMENT;
    } else if (types != 0) {
        unsigned int i = 0;
        while (i < set->count && set->registrations[i].device != device)
            i++;
        if (i == REGISTRATION_LIMIT)
            result = NVML_ERROR_MEMORY;
        else if (i == set->count) {
            /* What happened before does not concern this set. */
            set->registrations[i] = (struct registration){device, sequence};
            set->count++;
        }
    }
    pthread_mutex_unlock(&mutex);
    return result;
}

/* Takes the oldest event that the set has not delivered yet; NVML_ERROR_TIMEOUT when there is none. */
static nvmlReturn_t take_event(nvmlEventSet_t set, nvmlEventData_t *data)
{
    struct json *state = state_read();
    struct registration *from = NULL;
    double oldest = 0, sequence, code;
    nvmlReturn_t result = NVML_ERROR_TIMEOUT;

    if (state == NULL)
        return NVML_ERROR_UNKNOWN;
    pthread_mutex_lock(&mutex);
    if (!known(set))
        result = NVML_ERROR_INVALID_ARGUMENT;
    for (unsigned int i = 0; result != NVML_ERROR_INVALID_ARGUMENT && i < set->count; i++) {
        struct registration *registration = &set->registrations[i];
        struct json *events = json_member(gpu_record(state, registration->device), "xid_events");
        for (struct json *event = events != NULL ? events->child : NULL; event != NULL; event = event->next) {
            if (!json_number(json_member(event, "sequence"), &sequence) || sequence <= registration->delivered ||
                (from != NULL && sequence >= oldest) || !json_number(json_member(event, "code"), &code))
                continue;
            from = registration;
            oldest = sequence;
            *data = (nvmlEventData_t){registration->device, XID_CRITICAL_ERROR, (unsigned long long)code, NO_INSTANCE,
                                      NO_INSTANCE};
        }
    }
    if (from != NULL) {
        from->delivered = oldest;
        result = NVML_SUCCESS;
    }
    pthread_mutex_unlock(&mutex);
    json_free(state);
    return result;
}

NVML_API nvmlReturn_t nvmlEventSetWait_v2(nvmlEventSet_t set, nvmlEventData_t *data, unsigned int timeout_ms)
{
    nvmlReturn_t result = session_check();
    unsigned int step;
    if (result != NVML_SUCCESS)
        return result;
    if (data == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    while ((result = take_event(set, data)) == NVML_ERROR_TIMEOUT && timeout_ms > 0) {
        step = timeout_ms < POLL_INTERVAL ? timeout_ms : POLL_INTERVAL;
        nanosleep(&(struct timespec){0, step * 1000000L}, NULL);
        timeout_ms -= step;
    }
    return result;
}

NVML_API nvmlReturn_t nvmlEventSetWait(nvmlEventSet_t set, nvmlEventData_t *data, unsigned int timeout_ms)
{
    return nvmlEventSetWait_v2(set, data, timeout_ms);
}
