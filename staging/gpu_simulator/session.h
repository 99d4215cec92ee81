/* What lives in a process between nvmlInit and nvmlShutdown: the enumerated GPUs and their handles. */
#ifndef GPU_SIMULATOR_SESSION_H
#define GPU_SIMULATOR_SESSION_H

#include "json.h"
#include "nvml_types.h"

/* A handle stands for a card, by its UUID, for as long as the process lives. */
struct nvmlDevice_st {
    char uuid[96];
};

/* A GPU's record in a state that was read for one call. */
struct gpu {
    struct json *state;
    const struct json *record;
};

/* NVML_ERROR_UNINITIALIZED before nvmlInit and after the last nvmlShutdown. */
nvmlReturn_t session_check(void);
/* The handle for the card with this UUID; NULL when there are more cards than handles. */
nvmlDevice_t session_handle(const char *uuid);
/* 1 for a handle that session_handle gave out. */
int session_knows(nvmlDevice_t device);
/* The number of GPUs found by nvmlInit, and the one at `index` among them (NULL beyond the last). */
unsigned int session_count(void);
nvmlDevice_t session_device(unsigned int index);

/* Reads the state and finds the GPU. NVML_ERROR_GPU_IS_LOST when it fell off the bus, after which
   there is nothing to close, as after any other error. */
nvmlReturn_t gpu_open(nvmlDevice_t device, struct gpu *gpu);
void gpu_close(struct gpu *gpu);
/* The record of a card, dropped or not; NULL when the state has none. */
struct json *gpu_record(const struct json *state, nvmlDevice_t device);
/* 1 when this process can reach the card: neither fallen off the bus nor without its device node. */
int gpu_present(const struct json *state, const struct json *record);

/* One value of a GPU, read afresh. NVML_ERROR_NOT_SUPPORTED where the state says null or nothing. */
nvmlReturn_t gpu_number(nvmlDevice_t device, const char *key, double *value);
nvmlReturn_t gpu_unsigned(nvmlDevice_t device, const char *key, double scale, unsigned int *value);
nvmlReturn_t gpu_text(nvmlDevice_t device, const char *key, char *text, unsigned int length);
/* Copies `from` with its end into `text`; NVML_ERROR_INSUFFICIENT_SIZE where it does not fit. */
nvmlReturn_t copy_text(char *text, unsigned int length, const char *from);

#endif
