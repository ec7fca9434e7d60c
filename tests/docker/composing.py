"""The Compose file as a program sees it: variables filled in, anchors merged."""

import re
from collections.abc import Mapping
from typing import Any

import yaml

from tests.needs import PROJECT

DOCKER = PROJECT / "docker"
_VARIABLE = re.compile(r"\$\$|\$\{(?P<name>\w+)(?::-(?P<default>[^}]*))?\}")


def compose(environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The Compose file; what `environment` does not set has its default."""
    given = environment or {}

    def value(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        return given.get(match["name"]) or match["default"] or ""

    text = (DOCKER / "compose.yaml").read_text()
    # Comments may speak of variables, too.
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    loaded: dict[str, Any] = yaml.safe_load(_VARIABLE.sub(value, "\n".join(lines)))
    return loaded


def variables() -> dict[str, str]:
    """Every variable of the Compose file with its default."""
    text = (DOCKER / "compose.yaml").read_text()
    return {m["name"]: m["default"] or "" for m in _VARIABLE.finditer(text) if m["name"]}


def settings(text: str) -> dict[str, str]:
    """The assignments of an .env file."""
    lines = (line.strip() for line in text.splitlines())
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {name: value for name, _, value in pairs}
