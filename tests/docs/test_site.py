"""What of the documentation is made by code is what the code makes now, and nothing public is left out.

That the site builds without a warning is a step of the gate.
"""

import runpy
from pathlib import Path

import pytest

from tests.release.api import PUBLIC

DOCS = Path(__file__).parents[2] / "docs"


def made(script: str):
    return runpy.run_path(str(DOCS / script))


def test_the_method_index_is_that_of_the_code():
    page = made("methods.py")["page"]()
    assert page == (DOCS / "methods.md").read_text(encoding="utf-8"), "run `python docs/methods.py`"


def test_a_new_signal_is_in_the_index(monkeypatch):
    from gcpo.signals import SIGNALS, Signal, reward_spread

    new = Signal("brand_new", reward_spread, None, lambda n: n * 0, "arXiv 0000.00000")
    monkeypatch.setitem(SIGNALS, new.name, new)
    assert "| [`brand_new`](#reward_spread) | rewards |" in made("methods.py")["page"]()


def test_a_method_without_its_degenerate_cases_is_named():
    sections = made("methods.py")["_sections"]
    with pytest.raises(ValueError, match=r"docstring of test_site has no formula"):
        list(sections([test_a_method_without_its_degenerate_cases_is_named]))


def test_pictures_are_those_of_the_code():
    for name, picture in made("pictures.py")["pictures"]().items():
        assert picture == (DOCS / "pictures" / name).read_text(encoding="utf-8"), "run `python docs/pictures.py`"


def test_the_reference_has_every_public_module():
    reference = (DOCS / "api.rst").read_text(encoding="utf-8")
    for module, names in PUBLIC.items():
        assert f"module:: {module}\n" in reference, module
        assert all(name in reference for name in names), module


def test_every_page_is_in_the_index():
    text = (DOCS / "README.md").read_text(encoding="utf-8")
    for page in DOCS.glob("*.md"):
        assert page.name == "README.md" or f"({page.name})" in text, page.name
