"""What to do about the errors and warnings of `apt-get update`."""

from __future__ import annotations

import re

# What apt says → what to do; groups of the expression fill the sentence. apt up to 2.x checks with gpgv,
# from 3.0 with sqv, and their words differ.
KNOWN_PROBLEMS = (
    (
        r"Conflicting values set for option Signed-By regarding source (\S+) ",
        "{0} is defined twice with different keys. Keep one definition: `grep -rF {0} /etc/apt/sources.list "
        "/etc/apt/sources.list.d` on the host shows both.",
    ),
    (
        r"(\S+://\S+)[^\n]*?(?:NO_PUBKEY|Missing key) ([0-9A-F]{8,64})",
        "{0} is signed with the key {1}, which this host does not accept for it. If the vendor announced "
        "a new key, add its whole fingerprint to the `fingerprints` of that repository in the inventory; "
        "a source that is not ours needs its own keyring brought up to date, or has to be disabled.",
    ),
    (
        r"(\S+://\S+)[^\n]*?(?:SHA1 is not considered secure|Policy rejected)",
        "The signature of {0} rests on an algorithm that this release does not accept any more. Only its "
        "vendor can sign anew; use a source with a newer key, and leave the policy of this host as it is.",
    ),
    (
        r"(\S+://\S+)[^\n]*?(?:EXPKEYSIG|EXPSIG|KEYEXPIRED|[Ee]xpired on|is not live|key is expired)",
        "The key that signs {0} has expired on this host. For a repository of this project remove its file in "
        "/etc/apt/keyrings and run the same command again: the key is fetched anew. For another source "
        "fetch its vendor's current key.",
    ),
    (
        r"Release file for (\S+) is not valid yet",
        "For this host {0} lies in the future: its clock is slow. `timedatectl` shows it, "
        "`timedatectl set-ntp true` lets it follow the network.",
    ),
    (
        r"Release file for (\S+) is expired",
        "{0} has not been renewed in time: the mirror is outdated, or the clock of this host is fast (`timedatectl`).",
    ),
    (
        r"The repository '(\S+)[^']*' (?:does not have a Release file|no longer has a Release file)",
        "There is no package source at {0}. Correct its address, or disable it when it is not needed.",
    ),
    (
        r"(?:Could not resolve|Temporary failure resolving) '([^']+)'",
        "The name {0} cannot be resolved on this host. Check its name server (`resolvectl status`) and proxy.",
    ),
)


def advice(output: str) -> list[str]:
    """A sentence for each known problem in the output of apt, none twice."""
    sentences: list[str] = []
    for pattern, sentence in KNOWN_PROBLEMS:
        for match in re.finditer(pattern, output):
            text = sentence.format(*(group.rstrip(":") for group in match.groups()))
            if text not in sentences:
                sentences.append(text)
    return sentences
