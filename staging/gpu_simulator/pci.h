/* PCI addresses as sysfs and NVML write them. */
#ifndef GPU_SIMULATOR_PCI_H
#define GPU_SIMULATOR_PCI_H

struct pci_address {
    unsigned int domain, bus, device;
};

/* Reads 0000:01:00.0, 00000000:01:00.0 or 01:00.0; 0 for another text. */
int pci_parse(const char *text, struct pci_address *address);

#endif
