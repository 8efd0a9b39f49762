"""Versions of Python and of the packages; imports none of them."""

from __future__ import annotations

import contextlib
import importlib.metadata
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement

from lightning_zoo.doctor import Finding

# (package, version): why it is refused
STOLE = "carried code that stole credentials (GHSA-w37p-236h-pfx3)"
HARMFUL = {
    (package, version): STOLE
    for package in ("lightning", "pytorch-lightning")
    for version in ("2.6.2", "2.6.3")
}
# packages that take each other's place under one name
SAME_NAME = {
    "albumentations": ("albumentations", "albumentationsx"),
    "cv2": (
        "opencv-python-headless",
        "opencv-python",
        "opencv-contrib-python-headless",
        "opencv-contrib-python",
    ),
}


def installed(package: str) -> str | None:
    """Return a package's version, None where it is not installed."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(package)
    return None


def requirements() -> tuple[str, list[Requirement]]:
    """Return the Python that we need, and the packages with their extras' names in the marker.

    They are read from what is installed, or from the checkout.
    """
    project = Path(__file__).parents[2] / "pyproject.toml"
    if project.is_file():
        facts = tomllib.loads(project.read_text(encoding="utf-8"))["project"]
        if facts["name"] == "lightning_zoo":
            lines = list(facts["dependencies"])
            for extra, packages in facts["optional-dependencies"].items():
                lines += [f'{package}; extra == "{extra}"' for package in packages]
            return facts["requires-python"], [Requirement(line) for line in lines]
    found = importlib.metadata.metadata("lightning_zoo")
    lines = found.get_all("Requires-Dist") or []
    return found["Requires-Python"] or "", [Requirement(line) for line in lines]


def look_at_versions() -> Iterator[Finding]:
    """Yield a finding for Python, one for each package that we need, one for all optional ones."""
    python, needed = requirements()
    here = ".".join(map(str, sys.version_info[:3]))
    if Requirement(f"python{python}").specifier.contains(here, prereleases=True):
        yield Finding("python", "ok", here)
    else:
        yield Finding("python", "fail", here, f"install Python {python}")
    for requirement in needed:
        if requirement.marker is None:
            yield look_at(requirement)
    for (package, version), reason in HARMFUL.items():
        if installed(package) == version and package not in {r.name for r in needed}:
            yield _harmful(package, version, reason)
    for names in SAME_NAME.values():
        yield from _rivals(names)
    extras: dict[str, str] = {}
    for requirement in needed:
        if requirement.marker is None or 'extra == "test"' in str(requirement.marker):
            continue
        if (there := installed(requirement.name)) is None:
            continue
        extras[requirement.name] = there
        if not requirement.specifier.contains(there, prereleases=True):
            fix = f"pip install '{requirement.name}{requirement.specifier}'"
            yield Finding(requirement.name, "warn", f"{there}, too old", fix)
    listed = ", ".join(f"{name} {version}" for name, version in extras.items())
    yield Finding("optional", "ok", listed or "none installed")


def look_at(requirement: Requirement) -> Finding:
    """Return what is to be said of one package that we need."""
    name, version = requirement.name, installed(requirement.name)
    install = f"pip install '{name}{requirement.specifier}'"
    if version is None:
        # another of the same name may do, and is spoken of there
        others = [v for names in SAME_NAME.values() if name in names for v in names[1:]]
        if name.startswith("opencv") and any(installed(other) for other in others):
            return Finding(name, "ok", "another of OpenCV's packages is installed")
        return Finding(name, "fail", "not installed", install)
    if (reason := HARMFUL.get((name, version))) is not None:
        return _harmful(name, version, reason)
    if not requirement.specifier.contains(version, prereleases=True):
        return Finding(name, "fail", f"{version}; we need {requirement.specifier}", install)
    return Finding(name, "ok", version)


def _harmful(name: str, version: str, reason: str) -> Finding:
    fix = f"pip uninstall {name}, change every key that this machine knows, then pip install {name}"
    return Finding(name, "fail", f"{version} {reason}", fix)


def _rivals(names: tuple[str, ...]) -> Iterator[Finding]:
    there = [name for name in names if installed(name)]
    if names[0] == "albumentations":
        if "albumentationsx" in there:
            fix = "pip uninstall albumentationsx; pip install --force-reinstall 'albumentations<3'"
            yield Finding("albumentationsx", "fail", "stands in albumentations' place", fix)
    elif len(there) > 1:
        fix = f"pip uninstall {' '.join(there)}; pip install {names[0]}"
        yield Finding("opencv", "warn", f"{' and '.join(there)} overwrite each other", fix)
