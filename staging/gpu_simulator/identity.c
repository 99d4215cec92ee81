/* What a GPU is: names, numbers, PCI address and abilities, which do not change while it runs. */
#include "nvml.h"
#include "pci.h"
#include "session.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEXT_GETTER(function, key)                                                             \
    NVML_API nvmlReturn_t function(nvmlDevice_t device, char *text, unsigned int length)       \
    {                                                                                          \
        return gpu_text(device, key, text, length);                                            \
    }

#define NUMBER_GETTER(function, key)                                                           \
    NVML_API nvmlReturn_t function(nvmlDevice_t device, unsigned int *value)                   \
    {                                                                                          \
        return gpu_unsigned(device, key, 1, value);                                            \
    }

TEXT_GETTER(nvmlDeviceGetName, "name")
TEXT_GETTER(nvmlDeviceGetUUID, "uuid")
TEXT_GETTER(nvmlDeviceGetSerial, "serial")
TEXT_GETTER(nvmlDeviceGetVbiosVersion, "vbios_version")
TEXT_GETTER(nvmlDeviceGetBoardPartNumber, "board_part_number")
NUMBER_GETTER(nvmlDeviceGetMinorNumber, "minor_number")
NUMBER_GETTER(nvmlDeviceGetNumGpuCores, "cores")
NUMBER_GETTER(nvmlDeviceGetMemoryBusWidth, "memory_bus_width_bits")
NUMBER_GETTER(nvmlDeviceGetComputeMode, "compute_mode")
NUMBER_GETTER(nvmlDeviceGetDisplayMode, "display_mode")
NUMBER_GETTER(nvmlDeviceGetDisplayActive, "display_active")

/* A value that all these cards share, given for a GPU that is there. */
static nvmlReturn_t constant(nvmlDevice_t device, unsigned int value, unsigned int *result)
{
    struct gpu gpu;
    nvmlReturn_t opened = gpu_open(device, &gpu);
    if (opened != NVML_SUCCESS)
        return opened;
    gpu_close(&gpu);
    if (result == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    *result = value;
    return NVML_SUCCESS;
}

NVML_API nvmlReturn_t nvmlDeviceGetBrand(nvmlDevice_t device, unsigned int *brand)
{
    return constant(device, 5, brand); /* NVML_BRAND_GEFORCE */
}

NVML_API nvmlReturn_t nvmlDeviceGetArchitecture(nvmlDevice_t device, unsigned int *architecture)
{
    return constant(device, 10, architecture); /* NVML_DEVICE_ARCH_BLACKWELL */
}

NVML_API nvmlReturn_t nvmlDeviceGetBusType(nvmlDevice_t device, unsigned int *type)
{
    return constant(device, 2, type); /* NVML_BUS_TYPE_PCIE */
}

NVML_API nvmlReturn_t nvmlDeviceGetMultiGpuBoard(nvmlDevice_t device, unsigned int *multiple)
{
    return constant(device, 0, multiple);
}

NVML_API nvmlReturn_t nvmlDeviceIsMigDeviceHandle(nvmlDevice_t device, unsigned int *is_mig)
{
    return constant(device, 0, is_mig);
}

NVML_API nvmlReturn_t nvmlDeviceGetIndex(nvmlDevice_t device, unsigned int *index)
{
    for (unsigned int i = 0; i < session_count(); i++)
        if (session_device(i) == device)
            return constant(device, i, index);
    return session_check() == NVML_SUCCESS ? NVML_ERROR_INVALID_ARGUMENT : NVML_ERROR_UNINITIALIZED;
}

NVML_API nvmlReturn_t nvmlDeviceGetCudaComputeCapability(nvmlDevice_t device, int *major, int *minor)
{
    char text[16];
    const char *point;
    nvmlReturn_t result = gpu_text(device, "compute_capability", text, sizeof(text));
    if (result != NVML_SUCCESS)
        return result;
    if (major == NULL || minor == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    point = strchr(text, '.');
    *major = atoi(text);
    *minor = point != NULL ? atoi(point + 1) : 0;
    return NVML_SUCCESS;
}

int pci_parse(const char *text, struct pci_address *address)
{
    unsigned long parts[3];
    unsigned int count = 0;
    char *end;

    for (; count < 3; count++) {
        parts[count] = strtoul(text, &end, 16);
        if (end == text)
            return 0;
        text = end + 1;
        if (*end != ':')
            break;
    }
    /* The function, which is 0 for a GPU, may be left out. */
    if (count < 1 || count > 2 || (*end != '\0' && *end != '.'))
        return 0;
    address->domain = count == 2 ? (unsigned int)parts[0] : 0;
    address->bus = (unsigned int)parts[count - 1];
    address->device = (unsigned int)parts[count];
    return 1;
}

NVML_API nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, nvmlPciInfo_t *pci)
{
    char address[32], device_id[16], subsystem_id[16];
    struct pci_address parsed;
    nvmlReturn_t result = gpu_text(device, "pci_bus_id", address, sizeof(address));

    if (result == NVML_SUCCESS)
        result = gpu_text(device, "pci_device_id", device_id, sizeof(device_id));
    if (result == NVML_SUCCESS)
        result = gpu_text(device, "pci_subsystem_id", subsystem_id, sizeof(subsystem_id));
    if (result != NVML_SUCCESS)
        return result;
    if (pci == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (!pci_parse(address, &parsed))
        return NVML_ERROR_UNKNOWN;
    memset(pci, 0, sizeof(*pci));
    pci->domain = parsed.domain;
    pci->bus = parsed.bus;
    pci->device = parsed.device;
    pci->pciDeviceId = (unsigned int)strtoul(device_id, NULL, 16);
    pci->pciSubSystemId = (unsigned int)strtoul(subsystem_id, NULL, 16);
    snprintf(pci->busIdLegacy, sizeof(pci->busIdLegacy), "%04X:%02X:%02X.0", parsed.domain & 0xFFFF, parsed.bus & 0xFF,
             parsed.device & 0xFF);
    snprintf(pci->busId, sizeof(pci->busId), "%08X:%02X:%02X.0", parsed.domain, parsed.bus & 0xFF,
             parsed.device & 0xFF);
    return NVML_SUCCESS;
}

NVML_API nvmlReturn_t nvmlDeviceGetPciInfo_v2(nvmlDevice_t device, nvmlPciInfo_v2_t *pci)
{
    nvmlPciInfo_t newer;
    nvmlReturn_t result = nvmlDeviceGetPciInfo_v3(device, &newer);
    if (result != NVML_SUCCESS)
        return result;
    if (pci == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    memset(pci, 0, sizeof(*pci));
    memcpy(pci->busId, newer.busIdLegacy, sizeof(pci->busId));
    pci->domain = newer.domain;
    pci->bus = newer.bus;
    pci->device = newer.device;
    pci->pciDeviceId = newer.pciDeviceId;
    pci->pciSubSystemId = newer.pciSubSystemId;
    return NVML_SUCCESS;
}

NVML_API nvmlReturn_t nvmlDeviceGetPciInfo(nvmlDevice_t device, nvmlPciInfo_v2_t *pci)
{
    return nvmlDeviceGetPciInfo_v2(device, pci);
}

NVML_API nvmlReturn_t nvmlDeviceGetPciInfoExt(nvmlDevice_t device, nvmlPciInfoExt_t *pci)
{
    nvmlPciInfo_t basic;
    nvmlReturn_t result = nvmlDeviceGetPciInfo_v3(device, &basic);
    if (result != NVML_SUCCESS)
        return result;
    if (pci == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (pci->version != NVML_STRUCT_VERSION(nvmlPciInfoExt_t, 1))
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    pci->domain = basic.domain;
    pci->bus = basic.bus;
    pci->device = basic.device;
    pci->pciDeviceId = basic.pciDeviceId;
    pci->pciSubSystemId = basic.pciSubSystemId;
    pci->baseClass = 3; /* a display controller, VGA compatible */
    pci->subClass = 0;
    memcpy(pci->busId, basic.busId, sizeof(pci->busId));
    return NVML_SUCCESS;
}

NVML_API nvmlReturn_t nvmlDeviceGetBoardId(nvmlDevice_t device, unsigned int *board)
{
    nvmlPciInfo_t pci;
    nvmlReturn_t result = nvmlDeviceGetPciInfo_v3(device, &pci);
    if (result != NVML_SUCCESS)
        return result;
    if (board == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    *board = pci.bus << 8;
    return NVML_SUCCESS;
}
