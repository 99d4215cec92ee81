/* Every other symbol that nvidia-ml-py knows: there, so that looking it up succeeds, and refusing.
 * The symbols are weak, so that a function of the same name in another file takes precedence. */
#include "nvml_types.h"

/* The arguments are not looked at: on x86-64 the caller owns them. */
#define UNSUPPORTED(symbol)                                                                    \
    NVML_API __attribute__((weak)) nvmlReturn_t symbol(void)                                   \
    {                                                                                          \
        return NVML_ERROR_NOT_SUPPORTED;                                                       \
    }

/* Made by the Makefile from nvml_symbols.txt, one UNSUPPORTED(symbol) a line. */
#include "unsupported_symbols.inc"
