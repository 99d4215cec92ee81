"""Asks the kernel for AMX's tiles, in every Python of the vLLM stand-in (amx_permission.pth).

vLLM's attention on the processor uses them wherever the processor has them, and leaves the asking
(https://docs.kernel.org/arch/x86/xstate.html) to the matrix products. Those of a model as small as staging's do without
tiles, and its first request ends the engine with SIGILL.
"""

import ctypes
import platform

ARCH_PRCTL, REQUEST_PERMISSION, TILE_DATA = 158, 0x1023, 18

if platform.machine() == "x86_64":
    # Refused where there are none, which is as well.
    ctypes.CDLL(None).syscall(ARCH_PRCTL, REQUEST_PERMISSION, TILE_DATA)
