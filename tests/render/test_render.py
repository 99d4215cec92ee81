"""Everything that site.yml would write, for every inventory, example and distribution, without a host."""

from __future__ import annotations

import ast
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.render.host_checks import Check, compose_checks, haproxy_checks, shell_checks, unit_checks
from tests.render.rendering import CASES, REPOSITORY, Rendered, render
from tests.skip_list import skip

ALL_CASES = [
    pytest.param(inventory, name, id=f"{inventory}-{name}") for inventory in CASES for name in CASES[inventory]
]
SERVICES = ("vllm", "pageindex", "gateway")
# Where a fallback is wanted.
WITH_FALLBACK = ("every_option",)
# A card of each rendered host is checked with these programs on three different hosts, not on all.
CHECKED = [("home", "trixie"), ("home", "every_option"), ("staging", "staging")]
CHECKED_CASES = [pytest.param(inventory, name, id=f"{inventory}-{name}") for inventory, name in CHECKED]


def rendered(inventory: str, name: str) -> Rendered:
    return render(inventory)[0][name]


def services(name: str) -> tuple[str, ...]:
    """The services of a case."""
    return (*SERVICES, "ollama") if name in WITH_FALLBACK else SERVICES


def compose(case: Rendered, service: str) -> dict[str, Any]:
    """One service of a rendered Compose file."""
    [text] = [content for path, content in case.files.items() if path.endswith(f"/{service}/compose.yml")]
    return yaml.safe_load(text)


def run(check: Check, folder: Path) -> None:
    """Lay out the files and run the command. AssertionError with its output when it fails."""
    for name, content in check.files.items():
        (folder / name).write_text(content, encoding="utf-8")
    finished = subprocess.run(
        check.command, shell=True, cwd=folder, capture_output=True, text=True, check=False, timeout=60
    )
    assert finished.returncode == 0, f"{check.name}: {finished.stdout}{finished.stderr}"


def available(check: Check) -> bool:
    return subprocess.run(check.program, shell=True, capture_output=True, check=False).returncode == 0


def test_every_template_is_rendered() -> None:
    read = frozenset().union(*(render(inventory)[1] for inventory in CASES))
    templates = {path for path in (REPOSITORY / "templates").rglob("*") if path.is_file() and path.suffix != ".pyc"}
    assert templates - read == set()


@pytest.mark.parametrize(("inventory", "name"), ALL_CASES)
def test_every_service_is_rendered(inventory: str, name: str) -> None:
    files = rendered(inventory, name).files
    assert {path.split("/")[-2] for path in files if path.endswith("/compose.yml")} == set(services(name))
    leftovers = [path for path, content in files.items() if "{{" in content or "{%" in content]
    # A Python source that travels as it is may speak of braces.
    assert [path for path in leftovers if not path.endswith(".py")] == []


@pytest.mark.parametrize(("inventory", "name"), ALL_CASES)
def test_containers_are_locked_down(inventory: str, name: str) -> None:
    for service in services(name):
        project = compose(rendered(inventory, name), service)
        [(key, container)] = project["services"].items()
        if service == "vllm":
            # The same file in two services: Compose takes the name of the folder.
            assert "name" not in project and key not in ("vllm", "vllm-2")
            assert container["container_name"] == "${COMPOSE_PROJECT_NAME}"
        else:
            assert project["name"] == container["container_name"] == service
        assert container["read_only"] is True
        assert container["cap_drop"] == ["ALL"] and "cap_add" not in container
        assert container["security_opt"] == ["no-new-privileges:true"]
        assert container["restart"] == "no"
        assert "privileged" not in container and container.get("network_mode") is None
        assert {"max-size", "max-file"} <= set(container["logging"]["options"])
        assert container["healthcheck"]["test"]
        assert ":" in container["image"]
        assert len(container["labels"]["pageindex-home.config-hash"]) == 16
        # The networks are made by the roles; one way out more only where the owner has allowed it.
        own = {name for name, network in project["networks"].items() if not network.get("external")}
        assert own == ({"outside"} if (service, name) == ("pageindex", "every_option") else set())
        writable = [mount for mount in container["volumes"] if not mount.get("read_only")]
        ours = ("/srv/pageindex-home/data/", *(["/usr/share/ollama/"] if name in WITH_FALLBACK else []))
        assert all(mount["source"].startswith(ours) for mount in writable), writable


@pytest.mark.parametrize(("inventory", "name"), ALL_CASES)
def test_only_the_gateway_publishes_and_only_on_loopback_unless_told(inventory: str, name: str) -> None:
    published = {}
    for service in services(name):
        [container] = compose(rendered(inventory, name), service)["services"].values()
        published[service] = container.get("ports", [])
    assert published["vllm"] == published["pageindex"] == published.get("ollama", []) == []
    assert published["gateway"]
    outside = [port for port in published["gateway"] if not port.startswith(("127.0.0.1:", "[::1]:"))]
    address = {"staging": "0.0.0.0", "every_option": "192.0.2.10", "acme": "192.0.2.11"}.get(name)
    assert outside == ([f"{address}:{port}:{port}" for port in (8443, 3443)] if address else [])


@pytest.mark.parametrize(("inventory", "name"), ALL_CASES)
def test_other_machines_are_asked_for_a_key_by_both_frontends(inventory: str, name: str) -> None:
    files = rendered(inventory, name).files
    [config] = [content for path, content in files.items() if path.endswith("/haproxy.cfg")]
    wanted = 2 if name in ("staging", "every_option", "acme") else 0
    assert config.count(" ssl crt /certificates/server.pem ") == wanted
    assert config.count("if outside !has_key !open_path") == wanted
    assert config.count("Strict-Transport-Security") == (2 if name in ("every_option", "acme") else 0)


HOOK = "/etc/letsencrypt/renewal-hooks/deploy/pageindex-home"
DROP_IN = "/etc/systemd/system/certbot.service.d/pageindex-home.conf"


def test_a_certificate_by_acme_is_got_shown_and_renewed() -> None:
    case = rendered("home", "acme")
    [asked] = case.arguments("acme_certificate")
    assert asked["names"] == ["ai.example.com", "*.ai.example.com"] and asked["challenge"][0] == "--dns-cloudflare"
    assert asked["server"] == "https://acme-v02.api.letsencrypt.org/directory"
    assert {"names": ["certbot", "python3-certbot-dns-cloudflare"]} in case.arguments("packages")
    # It is there before anything points to it.
    modules = [module for module, _ in case.calls]
    asks = modules.index("acme_certificate")
    writes = next(
        number
        for number, (module, arguments) in enumerate(case.calls)
        if module == "file_set" and any(file["path"] == HOOK for file in arguments.get("files", []))
    )
    assert asks < writes < modules.index("gateway_certificate")
    [settings] = [json.loads(text) for path, text in case.files.items() if path.endswith("/certificate/settings.json")]
    live = "/etc/letsencrypt/live/pageindex-home"
    assert (settings["certificate"], settings["key"]) == (f"{live}/fullchain.pem", f"{live}/privkey.pem")
    assert settings["renew_with"] == "certbot renew --cert-name pageindex-home"
    assert "systemctl start pageindex-home-certificate.service\n" in case.files[HOOK]
    assert "EnvironmentFile=-/etc/pageindex-home/downloads.env" in case.files[DROP_IN]
    assert "certbot.timer" in [call["unit"] for call in case.arguments("unit_current")]


@pytest.mark.parametrize(("inventory", "name"), ALL_CASES)
def test_where_acme_is_not_wanted_nothing_of_it_is_left(inventory: str, name: str) -> None:
    case = rendered(inventory, name)
    absent = {path for call in case.arguments("file_set") for path in call.get("absent", [])}
    if name == "acme":
        assert not {HOOK, DROP_IN} & absent
        return
    assert {HOOK, DROP_IN} <= absent and not {HOOK, DROP_IN} & set(case.files)
    assert case.arguments("acme_certificate") == []
    assert not [call for call in case.arguments("packages") if "certbot" in call.get("names", [])]


def cards(container: dict[str, Any]) -> list[str]:
    """The CDI names of the cards that a Compose service reserves."""
    [reservation] = container["deploy"]["resources"]["reservations"]["devices"]
    assert reservation["driver"] == "cdi"
    return list(reservation["device_ids"])


WITH_CARDS = [case for case in ALL_CASES if case.values[1] != "cpu_only"]


@pytest.mark.parametrize(("inventory", "name"), WITH_CARDS)
def test_cards_come_by_cdi(inventory: str, name: str) -> None:
    [container] = compose(rendered(inventory, name), "vllm")["services"].values()
    assert cards(container) and all(device.startswith("nvidia.com/gpu=") for device in cards(container))
    assert "runtime" not in container and "devices" not in container


def test_a_host_without_cards_gets_the_processors_image_and_nothing_of_nvidia() -> None:
    case = rendered("home", "cpu_only")
    [container] = compose(case, "vllm")["services"].values()
    assert "deploy" not in container and "devices" not in container
    words = container["command"]
    assert words[words.index("--dtype") + 1] == "bfloat16" and words[words.index("--max-num-seqs") + 1] == "4"
    assert "--gpu-memory-utilization" not in words
    [build] = [call for call in case.arguments("container_image") if call["repository"] == "pageindex-home/vllm"]
    assert build["base_image"].startswith("vllm/vllm-openai-cpu:v")
    survey = case.arguments("host_survey")[0]
    assert survey["package_names"]["driver"] == survey["package_names"]["toolkit"] == []
    assert "models" in survey["paths"] and "model hub" in {source["name"] for source in survey["sources"]}
    assert not [path for path in case.files if "nvidia" in path]
    for module in ("gpu_power", "container_gpu_probe", "cdi_current"):
        assert case.arguments(module) == [], module


def test_the_hub_is_asked_about_a_model_of_ones_own_only() -> None:
    asked = rendered("staging", "staging").arguments("hub_model")
    assert {call["repository"] for call in asked} == {"HuggingFaceTB/SmolLM2-135M-Instruct"}
    # Before the host has settings of its own, and with them.
    assert [bool(call["proxies"].get("no_proxy") is not None) for call in asked] == [True, False]
    assert rendered("home", "trixie").arguments("hub_model") == []


@pytest.mark.parametrize(
    ("name", "replicas"),
    [("one_card", [[0]]), ("two_cards_30b_a3b", [[0], [1]]), ("two_cards_32b", [[0, 1]]), ("cpu_only", [[]])],
)
def test_each_replica_has_cards_of_its_own(name: str, replicas: list[list[int]]) -> None:
    case = rendered("home", name)
    [record] = [call["record"] for call in case.arguments("llm_deployment")]
    assert record["replicas"] == replicas and record["gpus"] == [gpu for gpus in replicas for gpu in gpus]
    if replicas[0]:
        [container] = compose(case, "vllm")["services"].values()
        # One file for all of them: .env says which cards (llm_switch.rollout).
        assert cards(container) == [f"nvidia.com/gpu=${{CARD_{number}}}" for number in range(len(replicas[0]))]


def test_one_card_gets_one_server() -> None:
    [container] = compose(rendered("home", "one_card"), "vllm")["services"].values()
    words = container["command"]
    assert words[words.index("--tensor-parallel-size") + 1] == "1"


def test_secrets_are_files_that_only_their_user_reads() -> None:
    case = rendered("home", "every_option")
    secret = "not-a-real-key"
    holders = [
        file
        for arguments in case.arguments("file_set")
        for file in arguments.get("files", [])
        if secret in file["content"]
    ]
    assert [(file["mode"], file["secret"]) for file in holders] == [("0400", True)]
    assert not any(secret in json.dumps(arguments) for arguments in case.arguments("container_image"))


@pytest.mark.parametrize(("case", "engine"), [("one_card", "home"), ("every_option", "upstream")])
def test_the_second_indexing_engine_is_in_the_image_only_where_it_is_asked_for(case: str, engine: str) -> None:
    given = [image.get("build_args", {}) for image in rendered("home", case).arguments("container_image")]
    assert [arguments["ENGINE"] for arguments in given if "ENGINE" in arguments] == [engine]
    [container] = compose(rendered("home", case), "pageindex")["services"].values()
    assert container["environment"].get("PAGEINDEX_ENGINE") == (None if engine == "home" else engine)


def test_limits_are_the_inventorys() -> None:
    wanted = {"vllm": (12, 4096, "64g"), "pageindex": (2.5, 256, "3g"), "gateway": (1, 128, "512m")}
    wanted["ollama"] = (4, 1024, "12g")
    for service, limits in wanted.items():
        [container] = compose(rendered("home", "every_option"), service)["services"].values()
        assert (container["cpus"], container["pids_limit"], container["mem_limit"]) == limits
        if service not in SERVICES:
            continue
        [container] = compose(rendered("home", "trixie"), service)["services"].values()
        assert "cpus" not in container


def test_a_fallback_is_all_or_nothing() -> None:
    """Without a model nothing of it is written, fetched or known to the gateway; with one, all of it is."""
    for case, wanted in ((rendered("home", "trixie"), False), (rendered("home", "every_option"), True)):
        assert any("/ollama/" in path for path in case.files) is wanted
        assert bool(case.arguments("ollama_model")) is wanted
        [config] = [content for path, content in case.files.items() if path.endswith("/haproxy.cfg")]
        assert ("ollama:11434" in config) is wanted
        removed = [
            arguments
            for arguments in case.arguments("removed")
            if "pageindex-home/ollama" in arguments.get("images", [])
        ]
        # Not the folders of the other services, which are in use.
        assert [arguments["empty_folders"] for arguments in removed] == ([] if wanted else [[]])


def test_the_fallback_has_the_names_and_the_models_that_it_was_given() -> None:
    case = rendered("home", "every_option")
    [fetched] = case.arguments("ollama_model")
    assert fetched["names"] == ["pageindex-llm", "gpt-4o"]
    assert fetched["directory"] == "/usr/share/ollama/.ollama/models"
    [container] = compose(case, "ollama")["services"].values()
    assert cards(container) == ["nvidia.com/gpu=0"]
    assert {"type": "bind", "source": fetched["directory"], "target": "/models"} in container["volumes"]
    environment = container["environment"]
    assert environment["OLLAMA_KEEP_ALIVE"] == "-1" and environment["OLLAMA_NOPRUNE"] == "true"
    assert environment["OLLAMA_KV_CACHE_TYPE"] == "q8_0$$"
    # Fetched as the user who serves it.
    assert container["user"] == fetched["user"]


def test_values_with_dollars_survive_compose() -> None:
    # Compose would replace $b; doubled it stands for itself.
    [container] = compose(rendered("home", "every_option"), "vllm")["services"].values()
    assert container["environment"]["WITH_DOLLAR"] == "a$$b"


@pytest.mark.parametrize(("inventory", "name"), ALL_CASES)
def test_data_files_are_valid(inventory: str, name: str) -> None:
    case = rendered(inventory, name)
    contexts = {f"{image}/{path}": text for image, files in case.build_contexts.items() for path, text in files.items()}
    seen = set()
    for path, content in {**case.files, **contexts}.items():
        suffix = path.rsplit(".", 1)[-1]
        seen.add(suffix)
        if suffix == "json":
            json.loads(content)
        elif suffix == "py":
            ast.parse(content)
        elif suffix == "yml":
            assert isinstance(yaml.safe_load(content), dict)
    assert {"py", "yml"} <= seen


@pytest.mark.parametrize(("inventory", "name"), ALL_CASES)
def test_images_are_derived_from_pinned_ones(inventory: str, name: str) -> None:
    bases = {
        entry["repository"]: entry["base_image"] for entry in rendered(inventory, name).arguments("container_image")
    }
    assert set(bases) == {f"pageindex-home/{service}" for service in services(name)}
    for base in bases.values():
        tag = base.rsplit(":", 1)[-1]
        assert any(character.isdigit() for character in tag), base
    for files in rendered(inventory, name).build_contexts.values():
        assert "# syntax=" not in files["Dockerfile"], "that line pulls one more image"


@pytest.mark.parametrize(("inventory", "name"), ALL_CASES)
def test_package_sources_are_known_by_fingerprint(inventory: str, name: str) -> None:
    sources = [
        source
        for arguments in rendered(inventory, name).arguments("apt_repositories")
        for source in arguments["repositories"]
        if arguments.get("state") != "absent"
    ]
    assert sources
    for source in sources:
        assert source["fingerprints"] and all(len(fingerprint) == 40 for fingerprint in source["fingerprints"]), source


def driver_call(name: str) -> dict[str, Any]:
    """The call that installs the driver: the one whose first package has a branch."""
    calls = rendered("home", name).arguments("packages")
    return next(call for call in calls if str(call.get("packages", [{}])[0].get("version", "")).endswith(".*"))


@pytest.mark.parametrize(
    ("release", "pin", "driver"),
    [
        ("trixie", "nvidia-driver-pinning-595", ["nvidia-open", "nvidia-persistenced"]),
        ("bookworm", "nvidia-driver-pinning-580", ["nvidia-open", "nvidia-persistenced"]),
        ("resolute", "nvidia-driver-pinning-595", ["nvidia-open", "nvidia-persistenced"]),
        ("noble", "nvidia-driver-pinning-580", ["nvidia-open-580"]),
        ("jammy", "nvidia-driver-pinning-580", ["nvidia-open-580"]),
    ],
)
def test_each_release_gets_its_driver(release: str, pin: str, driver: list[str]) -> None:
    call = driver_call(release)
    assert [package["name"] for package in call["install_first"]] == [pin]
    assert [call["packages"][0]["name"], *call["names"]] == driver
    assert call["packages"][0]["version"] == f"{pin.rsplit('-', 1)[1]}.*"
    headers = [call["names"] for call in rendered("home", release).arguments("packages") if "packages" not in call]
    assert ["linux-headers-amd64"] in headers or ["linux-headers-generic"] in headers


@pytest.mark.parametrize(("release", "signed"), [("noble", "nvidia-driver-580-server-open"), ("trixie", None)])
def test_preflight_asks_apt_about_the_signed_driver_too(release: str, signed: str | None) -> None:
    [survey] = rendered("home", release).arguments("host_survey")
    assert next(iter(survey["package_names"]["driver_signed"]), None) == signed


def test_signed_modules_come_from_the_distribution_alone() -> None:
    case = rendered("home", "signed_modules")
    call = driver_call("signed_modules")
    assert call["install_first"] == []
    assert call["packages"][0]["name"] == "nvidia-driver-580-server-open"
    assert call["names"] == ["linux-modules-nvidia-580-server-open-generic"]
    [removed] = [call for call in case.arguments("apt_repositories") if call.get("state") == "absent"]
    assert removed["repositories"] == [{"name": "pageindex-home-nvidia-driver"}]
    assert '"linux-image";' in case.files["/etc/apt/apt.conf.d/52pageindex-home-nvidia"]


def test_module_options_are_written_one_line_a_module() -> None:
    lines = rendered("home", "signed_modules").files["/etc/modprobe.d/pageindex-home-nvidia.conf"].splitlines()
    assert lines[-3:] == [
        "options nouveau modeset=0",
        "options nvidia NVreg_DynamicPowerManagement=0",
        "options nvidia_uvm uvm_disable_hmm=1",
    ]


def run_where_available(checks: list[Check], folder: Path) -> None:
    """Run checks of one program; skip by name where it is not installed."""
    if not available(checks[0]):
        skip("program-not-on-this-machine")
    for check in checks:
        run(check, folder)


@pytest.mark.parametrize(("inventory", "name"), CHECKED_CASES)
def test_compose_accepts_the_compose_files(tmp_path: Path, inventory: str, name: str) -> None:
    found = compose_checks(rendered(inventory, name))
    assert len(found) == len(services(name))
    run_where_available(found, tmp_path)


@pytest.mark.parametrize(("inventory", "name"), CHECKED_CASES)
def test_systemd_accepts_the_units(tmp_path: Path, inventory: str, name: str) -> None:
    found = unit_checks(rendered(inventory, name))
    assert found
    run_where_available(found, tmp_path)


@pytest.mark.parametrize(("inventory", "name"), CHECKED_CASES)
def test_haproxy_accepts_its_configuration(tmp_path: Path, inventory: str, name: str) -> None:
    found = haproxy_checks(rendered(inventory, name))
    assert found
    run_where_available(found, tmp_path)


@pytest.mark.parametrize(("inventory", "name"), CHECKED_CASES)
def test_shell_accepts_the_scripts(tmp_path: Path, inventory: str, name: str) -> None:
    found = shell_checks(rendered(inventory, name))
    assert found
    for check in found:
        run(check, tmp_path)
