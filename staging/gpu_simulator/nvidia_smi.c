/* A simulated nvidia-smi: the overview, -L, --query-gpu, -pl and -pm, all through the library. */
#include "nvml.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MIB (1024ULL * 1024ULL)
#define NO_DEVICES 6 /* nvidia-smi's exit status; otherwise it is the number of the NVML error */

enum kind { TEXT, MILLIWATTS, MEBIBYTES, NUMBER, PERCENT, SWITCH, PSTATE };

/* A value as --query-gpu prints it; NVML_SUCCESS or why there is none. */
struct value {
    enum kind kind;
    char text[96];
    unsigned int number;
};

typedef nvmlReturn_t (*text_call)(nvmlDevice_t, char *, unsigned int);
typedef nvmlReturn_t (*number_call)(nvmlDevice_t, unsigned int *);

static const struct {
    const char *name;
    text_call call;
} text_fields[] = {
    {"name", nvmlDeviceGetName},
    {"gpu_name", nvmlDeviceGetName},
    {"uuid", nvmlDeviceGetUUID},
    {"gpu_uuid", nvmlDeviceGetUUID},
    {"serial", nvmlDeviceGetSerial},
    {"gpu_serial", nvmlDeviceGetSerial},
    {"vbios_version", nvmlDeviceGetVbiosVersion},
};

static const struct {
    const char *name;
    number_call call;
    enum kind kind;
} number_fields[] = {
    {"index", nvmlDeviceGetIndex, NUMBER},
    {"power.draw", nvmlDeviceGetPowerUsage, MILLIWATTS},
    {"power.limit", nvmlDeviceGetPowerManagementLimit, MILLIWATTS},
    {"power.default_limit", nvmlDeviceGetPowerManagementDefaultLimit, MILLIWATTS},
    {"persistence_mode", nvmlDeviceGetPersistenceMode, SWITCH},
    {"display_active", nvmlDeviceGetDisplayActive, SWITCH},
    {"fan.speed", nvmlDeviceGetFanSpeed, PERCENT},
    {"pstate", nvmlDeviceGetPerformanceState, PSTATE},
    {"pcie.link.gen.current", nvmlDeviceGetCurrPcieLinkGeneration, NUMBER},
    {"pcie.link.gen.max", nvmlDeviceGetMaxPcieLinkGeneration, NUMBER},
    {"pcie.link.width.current", nvmlDeviceGetCurrPcieLinkWidth, NUMBER},
    {"pcie.link.width.max", nvmlDeviceGetMaxPcieLinkWidth, NUMBER},
};

/* Reads the fields that are part of something larger. 0 when there is no field of this name. */
static int read_part(nvmlDevice_t device, const char *name, struct value *value, nvmlReturn_t *result)
{
    nvmlMemory_t memory;
    nvmlUtilization_t rates;
    nvmlPciInfo_t pci;
    unsigned int low, high;
    int major, minor;

    if (strncmp(name, "memory.", 7) == 0) {
        value->kind = MEBIBYTES;
        *result = nvmlDeviceGetMemoryInfo(device, &memory);
        if (*result != NVML_SUCCESS)
            return 1;
        if (strcmp(name + 7, "total") == 0)
            value->number = (unsigned int)(memory.total / MIB);
        else if (strcmp(name + 7, "used") == 0)
            value->number = (unsigned int)(memory.used / MIB);
        else if (strcmp(name + 7, "free") == 0)
            value->number = (unsigned int)(memory.free / MIB);
        else
            return 0;
        return 1;
    }
    if (strcmp(name, "utilization.gpu") == 0 || strcmp(name, "utilization.memory") == 0) {
        value->kind = PERCENT;
        *result = nvmlDeviceGetUtilizationRates(device, &rates);
        value->number = strcmp(name, "utilization.gpu") == 0 ? rates.gpu : rates.memory;
        return 1;
    }
    if (strcmp(name, "power.min_limit") == 0 || strcmp(name, "power.max_limit") == 0) {
        value->kind = MILLIWATTS;
        *result = nvmlDeviceGetPowerManagementLimitConstraints(device, &low, &high);
        value->number = strcmp(name, "power.min_limit") == 0 ? low : high;
        return 1;
    }
    if (strcmp(name, "temperature.gpu") == 0) {
        value->kind = NUMBER;
        *result = nvmlDeviceGetTemperature(device, 0, &value->number);
        return 1;
    }
    if (strcmp(name, "pci.bus_id") == 0 || strcmp(name, "gpu_bus_id") == 0) {
        *result = nvmlDeviceGetPciInfo_v3(device, &pci);
        snprintf(value->text, sizeof(value->text), "%s", pci.busId);
        return 1;
    }
    if (strcmp(name, "compute_cap") == 0) {
        *result = nvmlDeviceGetCudaComputeCapability(device, &major, &minor);
        snprintf(value->text, sizeof(value->text), "%d.%d", major, minor);
        return 1;
    }
    return 0;
}

/* Reads one field of a GPU. 0 when there is no field of this name. */
static int read_field(nvmlDevice_t device, const char *name, struct value *value, nvmlReturn_t *result)
{
    memset(value, 0, sizeof(*value));
    if (strcmp(name, "driver_version") == 0) {
        *result = nvmlSystemGetDriverVersion(value->text, sizeof(value->text));
        return 1;
    }
    if (strcmp(name, "count") == 0) {
        value->kind = NUMBER;
        *result = nvmlDeviceGetCount_v2(&value->number);
        return 1;
    }
    for (size_t i = 0; i < sizeof(text_fields) / sizeof(text_fields[0]); i++)
        if (strcmp(text_fields[i].name, name) == 0) {
            *result = text_fields[i].call(device, value->text, sizeof(value->text));
            return 1;
        }
    for (size_t i = 0; i < sizeof(number_fields) / sizeof(number_fields[0]); i++)
        if (strcmp(number_fields[i].name, name) == 0) {
            value->kind = number_fields[i].kind;
            *result = number_fields[i].call(device, &value->number);
            return 1;
        }
    return read_part(device, name, value, result);
}

static void print_field(const struct value *value, nvmlReturn_t result, int units)
{
    if (result == NVML_ERROR_NOT_SUPPORTED)
        printf("[N/A]");
    else if (result != NVML_SUCCESS)
        printf("[%s]", nvmlErrorString(result));
    else if (value->kind == TEXT)
        printf("%s", value->text);
    else if (value->kind == MILLIWATTS)
        printf("%u.%02u%s", value->number / 1000, value->number % 1000 / 10, units ? " W" : "");
    else if (value->kind == MEBIBYTES)
        printf("%u%s", value->number, units ? " MiB" : "");
    else if (value->kind == PERCENT)
        printf("%u%s", value->number, units ? " %" : "");
    else if (value->kind == SWITCH)
        printf("%s", value->number ? "Enabled" : "Disabled");
    else
        printf("%s%u", value->kind == PSTATE ? "P" : "", value->number);
}

static const char *unit_of(enum kind kind)
{
    return kind == MILLIWATTS ? " [W]" : kind == MEBIBYTES ? " [MiB]" : kind == PERCENT ? " [%]" : "";
}

/* Prints the fields, named in a list with commas, of one GPU, or their names when `device` is NULL. */
static int print_row(nvmlDevice_t device, const char *fields, int names, int units)
{
    char *copy = strdup(fields), *rest, *name;
    struct value value;
    nvmlReturn_t result;
    int first = 1, status = 0;

    for (name = strtok_r(copy, ", ", &rest); name != NULL; name = strtok_r(NULL, ", ", &rest)) {
        if (!read_field(device, name, &value, &result)) {
            printf("Field \"%s\" is not a valid field to query (or not simulated).\n", name);
            status = 2;
            break;
        }
        printf("%s", first ? "" : ", ");
        if (names)
            printf("%s%s", name, units ? unit_of(value.kind) : "");
        else
            print_field(&value, result, units);
        first = 0;
    }
    if (status == 0)
        printf("\n");
    free(copy);
    return status;
}

static void print_overview(unsigned int count)
{
    char driver[80] = "?", name[96] = "?";
    int cuda = 0;
    nvmlSystemGetDriverVersion(driver, sizeof(driver));
    nvmlSystemGetCudaDriverVersion_v2(&cuda);
    printf("NVIDIA-SMI %s (simulated)   Driver Version: %s   CUDA Version: %d.%d\n", driver, driver, cuda / 1000,
           cuda % 1000 / 10);
    printf("These GPUs are simulated: there is no such hardware in this machine.\n\n");
    for (unsigned int i = 0; i < count; i++) {
        nvmlDevice_t device;
        nvmlMemory_t memory = {0, 0, 0};
        nvmlUtilization_t rates = {0, 0};
        unsigned int celsius = 0, usage = 0, limit = 0, pstate = 0;
        if (nvmlDeviceGetHandleByIndex_v2(i, &device) != NVML_SUCCESS ||
            nvmlDeviceGetName(device, name, sizeof(name)) != NVML_SUCCESS) {
            printf("GPU %u: GPU is lost\n", i);
            continue;
        }
        nvmlDeviceGetTemperature(device, 0, &celsius);
        nvmlDeviceGetPowerUsage(device, &usage);
        nvmlDeviceGetPowerManagementLimit(device, &limit);
        nvmlDeviceGetPerformanceState(device, &pstate);
        nvmlDeviceGetMemoryInfo(device, &memory);
        nvmlDeviceGetUtilizationRates(device, &rates);
        printf("%3u  %s (simulated)  P%u  %uC  %uW / %uW  %lluMiB / %lluMiB  %u%%\n", i, name, pstate, celsius,
               usage / 1000, limit / 1000, memory.used / MIB, memory.total / MIB, rates.gpu);
    }
}

static int print_list(unsigned int count)
{
    for (unsigned int i = 0; i < count; i++) {
        nvmlDevice_t device;
        char name[96] = "", uuid[96] = "";
        nvmlReturn_t result = nvmlDeviceGetHandleByIndex_v2(i, &device);
        if (result == NVML_SUCCESS)
            result = nvmlDeviceGetName(device, name, sizeof(name));
        if (result == NVML_SUCCESS)
            result = nvmlDeviceGetUUID(device, uuid, sizeof(uuid));
        if (result != NVML_SUCCESS)
            printf("Unable to determine the device handle for gpu %u: %s\n", i, nvmlErrorString(result));
        else
            printf("GPU %u: %s (UUID: %s) (simulated)\n", i, name, uuid);
    }
    return 0;
}

static int set_power_limit(nvmlDevice_t device, unsigned int milliwatts)
{
    nvmlPciInfo_t pci = {.busId = "?"};
    unsigned int before = 0, low = 0, high = 0;
    nvmlReturn_t result;
    nvmlDeviceGetPciInfo_v3(device, &pci);
    nvmlDeviceGetPowerManagementLimit(device, &before);
    nvmlDeviceGetPowerManagementLimitConstraints(device, &low, &high);
    result = nvmlDeviceSetPowerManagementLimit(device, milliwatts);
    if (result == NVML_ERROR_INVALID_ARGUMENT)
        printf("Provided power limit %u.%02u W is not a valid power limit which should be between %u.%02u W and "
               "%u.%02u W for GPU %s\n",
               milliwatts / 1000, milliwatts % 1000 / 10, low / 1000, low % 1000 / 10, high / 1000, high % 1000 / 10,
               pci.busId);
    else if (result != NVML_SUCCESS)
        printf("Failed to set power management limit for GPU %s: %s\n", pci.busId, nvmlErrorString(result));
    else
        printf("Power limit for GPU %s (simulated) was set to %u.%02u W from %u.%02u W.\n", pci.busId,
               milliwatts / 1000, milliwatts % 1000 / 10, before / 1000, before % 1000 / 10);
    return (int)result;
}

static int set_persistence(nvmlDevice_t device, unsigned int mode)
{
    nvmlPciInfo_t pci = {.busId = "?"};
    nvmlReturn_t result = nvmlDeviceSetPersistenceMode(device, mode);
    nvmlDeviceGetPciInfo_v3(device, &pci);
    if (result == NVML_SUCCESS)
        printf("%s persistence mode for GPU %s (simulated).\n", mode ? "Enabled" : "Disabled", pci.busId);
    else
        printf("Failed to set persistence mode for GPU %s: %s\n", pci.busId, nvmlErrorString(result));
    return (int)result;
}

/* The text behind an option given as `-x VALUE`, `--long VALUE` or `--long=VALUE`; NULL for another. */
static const char *option_value(char **arguments, int *at, int count, const char *brief, const char *full)
{
    size_t length = strlen(full);
    const char *argument = arguments[*at];
    if (strncmp(argument, full, length) == 0 && argument[length] == '=')
        return argument + length + 1;
    if ((strcmp(argument, brief) == 0 || strcmp(argument, full) == 0) && *at + 1 < count)
        return arguments[++*at];
    return NULL;
}

/* Finds a GPU by index, UUID or PCI address. */
static nvmlReturn_t find(const char *id, nvmlDevice_t *device)
{
    if (strncmp(id, "GPU-", 4) == 0)
        return nvmlDeviceGetHandleByUUID(id, device);
    if (strchr(id, ':') != NULL)
        return nvmlDeviceGetHandleByPciBusId_v2(id, device);
    return nvmlDeviceGetHandleByIndex_v2((unsigned int)atoi(id), device);
}

static int explain_failed_start(nvmlReturn_t result)
{
    if (result == NVML_ERROR_DRIVER_NOT_LOADED)
        printf("NVIDIA-SMI (simulated) has failed because it couldn't communicate with the NVIDIA driver. Make sure "
               "that the latest NVIDIA driver is installed and running.\n");
    else
        printf("Failed to initialize NVML (simulated): %s\n", nvmlErrorString(result));
    return (int)result;
}

struct options {
    const char *id, *fields, *format, *limit, *persistence;
    int list;
};

static int parse(int count, char **arguments, struct options *options)
{
    for (int i = 1; i < count; i++) {
        const char *value;
        if (strcmp(arguments[i], "-L") == 0 || strcmp(arguments[i], "--list-gpus") == 0)
            options->list = 1;
        else if ((value = option_value(arguments, &i, count, "-i", "--id")) != NULL)
            options->id = value;
        else if ((value = option_value(arguments, &i, count, "--query-gpu", "--query-gpu")) != NULL)
            options->fields = value;
        else if ((value = option_value(arguments, &i, count, "--format", "--format")) != NULL)
            options->format = value;
        else if ((value = option_value(arguments, &i, count, "-pl", "--power-limit")) != NULL)
            options->limit = value;
        else if ((value = option_value(arguments, &i, count, "-pm", "--persistence-mode")) != NULL)
            options->persistence = value;
        else {
            printf("Invalid combination of input arguments: %s is not simulated; known are -L, -i, --query-gpu, "
                   "--format, -pl, -pm.\n",
                   arguments[i]);
            return 2;
        }
    }
    return 0;
}

int main(int argc, char **argv)
{
    struct options options = {NULL, NULL, "csv", NULL, NULL, 0};
    unsigned int count = 0;
    int status = parse(argc, argv, &options);
    nvmlReturn_t result;

    if (status != 0)
        return status;
    result = nvmlInit_v2();
    if (result != NVML_SUCCESS)
        return explain_failed_start(result);
    nvmlDeviceGetCount_v2(&count);
    if (count == 0) {
        printf("No devices were found\n");
        return NO_DEVICES;
    }
    if (options.list)
        return print_list(count);
    if (options.fields == NULL && options.limit == NULL && options.persistence == NULL) {
        print_overview(count);
        return 0;
    }
    if (options.fields != NULL && strstr(options.format, "noheader") == NULL) {
        nvmlDevice_t any = NULL;
        nvmlDeviceGetHandleByIndex_v2(0, &any);
        status = print_row(any, options.fields, 1, strstr(options.format, "nounits") == NULL);
    }
    for (unsigned int i = 0; i < count && status == 0; i++) {
        nvmlDevice_t device;
        char index[16];
        snprintf(index, sizeof(index), "%u", i);
        if (options.id != NULL && i > 0)
            break;
        result = find(options.id != NULL ? options.id : index, &device);
        if (result != NVML_SUCCESS) {
            printf("Unable to determine the device handle for GPU %s: %s\n", options.id != NULL ? options.id : index,
                   nvmlErrorString(result));
            status = (int)result;
        } else if (options.limit != NULL)
            status = set_power_limit(device, (unsigned int)(atof(options.limit) * 1000 + 0.5));
        else if (options.persistence != NULL)
            status = set_persistence(device, strcmp(options.persistence, "1") == 0 ||
                                                 strcmp(options.persistence, "ENABLED") == 0);
        else
            status = print_row(device, options.fields, 0, strstr(options.format, "nounits") == NULL);
    }
    nvmlShutdown();
    return status;
}
