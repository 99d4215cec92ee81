"""The first ten minutes: provision the staging host, ask a question about a document made on the spot."""

from __future__ import annotations

import argparse
import json
import time

import requests

from staging import engine, host, provision, settings
from staging.depot import run as depot
from staging.steps import StepFailed, say, step
from tests.acceptance import sample_document

_DOCUMENTS_PORT = 3000


def run(_options: argparse.Namespace) -> None:
    """Provision the staging host with site.yml and answer a question about a PDF."""
    begun = time.monotonic()
    say("Staging: real systemd, apt, Docker, vLLM and HTTP; two simulated RTX 5090s, no real GPU.")
    with step("1/5 Docker and build tools on this machine"):
        engine.install_packages()
        engine.ensure()
    with step("2/5 package repository, image registry and model hub"):
        depot.ensure()
    with step("3/5 staging host"):
        host.up()
    with step("4/5 ansible-playbook site.yml -i inventory/staging"):
        provision.playbook("site.yml", log=settings.STATE / "logs" / "site.log")
    with step("5/5 a question about a document"):
        value = sample_document.new_value()
        with provision.tunnel(_DOCUMENTS_PORT) as url:
            answer = ask(url, value)
    show(answer, time.monotonic() - begun)


def ask(url: str, value: str) -> dict:
    """Upload a PDF that holds `value`, ask for it, and check answer and quote.

    Returns question, answer, quote, page and seconds. Raises StepFailed when the answer lacks the value or
    its quote is not on the cited page.
    """
    session = requests.Session()
    session.trust_env = False
    content = sample_document.make_document(value)
    uploaded = session.post(
        f"{url}/v1/documents", files={"file": (sample_document.NAME, content, "application/pdf")}, timeout=60
    )
    if not uploaded.ok:
        raise StepFailed(f"the document service refused the PDF: {uploaded.status_code} {uploaded.text[:500]}")
    document = uploaded.json()["id"]
    deadline = time.monotonic() + 180
    while True:
        state = session.get(f"{url}/v1/documents/{document}", timeout=30).json()
        if state["status"] == "ready":
            break
        if state["status"] == "failed" or time.monotonic() > deadline:
            raise StepFailed(f"the document was not indexed: {state}; see `journalctl -u pageindex-home@pageindex`")
        time.sleep(0.3)
    begun = time.monotonic()
    question = sample_document.QUESTION
    answered = session.post(
        f"{url}/v1/query", json={"question": question, "document_ids": [document]}, timeout=300
    )
    seconds = time.monotonic() - begun
    if not answered.ok:
        raise StepFailed(f"the question failed: {answered.status_code} {answered.text[:500]}")
    body = answered.json()
    cited = [c for c in body["citations"] if value in c.get("quote", "") and c.get("verified")]
    if value not in body["answer"] or not cited:
        raise StepFailed(f"the answer should hold {value} with a verified quote, found: {json.dumps(body)[:1500]}")
    return {"question": question, "answer": body["answer"], "quote": cited[0]["quote"],
            "pages": cited[0]["pages"], "seconds": seconds}


def show(answer: dict, seconds: float) -> None:
    """Print the closing screen from what the host itself reports."""
    state = json.loads(host.execute("cat /var/lib/pageindex-home/llm/state.json", check=True).stdout)
    record = state["current"]["record"]
    server = state["current"]["servers"][0]["service"]
    look = f"docker exec {server} python3 /opt/pageindex-home/container_report.py"
    report = json.loads(host.execute(look, check=True).stdout)
    names = [name.split("(UUID")[0].strip() for name in host.execute("nvidia-smi -L", check=True).stdout.splitlines()]
    driver = host.execute("nvidia-smi --query-gpu=driver_version --format=csv,noheader", check=True).stdout.split()[0]
    toolkit = host.execute("dpkg-query -W -f '${Version}' nvidia-container-toolkit", check=True).stdout
    pages = ", ".join(str(page) for page in answer["pages"])
    lines = {
        "Host": f"{settings.HOST_ADDRESS} (staging container: Debian 13, systemd, its own Docker Engine)",
        "GPUs": f"{'; '.join(names)} (simulated)",
        "Driver": f"{driver} (simulated)",
        "Toolkit": f"{toolkit} (simulated)",
        "vLLM": f"{report['vllm']} in the running container (CPU build)",
        "NCCL": f"{report['nccl']['version']} in the running container",
        "Model": record["repository"],
        "Question": answer["question"],
        "Answer": answer["answer"],
        "Citation": f"page {pages}: “{answer['quote']}” (found on that page)",
        "URLs": "on the host: http://127.0.0.1:8000/v1 (LLM), http://127.0.0.1:3000 (documents)",
    }
    print("\n" + "=" * 100)
    for label, text in lines.items():
        print(f"{label + ':':10} {text}")
    print(f"\nAnswered in {answer['seconds']:.1f} s; the whole demo took {seconds / 60:.1f} minutes. Try next:")
    print("  .venv/bin/python -m staging ssh -L 3000:127.0.0.1:3000      # then http://127.0.0.1:3000")
    print("  .venv/bin/python -m staging gpu set 0 temperature=91        # and ask NVML what it sees")
    print("  .venv/bin/ansible-playbook site.yml -i inventory/staging    # again: changed=0")
    print("=" * 100)
