"""When a CDI specification no longer describes its host."""

from __future__ import annotations

import json

import pytest

from ansible_collections.pageindex.home.plugins.module_utils.cdi_specification import (
    read_specification,
    stale_because,
)

LIBRARY = "/usr/lib/x86_64-linux-gnu/libcuda.so.595.91.07"
# As nvidia-ctk 1.20 writes it, shortened.
SPECIFICATION = f"""---
cdiVersion: 0.5.0
kind: nvidia.com/gpu
devices:
    - name: "0"
      containerEdits:
        deviceNodes:
            - path: /dev/nvidia0
containerEdits:
    env:
        - NVIDIA_VISIBLE_DEVICES=void
    hooks:
        - hookName: createContainer
          path: /usr/bin/nvidia-cdi-hook
          args: [nvidia-cdi-hook, update-ldcache, --folder, /usr/lib/x86_64-linux-gnu]
    mounts:
        - hostPath: {LIBRARY}
          containerPath: /elsewhere/libcuda.so.1.1
          options: [ro, nosuid, nodev, rbind, rprivate]
        - hostPath: /run/nvidia-persistenced/socket
          containerPath: /run/nvidia-persistenced/socket
"""
PRESENT = {"/dev/nvidia0", "/usr/bin/nvidia-cdi-hook", LIBRARY, "/run/nvidia-persistenced/socket"}


def test_a_current_one() -> None:
    assert stale_because(SPECIFICATION, "595.91.07", PRESENT.__contains__) == []


@pytest.mark.parametrize("gone", sorted(PRESENT))
def test_a_file_that_is_gone(gone: str) -> None:
    (reason,) = stale_because(SPECIFICATION, "595.91.07", (PRESENT - {gone}).__contains__)
    assert gone in reason and "does not have" in reason


def test_another_driver_than_the_loaded_one() -> None:
    (reason,) = stale_because(SPECIFICATION, "610.57.04", PRESENT.__contains__)
    assert "595.91.07, loaded is 610.57.04" in reason


def test_without_a_loaded_driver_versions_say_nothing() -> None:
    assert stale_because(SPECIFICATION, None, PRESENT.__contains__) == []


def test_json_is_read_too() -> None:
    document = {"kind": "nvidia.com/gpu", "containerEdits": {"mounts": [{"hostPath": LIBRARY, "containerPath": "/x"}]}}
    for text in (json.dumps(document, indent=2), json.dumps(document, indent=4)):
        assert len(stale_because(text, "595.91.07", lambda path: False)) == 1
        assert stale_because(text, "595.91.07", lambda path: True) == []


def test_many_missing_files_are_counted() -> None:
    (reason,) = stale_because(SPECIFICATION, "595.91.07", lambda path: False)
    assert reason.endswith("and 1 more, which this host does not have")


def test_a_missing_specification_is_not_judged() -> None:
    assert read_specification("/does/not/exist") is None
