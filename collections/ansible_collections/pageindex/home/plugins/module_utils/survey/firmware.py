"""What the firmware decided: UEFI, Secure Boot, and whether it knows the key that DKMS signs modules with."""

from __future__ import annotations

import os
import re
from typing import Any

from ansible_collections.pageindex.home.plugins.module_utils.kernel_modules import (
    SIGNING_CERTIFICATES,
    secure_boot,
    signing_key_enrolled,
)
from ansible_collections.pageindex.home.plugins.module_utils.survey.reading import read_text
from ansible_collections.pageindex.home.plugins.module_utils.survey.request import SurveyRequest


def survey(request: SurveyRequest) -> dict[str, Any]:
    """efi, secure_boot (None: the firmware does not say), lockdown, signing_keys (paths) and signing_key_enrolled.

    The keys are read from the firmware's variables, so no mokutil is needed.
    """
    locked = re.search(r"\[(\w+)\]", read_text(request.root, "sys/kernel/security/lockdown") or "")
    return {
        "efi": os.path.isdir(os.path.join(request.root, "sys/firmware/efi")),
        "secure_boot": secure_boot(request.root),
        "lockdown": locked.group(1) if locked else None,
        "signing_keys": [path for path in SIGNING_CERTIFICATES if os.path.isfile(path)],
        "signing_key_enrolled": signing_key_enrolled(request.root),
    }
