#!/usr/bin/python
"""Module pageindex.home.gateway_certificate."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: gateway_certificate
short_description: The gateway shows a valid certificate
description:
  - Makes an authority on the host once, and a certificate signed by it, or checks and takes over the owner's own.
  - Renews it before it ends; a running gateway shows the new one at once, without a restart.
options:
  settings:
    description: File with the settings below as JSON, as the host's timer reads it.
    type: path
    required: true
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
author:
  - PageIndex Home contributors (@pageindex-home)
"""

EXAMPLES = r"""
- name: Have a certificate
  pageindex.home.gateway_certificate:
    settings: /opt/pageindex-home/gateway/certificate.json
"""

RETURN = r"""
ends: {description: "Its last day, ISO 8601.", type: str, returned: always}
days_left: {description: Days until then., type: int, returned: always}
fingerprint: {description: Its SHA-256., type: str, returned: always}
why: {description: Why it was made anew., type: str, returned: always}
authority:
  description: The certificate (PEM) that devices have to trust; empty for the owner's own, and where none is made yet.
  type: str
  returned: always
"""

from ansible_collections.pageindex.home.plugins.module_utils.gateway_certificate import CertificateError
from ansible_collections.pageindex.home.plugins.module_utils.gateway_certificate_program import ensured, settings_from
from ansible_collections.pageindex.home.plugins.module_utils.haproxy_runtime import HaproxyError
from ansible_collections.pageindex.home.plugins.module_utils.quiet_module import QuietModule


def main() -> None:
    """Run the module."""
    module = QuietModule(argument_spec={"settings": {"type": "path", "required": True}}, supports_check_mode=True)
    try:
        settings = settings_from(module.params["settings"])
        found, told = ensured(settings, module.check_mode)
    except FileNotFoundError:
        if not module.check_mode:
            raise
        # On a clean host the file is announced, not there.
        module.exit_json(changed=True, ends="", days_left=0, fingerprint="", why="there is none yet", authority="")
    except (CertificateError, HaproxyError) as error:
        module.fail_json(msg=f"The gateway's certificate: {error}")
    module.exit_json(
        changed=found.files.changed or told,
        ends=found.ends,
        days_left=found.days_left,
        fingerprint=found.fingerprint,
        why=found.why,
        authority=settings.certificate.authority_pem(),
    )


if __name__ == "__main__":
    main()
