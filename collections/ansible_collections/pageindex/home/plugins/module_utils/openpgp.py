"""Read OpenPGP public keys far enough to know their fingerprints (RFC 4880, RFC 9580)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator

PUBLIC_KEY_TAG = 6


class OpenPgpError(Exception):
    """The data is not an OpenPGP public key that we can read."""


def dearmor(data: bytes) -> bytes:
    """Binary packets of a key given armored ("-----BEGIN PGP …") or already binary.

    Several armored blocks are joined. Raises OpenPgpError when an armor is damaged.
    """
    text = data.decode("ascii", "ignore")
    blocks = re.findall(r"-----BEGIN PGP PUBLIC KEY BLOCK-----(.*?)-----END PGP PUBLIC KEY BLOCK-----", text, re.DOTALL)
    if not blocks:
        return data
    packets = b""
    for block in blocks:
        # Headers such as "Version:" end at the first empty line; the checksum line starts with "=".
        lines = block.replace("\r", "").split("\n")
        if "" in (line.strip() for line in lines[1:]):
            first = next(number for number, line in enumerate(lines) if number and not line.strip())
            lines = lines[first + 1 :]
        body = "".join(line.strip() for line in lines if line.strip() and not line.startswith("="))
        try:
            packets += base64.b64decode(body, validate=True)
        except binascii.Error as error:
            raise OpenPgpError(f"the armor of the key is damaged: {error}") from None
    return packets


def armor(packets: bytes) -> str:
    """Text form of a binary key, as apt accepts it in files ending in .asc."""
    body = base64.b64encode(packets).decode("ascii")
    lines = [body[start : start + 64] for start in range(0, len(body), 64)]
    checksum = base64.b64encode(_crc24(packets).to_bytes(3, "big")).decode("ascii")
    return "\n".join(
        [
            "-----BEGIN PGP PUBLIC KEY BLOCK-----",
            "",
            *lines,
            f"={checksum}",
            "-----END PGP PUBLIC KEY BLOCK-----",
            "",
        ]
    )


def primary_fingerprints(data: bytes) -> list[str]:
    """Fingerprints (upper case hexadecimal) of all primary keys in an armored or binary key file.

    Raises OpenPgpError when there is none or a version of key that we do not know.
    """
    return [fingerprint for fingerprint, _ in _keys(data)]


def split_keys(data: bytes) -> dict[str, bytes]:
    """Each key of a file with its user names and signatures, by the fingerprint of its primary key.

    Raises OpenPgpError as primary_fingerprints does.
    """
    return dict(_keys(data))


def _keys(data: bytes) -> list[tuple[str, bytes]]:
    packets = dearmor(data)
    keys: list[tuple[str, bytes]] = []
    for tag, body, whole in _packets(packets):
        if tag == PUBLIC_KEY_TAG:
            keys.append((_fingerprint(body), whole))
        elif keys:
            keys[-1] = (keys[-1][0], keys[-1][1] + whole)
    if not keys:
        raise OpenPgpError("there is no OpenPGP public key in it")
    return keys


def _fingerprint(body: bytes) -> str:
    version = body[0] if body else 0
    if version == 4:
        digest = hashlib.sha1(b"\x99" + len(body).to_bytes(2, "big") + body, usedforsecurity=False)
    elif version == 6:
        digest = hashlib.sha256(b"\x9b" + len(body).to_bytes(4, "big") + body)
    else:
        raise OpenPgpError(f"public keys of version {version} are not supported")
    return digest.hexdigest().upper()


def _packets(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Tag, body and whole bytes of each packet."""
    position = 0
    while position < len(data):
        start = position
        header = data[position]
        if not header & 0x80:
            raise OpenPgpError("this is not OpenPGP data")
        try:
            if header & 0x40:
                tag = header & 0x3F
                length, position = _new_length(data, position + 1)
            else:
                tag = (header >> 2) & 0x0F
                size = {0: 1, 1: 2, 2: 4}.get(header & 0x03)
                if size is None:
                    raise OpenPgpError("a packet without a length is not supported")
                length = int.from_bytes(data[position + 1 : position + 1 + size], "big")
                position += 1 + size
        except IndexError:
            raise OpenPgpError("the key is cut off") from None
        if position + length > len(data):
            raise OpenPgpError("the key is cut off")
        body, position = data[position : position + length], position + length
        yield tag, body, data[start:position]


def _new_length(data: bytes, position: int) -> tuple[int, int]:
    first = data[position]
    if first < 192:
        return first, position + 1
    if first < 224:
        return ((first - 192) << 8) + data[position + 1] + 192, position + 2
    if first == 255:
        return int.from_bytes(data[position + 1 : position + 5], "big"), position + 5
    raise OpenPgpError("a packet in pieces is not supported")


def _crc24(data: bytes) -> int:
    value = 0xB704CE
    for byte in data:
        value ^= byte << 16
        for _ in range(8):
            value <<= 1
            if value & 0x1000000:
                value ^= 0x1864CFB
    return value & 0xFFFFFF
