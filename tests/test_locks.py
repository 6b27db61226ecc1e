"""The lists of exact versions: they satisfy the requirements, agree, and name a checksum for every file."""

from __future__ import annotations

import importlib.metadata
import re

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from courseware import paths

FILES = ("requirements.txt", "requirements-dev.txt")
PYTHONS = ("3.11.0", "3.11.4", "3.11.5", "3.12.0", "3.13.0")


def read(name: str) -> str:
    return (paths.CODE / name).read_text(encoding="utf-8")


def entries(name: str) -> list[tuple[Requirement, list[str]]]:
    """Return the requirements of a file, each with its checksums."""
    text = re.sub(r"\\\n", " ", read(name))
    found = []
    for line in text.splitlines():
        line = re.sub(r"(^|\s)#.*", "", line).strip()
        if line:
            requirement, *hashes = re.split(r"\s+--hash=", line)
            found.append((Requirement(requirement), hashes))
    return found


def versions(name: str, python: str) -> dict[str, str]:
    """Return {package: exact version} of a lock, on Linux with this Python."""
    found: dict[str, str] = {}
    for requirement, _ in entries(name):
        if holds(requirement.marker, python):
            package = canonicalize_name(requirement.name)
            (pin,) = requirement.specifier
            assert pin.operator == "==" and not pin.version.endswith("*"), requirement
            assert package not in found, f"{package} has two versions for Python {python}"
            found[package] = pin.version
    return found


def holds(marker: Marker | None, python: str, extra: str = "") -> bool:
    minor = python.rpartition(".")[0]
    place = {"python_full_version": python, "python_version": minor, "extra": extra}
    return marker is None or marker.evaluate(place)


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("name", ["requirements.lock", "requirements-hashed.lock"])
def test_the_locked_versions_satisfy_the_requirements(name, python):
    locked = versions(name, python)
    for file in FILES:
        for requirement, _ in entries(file):
            version = locked[canonicalize_name(requirement.name)]
            assert requirement.specifier.contains(version, prereleases=True), requirement


@pytest.mark.parametrize("python", PYTHONS)
def test_both_locks_name_the_same_versions(python):
    exact = versions("requirements.lock", python)
    hashed = versions("requirements-hashed.lock", python)
    both = exact.keys() & hashed.keys()
    assert len(both) > 200
    assert {name: exact[name] for name in both} == {name: hashed[name] for name in both}


def test_every_locked_file_has_a_checksum():
    for name in ("requirements-hashed.lock", "requirements-real.txt"):
        for requirement, hashes in entries(name):
            assert hashes, f"{name}: {requirement} has none"
            assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", text) for text in hashes), requirement


def test_nothing_that_an_installed_package_needs_is_missing_in_the_lock_with_checksums():
    """pip refuses to install a package that the list leaves out, so one would stop the set-up."""
    locked = versions("requirements-hashed.lock", "3.11.7")
    for name in locked:
        try:
            needed = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # not on this system
        for line in needed:
            requirement = Requirement(line)
            if holds(requirement.marker, "3.11.7"):
                assert canonicalize_name(requirement.name) in locked, f"{name} needs {line}"


def test_the_command_that_renews_the_lock_stands_in_the_file_and_in_the_guide():
    command = re.search(r"^# +(uv pip compile .*)$", read("requirements-hashed.lock"), re.M)[1]
    assert command in " ".join(read("CONTRIBUTING.md").replace("\\\n", " ").split())
    for word in (*FILES, "--universal", "--generate-hashes", "--constraint requirements.lock"):
        assert word in command
