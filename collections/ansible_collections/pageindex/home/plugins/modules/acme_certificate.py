#!/usr/bin/python
"""Module pageindex.home.acme_certificate."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: acme_certificate
short_description: The host has a certificate by ACME
description:
  - Has C(certbot) get a certificate when there is none, or when the one that is there is for other names, from another
    server, about to end, or was proved in another way. Otherwise nobody is asked.
  - C(certbot) keeps it under the name C(pageindex-home), and its own timer renews it.
options:
  names:
    description: Public host names that the certificate is for.
    type: list
    elements: str
    required: true
  email:
    description: Address of the account at the server, to whose terms it agrees.
    type: str
    required: true
  server:
    description: Address of the server's directory.
    type: str
    required: true
  challenge:
    description: Arguments of C(certbot) that say how the server's challenge is answered.
    type: list
    elements: str
    required: true
  record:
    description: File that remembers those arguments.
    type: path
    required: true
attributes:
  check_mode:
    support: full
    description: Announces, and asks nobody.
  diff_mode:
    support: none
author:
  - PageIndex Home contributors (@pageindex-home)
"""

EXAMPLES = r"""
- name: Have a certificate that every device trusts
  pageindex.home.acme_certificate:
    names: [ai.example.com]
    email: me@example.com
    server: https://acme-v02.api.letsencrypt.org/directory
    challenge: [--standalone]
    record: /srv/pageindex-home/data/gateway/certificates/acme.json
"""

RETURN = r"""
ends: {description: "Its last day, ISO 8601; empty in check mode when there is none.", type: str, returned: always}
days_left: {description: Days until then., type: int, returned: always}
why: {description: Why certbot was asked., type: str, returned: always}
"""

from ansible_collections.pageindex.home.plugins.module_utils.acme_certificate import (
    AcmeCertificate,
    AcmeError,
    AcmeSettings,
)
from ansible_collections.pageindex.home.plugins.module_utils.commands import run_command
from ansible_collections.pageindex.home.plugins.module_utils.download_environment import read
from ansible_collections.pageindex.home.plugins.module_utils.files import FileSetError
from ansible_collections.pageindex.home.plugins.module_utils.gateway_certificate import CertificateError
from ansible_collections.pageindex.home.plugins.module_utils.quiet_module import QuietModule


def main() -> None:
    """Run the module."""
    texts = {"type": "list", "elements": "str", "required": True}
    text = {"type": "str", "required": True}
    module = QuietModule(
        argument_spec={
            "names": texts,
            "email": text,
            "server": text,
            "challenge": texts,
            "record": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    wanted = module.params
    settings = AcmeSettings(
        tuple(wanted["names"]), wanted["email"], wanted["server"], tuple(wanted["challenge"]), wanted["record"]
    )
    try:
        found = AcmeCertificate(settings, run_command, read()).ensure(module.check_mode)
    except (AcmeError, CertificateError, FileSetError, OSError) as error:
        module.fail_json(msg=f"The gateway's certificate by ACME: {error}")
        return
    module.exit_json(changed=found.changed, why=found.why, ends=found.ends, days_left=found.days_left)


if __name__ == "__main__":
    main()
