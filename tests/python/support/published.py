"""Files out of packages that others published."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path


def installed(package: str, *parts: str) -> Path:
    """A file of an installed package, which is not imported: these want packages of their own."""
    spec = find_spec(package)
    assert spec is not None, f"{package} is not installed; run make dev"
    assert spec.origin is not None
    return Path(spec.origin).parent.joinpath(*parts)
