"""What a release says of itself is said once, or the same everywhere."""

import re
import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import gcpo

ROOT = Path(__file__).parents[2]
GATE = ("trl", "train", "lora", "test", "lint", "docs", "release")  # extras that the gate installs


def test_one_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    changes = re.findall(r"^## (\d\S*)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert gcpo.__version__ == project["version"] == citation["version"] == changes[0]


def test_every_dependency_has_its_pin():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(line for extra in GATE for line in extras[extra])]
    names = {canonicalize_name(Requirement(line).name) for line in wanted} - {"gcpo"}
    pins = re.findall(r"^([\w.-]+)==", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert names <= {canonicalize_name(pin) for pin in pins}
    assert len(pins) == len(set(map(canonicalize_name, pins)))
