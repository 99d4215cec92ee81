"""Settings of the service, read from environment variables once at start.

Every variable ``NAME`` may instead be given as ``NAME_FILE``: the path of a file that
holds the value, so that secrets stay out of the process environment.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .private_names import host_of, is_private

PREFIX = "PAGEINDEX_"


class SettingsError(ValueError):
    """A setting is missing or has a value that cannot be used."""


@dataclass(frozen=True)
class Settings:
    """All settings; durations in seconds, sizes in bytes, context in tokens."""

    data_directory: Path = Path("/data")
    listen_address: str = "0.0.0.0"
    listen_port: int = 3000
    log_level: str = "info"

    llm_url: str = "http://vllm:8000/v1"
    llm_model: str = "pageindex-llm"
    llm_api_key: str = ""
    llm_concurrency: int = 8
    llm_timeout_seconds: float = 120.0
    #: How long a gateway before the model server may hold a request back; comes on top of the timeout.
    llm_wait_seconds: float = 0.0
    #: How long indexing waits for a model server that is away.
    llm_patience_seconds: float = 900.0
    #: How long a person waiting for an answer waits for it.
    llm_query_patience_seconds: float = 45.0
    #: 0 asks the server; set it for servers whose /v1/models does not tell.
    llm_context_tokens: int = 0
    #: Merged into every request; some servers refuse keys they do not know: set {} there.
    llm_extra_body: dict[str, Any] = field(default_factory=lambda: {"chat_template_kwargs": {"enable_thinking": False}})

    max_upload_bytes: int = 200 * 1024 * 1024
    max_pages: int = 5000
    extraction_timeout_seconds: float = 600.0
    extraction_memory_bytes: int = 2 * 1024**3
    #: Upper bound of document text in one answer prompt, however large the context is.
    reading_tokens: int = 8000
    answer_tokens: int = 400
    #: Whether requests need a key: "true", "false", or "auto": unless it listens on loopback alone.
    require_key: str = "auto"
    #: A further file of keys, made elsewhere and only read here; empty for none.
    shared_keys: str = ""
    #: Of one key; 0 is no limit.
    requests_per_minute: int = 600
    #: Whether the audit log has the text of questions, and how long it keeps anything; 0 is for ever.
    audit_questions: bool = False
    audit_days: int = 365
    #: Documents are erased so many days after they came; 0 keeps them.
    retention_days: int = 0
    #: The documents may be read by a model server that is not on this machine or its private network.
    llm_external: bool = False

    #: "llm" asks the model for summaries, "extract" takes the first sentences.
    summaries: str = "llm"
    #: "home" is ours, "upstream" PageIndex's own, where its package is installed.
    engine: str = "home"
    #: Longest indexing of one document by an engine that runs in a process of its own.
    engine_timeout_seconds: float = 3600.0

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Build settings from *environment*.

        Raises:
            SettingsError: naming the variable, what was found and what was expected.
        """
        values: dict[str, Any] = {}
        defaults = cls()
        for name in cls.__dataclass_fields__:
            variable = PREFIX + name.upper()
            text = _read(environment, variable)
            if text is None:
                continue
            values[name] = _convert(variable, text, getattr(defaults, name))
        settings = cls(**values)
        if settings.summaries not in ("llm", "extract"):
            raise SettingsError(f"{PREFIX}SUMMARIES is {settings.summaries!r}; expected 'llm' or 'extract'")
        if settings.engine not in ("home", "upstream"):
            raise SettingsError(f"{PREFIX}ENGINE is {settings.engine!r}; expected 'home' or 'upstream'")
        if not settings.llm_url.startswith(("http://", "https://")):
            raise SettingsError(f"{PREFIX}LLM_URL is {settings.llm_url!r}; expected something like http://vllm:8000/v1")
        if settings.require_key not in ("auto", "true", "false"):
            raise SettingsError(f"{PREFIX}REQUIRE_KEY is {settings.require_key!r}; expected auto, true or false")
        if not settings.llm_external and not is_private(host_of(settings.llm_url)):
            raise SettingsError(
                f"{PREFIX}LLM_URL is {settings.llm_url!r}, not of this machine or a private network: the text of "
                f"documents would leave it. If that is wanted, set {PREFIX}LLM_EXTERNAL=true; the page says so then"
            )
        return settings

    @property
    def key_required(self) -> bool:
        """Whether a request needs a key."""
        if self.require_key != "auto":
            return self.require_key == "true"
        return self.listen_address not in ("127.0.0.1", "::1", "localhost")


def _read(environment: Mapping[str, str], variable: str) -> str | None:
    file_name = environment.get(variable + "_FILE")
    if file_name:
        try:
            return Path(file_name).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise SettingsError(f"{variable}_FILE names {file_name}, which cannot be read: {error}") from error
    return environment.get(variable)


def _convert(variable: str, text: str, default: Any) -> Any:
    try:
        if isinstance(default, bool):
            if text not in ("true", "false"):
                raise ValueError("neither true nor false")
            return text == "true"
        if isinstance(default, int):
            return int(text)
        if isinstance(default, float):
            return float(text)
        if isinstance(default, dict):
            value = json.loads(text or "{}")
            if not isinstance(value, dict):
                raise ValueError("not a JSON object")
            return value
        if isinstance(default, Path):
            return Path(text)
    except ValueError as error:
        raise SettingsError(f"{variable} is {text!r}; expected a value like {default!r} ({error})") from error
    return text
