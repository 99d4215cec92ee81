/* The state file, and what says that the simulated module is loaded. */
#ifndef GPU_SIMULATOR_STATE_H
#define GPU_SIMULATOR_STATE_H

#include "json.h"
#include "nvml_types.h"

/* The path of the state file: $GPU_SIMULATOR_STATE, or /var/lib/gpu-simulator/state.json. */
const char *state_path(void);
/* The state as it is now, to be freed with json_free; NULL when it cannot be read. */
struct json *state_read(void);
/* Puts the version of the loaded module into `version`; 0 when no module is loaded. */
int module_version(char *version, unsigned int size);

/* Changes the tree; anything but NVML_SUCCESS leaves the file as it was. */
typedef nvmlReturn_t (*state_change)(struct json *state, const void *argument);
/* Reads, changes and replaces the state under the lock that control.py takes as well.
   NVML_ERROR_NO_PERMISSION where the caller may not write it. */
nvmlReturn_t state_update(state_change change, const void *argument);

#endif
