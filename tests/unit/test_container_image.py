"""Images named by their content, and how their pull and labels are read and written."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.pageindex.home.plugins.module_utils import image_content
from ansible_collections.pageindex.home.plugins.module_utils.jobs import container_image


def tag(**changes: Any) -> str:
    parts: dict[str, Any] = {
        "context": image_content.context_from_texts({"Dockerfile": "FROM x\n"}),
        "base_image": "x:1",
        "build_args": {"A": "1"},
        "labels": {},
        "labels_from": None,
        **changes,
    }
    return image_content.content_hash(**parts)


def test_the_tag_is_the_same_for_the_same_and_other_for_other_content() -> None:
    assert tag() == tag()
    others = [
        tag(context=image_content.context_from_texts({"Dockerfile": "FROM y\n"})),
        tag(base_image="x:2"),
        tag(build_args={"A": "2"}),
        tag(labels={"l": "1"}),
        tag(labels_from={"path": "/p", "prefix": "q"}),
    ]
    assert len({tag(), *others}) == 6


def test_a_directory_is_read_without_what_is_excluded(tmp_path: Path) -> None:
    for name in ["Dockerfile", "src/a.py", "src/__pycache__/a.pyc", "tests/test_a.py", ".git/config", "notes.md"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "run.sh").write_text("#!/bin/sh\n")
    (tmp_path / "run.sh").chmod(0o755)
    context = image_content.context_from_directory(str(tmp_path), ["tests", "*.md"])
    assert sorted(context) == ["Dockerfile", "run.sh", "src/a.py"]
    assert context["run.sh"]["executable"] is True
    with pytest.raises(FileNotFoundError):
        image_content.context_from_directory(str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="no file"):
        image_content.context_from_directory(str(tmp_path), ["*"])


def test_a_context_arrives_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "from" / "deep").mkdir(parents=True)
    (tmp_path / "from" / "deep" / "binary").write_bytes(bytes(range(256)))
    context = image_content.context_from_directory(str(tmp_path / "from"))
    container_image._write_context(tmp_path / "to", context)
    assert (tmp_path / "to" / "deep" / "binary").read_bytes() == bytes(range(256))


@pytest.mark.parametrize(
    ("image", "parts"),
    [
        ("vllm/vllm-openai:v0.32.0", ["vllm/vllm-openai", "v0.32.0"]),
        ("registry:5000/a/b", ["registry:5000/a/b", "latest"]),
        ("registry:5000/a/b:1", ["registry:5000/a/b", "1"]),
        ("haproxy", ["haproxy", "latest"]),
        ("a/b@sha256:12", ["a/b", "sha256:12"]),
    ],
)
def test_image_names_are_split_as_the_engine_wants_them(image: str, parts: list[str]) -> None:
    assert container_image._split(image) == parts


def test_the_layers_of_a_pull_are_added_up() -> None:
    progress = container_image.PullProgress()
    messages: list[dict[str, Any]] = [
        {"status": "Pulling from x", "id": "v1"},
        {"status": "Downloading", "id": "a", "progressDetail": {"current": 10, "total": 100}},
        {"status": "Downloading", "id": "b", "progressDetail": {"current": 5, "total": 50}},
        {"status": "Downloading", "id": "a", "progressDetail": {"current": 60, "total": 100}},
        {"status": "Download complete", "id": "b", "progressDetail": {}},
        {"status": "Extracting", "id": "b", "progressDetail": {"current": 1, "total": 999}},
    ]
    for message in messages:
        progress.add(message)
    assert (progress.done, progress.total) == (110, 150)


def test_labels_survive_the_dockerfile() -> None:
    line = container_image._label_line({"a.b": 'say "hi" for $5', "c": 1})
    assert line == 'LABEL "a.b"="say \\"hi\\" for \\$5" "c"="1"'


def test_a_host_without_docker_has_no_image(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert container_image.check({"image": "x:1"}) is None


def test_a_failed_build_shows_the_end_of_its_output(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    docker = tmp_path / "docker"
    docker.write_text("#!/bin/sh\n[ $1 = build ] || exit 1\nseq 1 100; echo NCCL: refused to install >&2; exit 7\n")
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    arguments = {
        "image": "r:1",
        "base_image": "",
        "build_args": {},
        "labels": {},
        "labels_from": None,
        "context": image_content.context_from_texts({"Dockerfile": "FROM scratch\n"}),
    }
    with pytest.raises(container_image.Failure, match=r"ended with 7(.|\n)*NCCL: refused") as caught:
        container_image.run(arguments, lambda *_, **__: None)
    assert "\n50\n" not in str(caught.value)


def options_of(tmp_path: Path, **environment: str) -> list[str]:
    return container_image.build_secrets(environment, tmp_path)


def test_a_build_without_proxy_gets_no_secret(tmp_path: Path) -> None:
    assert options_of(tmp_path, HOME="/root", http_proxy="") == []
    assert options_of(tmp_path, SSL_CERT_FILE=str(tmp_path / "none")) == []
    assert list(tmp_path.iterdir()) == []


def test_a_build_gets_the_proxy_as_a_secret_file(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle.crt"
    bundle.write_text("certificates")
    url = "http://u:p$w'%25@proxy:3128"
    options = options_of(tmp_path, http_proxy=url, no_proxy="localhost", SSL_CERT_FILE=str(bundle), OTHER="x")
    script = tmp_path / "downloads"
    assert options == [f"--secret=id=downloads,src={script}", f"--secret=id=certificate-authorities,src={bundle}"]
    assert script.stat().st_mode & 0o777 == 0o600
    said = subprocess.run(
        ["sh", "-c", f'. {script}; printf "%s\\n" "$http_proxy" "$no_proxy" "$PIP_CERT" "${{OTHER-}}"'],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={},
    ).stdout.splitlines()
    assert said == [url, "localhost", "/run/secrets/certificate-authorities", ""]


def test_a_bundle_that_no_build_takes_is_refused(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle.crt"
    bundle.write_bytes(b"x" * 500_001)
    with pytest.raises(container_image.Failure, match="at most 500000"):
        options_of(tmp_path, SSL_CERT_FILE=str(bundle))


def test_no_password_stands_on_the_command_of_a_build(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    docker = tmp_path / "docker"
    docker.write_text('#!/bin/sh\n[ "$1" = build ] && echo "$@" && cat "${5#--secret=id=downloads,src=}"; exit 7\n')
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("http_proxy", "http://u:s3cret@proxy:3128")
    arguments: dict[str, Any] = {
        "image": "r:1",
        "base_image": "",
        "build_args": {},
        "labels": {},
        "labels_from": None,
        "context": {},
    }
    with pytest.raises(container_image.Failure) as caught:
        container_image.run(arguments, lambda *_, **__: None)
    command = next(line for line in str(caught.value).splitlines() if line.startswith("build "))
    assert "--secret=id=downloads,src=" in command and "s3cret" not in command
    source = command.partition("src=")[2].split()[0]
    assert not Path(source).exists(), "the secret outlived the build"
