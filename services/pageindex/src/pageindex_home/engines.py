"""Which engine indexes: the one that the settings name."""

from __future__ import annotations

from . import upstream_engine
from .engine import Engine, HomeEngine
from .llm import LanguageModel
from .settings import Settings


def check_installed(settings: Settings) -> None:
    """Nothing, where the engine that the settings name can be used.

    Raises:
        SettingsError: its package is not installed; the text says what to do.
    """
    if settings.engine == "upstream":
        upstream_engine.installed_version()


def engine_of(settings: Settings, llm: LanguageModel) -> Engine:
    """The engine that the settings name, asking *llm*. Raises as :func:`check_installed` does."""
    home = HomeEngine(llm, summaries=settings.summaries, patience=settings.llm_patience_seconds)
    return upstream_engine.UpstreamEngine(settings, home) if settings.engine == "upstream" else home
