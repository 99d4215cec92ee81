"""Which engines there are, by the names that settings and uploads have for them."""

from __future__ import annotations

import contextlib

from . import upstream_engine
from .engine import Engine, HomeEngine
from .llm import LanguageModel
from .settings import Settings, SettingsError


def check_installed(settings: Settings) -> None:
    """Nothing, where the engine that the settings name can be used.

    Raises:
        SettingsError: its package is not installed; the text says what to do.
    """
    if settings.engine == "upstream":
        upstream_engine.installed_version()


def engines_of(settings: Settings, llm: LanguageModel) -> dict[str, Engine]:
    """Those that can be used, asking *llm*. Raises as :func:`check_installed` does."""
    check_installed(settings)
    home = HomeEngine(llm, summaries=settings.summaries, patience=settings.llm_patience_seconds)
    engines: dict[str, Engine] = {"home": home}
    with contextlib.suppress(SettingsError):
        engines["upstream"] = upstream_engine.UpstreamEngine(settings, home)
    return engines


def engine_of(settings: Settings, llm: LanguageModel) -> Engine:
    """The engine that the settings name. Raises as :func:`check_installed` does."""
    return engines_of(settings, llm)[settings.engine]
