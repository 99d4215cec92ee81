#!/usr/bin/env python3
"""The document service under stress: a real service process, a scripted model server, and what the process took.

    .venv/bin/python benchmarks/document_stress.py pages 1000       # index a PDF of so many pages, ask it something
    .venv/bin/python benchmarks/document_stress.py upload 200       # a PDF of so many MiB, the limit, and one above it
    .venv/bin/python benchmarks/document_stress.py outage 600       # the model server is away for so many seconds
    .venv/bin/python benchmarks/document_stress.py bomb 1024        # a page that inflates to so many MiB

Memory is the kernel's own peak of the service process (VmHWM in /proc), and of the child processes that read files.
The model server is services/pageindex/tests/fake_llm.py: it answers at once, so times are the service's own.
The exit status is 1 where the service did not do what it promises.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path[:0] = [
    str(REPOSITORY),
    str(REPOSITORY / "services/pageindex/tests"),
    str(REPOSITORY / "services/pageindex/src"),
]

from fake_llm import FakeLanguageModel  # type: ignore[import-not-found]  # noqa: E402
from running import MIB, Memory, await_until, finished, service, upload  # type: ignore[import-not-found]  # noqa: E402

from tests.acceptance.sample_document import _write_pdf  # noqa: E402

#: What the service promises for itself while it indexes 1,000 pages.
MEMORY_LIMIT_MIB = 400
LINES = 46  # a page
SYLLABLES = "ba be bi bo da de di do fa fe ga go ka ke ki ko la le li lo ma me mi mo na ne ni no ra re ro sa se to"


def page(number: int, words: random.Random) -> bytes:
    """Drawing commands of a full page of text with a heading; about 3,000 characters."""
    syllables = SYLLABLES.split()
    lines = [f"BT /F2 16 Tf 64 790 Td (Chapter {number}) Tj ET"]
    for line in range(LINES):
        text = " ".join("".join(words.choices(syllables, k=words.randint(1, 4))) for _ in range(11))
        if line % 6 == 5:
            text += "."
        lines.append(f"BT /F1 10 Tf 64 {760 - 15 * line} Td ({text.capitalize()}) Tj ET")
    lines.append(f"BT /F1 10 Tf 64 40 Td (The reference number of chapter {number} is {100000 + number}.) Tj ET")
    return "\n".join(lines).encode()


def document(pages: int) -> bytes:
    """A PDF of *pages* full pages."""
    words = random.Random(pages)
    return _write_pdf([page(number, words) for number in range(1, pages + 1)], [])


def inflating(size: int) -> bytes:
    """A PDF of one page whose drawing commands are *size* bytes of text when they are inflated."""
    line = b"BT /F1 10 Tf 64 700 Td (The quick brown fox jumps over the lazy dog again and again.) Tj ET\n"
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(line * 10_000) for _ in range(size // (len(line) * 10_000) + 1)) + packer.flush()
    data = _write_pdf([b""], [])
    stream = b"<< /Length %d /Filter /FlateDecode >>\nstream\n%s\nendstream" % (len(packed), packed)
    # The table of offsets is wrong then; PDF engines make it anew.
    return data.replace(b"<< /Length 0 >>\nstream\n\nendstream", stream)


def padded(size: int) -> bytes:
    """A PDF of ten pages and, in objects that nothing shows, random bytes up to *size*."""
    data = document(10)
    noise = os.urandom(max(0, size - len(data) - 200))
    end = data.rindex(b"xref\n0 ")
    return (
        data[:end]
        + b"9999 0 obj\n<< /Length %d >>\nstream\n" % len(noise)
        + noise
        + b"\nendstream\nendobj\n"
        + data[end:]
    )


def told(memory: Any, before: int) -> str:
    """The peaks in words; *before* is the service's peak before there was work."""
    return (
        f"service {memory.service / MIB:.0f} MiB ({before / MIB:.0f} MiB idle), "
        f"child {memory.child / MIB:.0f} MiB (address space {memory.child_address_space / MIB:.0f} MiB)"
    )


def pages(count: int) -> bool:
    """Index a PDF of *count* pages and ask it one question."""
    data = document(count)
    print(f"PDF of {count} pages, {len(data) / MIB:.1f} MiB", flush=True)
    llm = FakeLanguageModel()
    with tempfile.TemporaryDirectory() as folder, service(Path(folder), llm) as (process, client):
        memory = Memory(process.pid)
        idle = memory.service
        begun = time.monotonic()
        response = client.post("/v1/documents", files={"file": ("pages.pdf", data)})
        print(
            f"upload: HTTP {response.status_code} after {time.monotonic() - begun:.1f} s; {told(memory, idle)}",
            flush=True,
        )
        if response.status_code != 202:
            print(response.json()["detail"])
            return bool(response.status_code == 413)
        identifier = response.json()["id"]
        found = finished(client, identifier, 3600)
        print(
            f"ready after {time.monotonic() - begun:.1f} s: {found['node_count']} sections from {found['structure']}, "
            f"{len(llm.requests)} requests to the model; {told(memory, idle)}",
            flush=True,
        )
        indexed = memory.service
        asked = time.monotonic()
        chapter = count // 2
        body = {"question": f"What is the reference number of chapter {chapter}?", "document_ids": [identifier]}
        answer = client.post("/v1/query", json=body).json()
        right = answer["found"] and answer["citations"][0]["pages"] == [chapter]
        print(f"question: {'right' if right else answer} after {time.monotonic() - asked:.1f} s; {told(memory, idle)}")
        memory.stop()
        return bool(right and (count > 1000 or indexed < MEMORY_LIMIT_MIB * MIB))


def large(size: int) -> bool:
    """Upload a PDF of *size* MiB less a little, where *size* is the limit, and one a little above it."""
    llm = FakeLanguageModel()
    good = True
    limit = size * MIB
    with (
        tempfile.TemporaryDirectory() as folder,
        service(Path(folder), llm, max_upload_bytes=str(limit)) as (process, client),
    ):
        memory = Memory(process.pid)
        idle = memory.service
        for wanted, expected in ((limit - 1000, 202), (limit + 1000, 413)):
            data = padded(wanted)
            begun = time.monotonic()
            response = client.post("/v1/documents", files={"file": ("large.pdf", data)})
            good &= response.status_code == expected
            taken = time.monotonic() - begun
            print(f"{len(data)} bytes: HTTP {response.status_code} after {taken:.1f} s; {told(memory, idle)}")
            if response.status_code == 202:
                finished(client, response.json()["id"], 600)
                print(f"ready after {time.monotonic() - begun:.1f} s; {told(memory, idle)}")
        memory.stop()
    return good


def outage(seconds: int) -> bool:
    """Index with the model server away for *seconds* in the middle of it, with the settings as they are by default."""
    llm = FakeLanguageModel()
    llm.delay = 0.2
    with tempfile.TemporaryDirectory() as folder, service(Path(folder), llm) as (_, client):
        identifier = upload(client, "pages.pdf", document(100))
        await_until(lambda: len(llm.requests) >= 30, "the model to be asked", 60)
        llm.stop()
        print(f"model server away after {len(llm.requests)} requests", flush=True)
        time.sleep(seconds)
        waiting = client.get(f"/v1/documents/{identifier}").json()
        print(f"after {seconds} s: {waiting['status']}, {waiting['progress']}", flush=True)
        llm.start()
        back = time.monotonic()
        found = finished(client, identifier, 300)
        print(f"ready {time.monotonic() - back:.1f} s after it came back; warnings: {found['warnings']}")
        return bool(waiting["status"] == "indexing" and not found["warnings"])


def bomb(size: int) -> bool:
    """Upload a small PDF whose only page inflates to *size* MiB."""
    data = inflating(size * MIB)
    print(f"PDF of {len(data) / MIB:.1f} MiB that inflates to {size} MiB", flush=True)
    llm = FakeLanguageModel()
    with tempfile.TemporaryDirectory() as folder, service(Path(folder), llm) as (process, client):
        memory = Memory(process.pid)
        idle = memory.service
        begun = time.monotonic()
        response = client.post("/v1/documents", files={"file": ("bomb.pdf", data)})
        found = response.json()
        if response.status_code == 202:
            identifier = found["id"]

            def ended() -> bool:
                found.update(client.get(f"/v1/documents/{identifier}").json())
                return found["status"] in ("ready", "failed")

            await_until(ended, "an end", 700)
        print(
            f"{found.get('status')} after {time.monotonic() - begun:.1f} s: {found.get('error') or found.get('detail')}"
        )
        print(told(memory, idle))
        memory.stop()
        return memory.service < MEMORY_LIMIT_MIB * MIB and client.get("/healthz").status_code == 200


def main() -> int:
    """Run one of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    actions = {"pages": pages, "upload": large, "outage": outage, "bomb": bomb}
    parser.add_argument("action", choices=actions)
    parser.add_argument("amount", type=int, help="pages, MiB, or seconds")
    options = parser.parse_args()
    return 0 if actions[options.action](options.amount) else 1


if __name__ == "__main__":
    sys.exit(main())
