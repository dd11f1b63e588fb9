"""The releases of TRL that may be installed, those the hook check recommends and those that were run are the same."""

import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from gcpo.integrations.releases import TESTED

ROOT = Path(__file__).parents[2]


def rows():
    page = (ROOT / "docs" / "results" / "versions.md").read_text()
    lines = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| 1.")]
    return [(cells[0], [cell.split(" / ") for cell in cells[3:10]]) for cells in lines]


def test_a_release_that_ran_is_allowed_if_everything_but_equal_bits_passed_with_some_transformers():
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["trl"]
    allowed = next(r.specifier for r in map(Requirement, extra) if r.name == "trl")
    passed: dict[str, bool] = {}
    for release, checks in rows():
        if ["-"] not in checks:  # where TRL itself cannot be imported, with that transformers
            passed[release] = passed.get(release, False) or all(p == n for p, n in checks)
    assert len(passed) > 1
    for specifier in (allowed, SpecifierSet(TESTED)):
        assert {release: release in specifier for release in passed} == passed
