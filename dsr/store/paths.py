"""The files that dsr writes. `DSR_HOME` puts it under one folder; weights live in the Hugging Face cache."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import PlatformDirs


def _folder(kind: str) -> Path:
    home = os.environ.get("DSR_HOME")
    if home:
        return Path(home).expanduser() / kind
    dirs = PlatformDirs("dsr", appauthor=False)
    return {
        "config": dirs.user_config_path,
        "data": dirs.user_data_path,
        "state": dirs.user_state_path,
        "cache": dirs.user_cache_path,
    }[kind]


def config_file() -> Path:
    """The user's settings, TOML."""
    return _folder("config") / "config.toml"


def aliases_file() -> Path:
    """The names that the user gave to models, TOML."""
    return _folder("config") / "aliases.toml"


def nodes_file() -> Path:
    """The machines that lend their memory, TOML."""
    return _folder("config") / "nodes.toml"


def consents_file() -> Path:
    """The tools that the user allowed for good, JSON."""
    return _folder("config") / "allowed-tools.json"


def conversations_file() -> Path:
    """Every kept conversation, SQLite."""
    return _folder("data") / "conversations.sqlite"


def measurements_file() -> Path:
    """Every kept row of a bench, SQLite."""
    return _folder("data") / "measurements.sqlite"


def input_history_file() -> Path:
    """The lines that the user typed in the conversation."""
    return _folder("state") / "input-history"


def predictions_file() -> Path:
    """Predicted and measured figures of past runs, JSON lines."""
    return _folder("state") / "predictions.jsonl"


def cache_folder() -> Path:
    """Results that can be measured again: best thread counts, digests of files that were tried."""
    return _folder("cache")


def experts_folder() -> Path:
    """The expert profiles of each model, and measurements made with them."""
    return _folder("data") / "experts"


def kept_states_folder() -> Path:
    """The caches of kept conversations, one file each; dsr can make them again."""
    return cache_folder() / "conversations"
