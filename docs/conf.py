"""The site: ``sphinx-build -W docs DIRECTORY``. Pages are plain Markdown that also reads well where it lies."""

import re
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import methods  # noqa: E402

import gcpo  # noqa: E402

project = "gcpo"
author = "The gcpo developers"
version = release = gcpo.__version__
html_theme = "furo"
html_title = f"gcpo {release}"
html_show_copyright = False

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["README.md"]  # index.rst has it
myst_heading_anchors = 3

autodoc_member_order = "bysource"
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # else fields are described twice


def read(app: Any, docname: str, source: list[str]) -> None:
    """The method index as the code has it now, whatever the file says; and links by title where they name a file."""
    text = methods.page() if docname == "methods" else source[0]
    source[0] = re.sub(r"\[[\w/.]+\.md\]\(", "[](", text)


def setup(app: Any) -> None:
    """What Sphinx asks for."""
    app.connect("source-read", read)
