"""Kernel module files without code: real ELF with a .modinfo section, so that `modinfo` reads them."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

# The kernel's own marker at the very end of a signed module (scripts/sign-file, module_signature.h).
SIGNATURE_MARKER = b"~Module signature appended~\n"
# struct module_signature: algorithm RSA, SHA-512, identified by an X.509 name, lengths, padding.
_SIGNATURE = struct.Struct(">BBBBB3xI")
_RSA, _SHA512, _X509 = 1, 6, 1
_KEY_IDENTIFIER, _SIGNATURE_BYTES = b"\x50\x90\x00\x01", b"\x00" * 8

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_RELOCATABLE, _X86_64, _PROGRAM_BITS, _STRING_TABLE = 1, 62, 1, 3


def module_file(information: Mapping[str, str], signer: str = "") -> bytes:
    """Return the bytes of a module with this information, signed (in form only) when `signer` is a name."""
    modinfo = b"".join(f"{name}={value}".encode() + b"\0" for name, value in information.items())
    names = b"\0.modinfo\0.shstrtab\0"
    modinfo_offset = _HEADER.size
    names_offset = modinfo_offset + len(modinfo)
    sections_offset = -(-(names_offset + len(names)) // 8) * 8
    sections = [
        _SECTION.pack(*[0] * 10),
        _SECTION.pack(1, _PROGRAM_BITS, 2, 0, modinfo_offset, len(modinfo), 0, 0, 1, 0),
        _SECTION.pack(10, _STRING_TABLE, 0, 0, names_offset, len(names), 0, 0, 1, 0),
    ]
    header = _HEADER.pack(
        b"\x7fELF\x02\x01\x01" + b"\0" * 9, _RELOCATABLE, _X86_64, 1, 0, 0, sections_offset, 0,
        _HEADER.size, 0, 0, _SECTION.size, len(sections), 2,
    )  # fmt: skip
    content = (header + modinfo + names).ljust(sections_offset, b"\0") + b"".join(sections)
    if not signer:
        return content
    name = signer.encode()
    trailer = _SIGNATURE.pack(_RSA, _SHA512, _X509, len(name), len(_KEY_IDENTIFIER), len(_SIGNATURE_BYTES))
    return content + name + _KEY_IDENTIFIER + _SIGNATURE_BYTES + trailer + SIGNATURE_MARKER


def read_information(path: Path) -> dict[str, str]:
    """Return the information of a module file. Raises ValueError when it is not one."""
    content = path.read_bytes()
    try:
        fields = _HEADER.unpack_from(content)
        offset, count, names_index = fields[6], fields[12], fields[13]
        sections = [_SECTION.unpack_from(content, offset + index * _SECTION.size) for index in range(count)]
        names = content[sections[names_index][4] :]
        for section in sections:
            if names[section[0] :].split(b"\0", 1)[0] == b".modinfo":
                texts = content[section[4] : section[4] + section[5]].decode().split("\0")
                return dict(text.split("=", 1) for text in texts if "=" in text)
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a kernel module ({error})") from error
    raise ValueError(f"{path} has no .modinfo section")


def is_signed(path: Path) -> bool:
    """Say whether a signature is appended to a module file."""
    return path.read_bytes().endswith(SIGNATURE_MARKER)
