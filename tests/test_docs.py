"""Every code block of README and docs runs: Python as it stands, bash in an empty directory.

The README's first two bash blocks install and test the project, and are run from a fresh clone instead.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"^```(python|bash)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks():
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        bash = 0
        for match in BLOCK.finditer(page.read_text()):
            language, code = match.groups()
            bash += language == "bash"
            if page.name == "README.md" and language == "bash" and bash <= 2:
                continue
            line = page.read_text()[: match.start()].count("\n") + 1
            yield pytest.param(language, code, id=f"{page.relative_to(ROOT)}:{line}")


@pytest.mark.parametrize(("language", "code"), list(blocks()))
def test_block_runs(language, code, tmp_path):
    command = [sys.executable, "-c", code] if language == "python" else ["bash", "-euo", "pipefail", "-c", code]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("page", [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))], ids=lambda p: p.name)
def test_local_links_and_named_files_exist(page):
    text = page.read_text()
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", text):
        assert (page.parent / target).exists(), target
    for name in re.findall(r"`((?:benchmarks|docs|examples|tests)/[\w./-]+\.\w+)`", text):
        assert (ROOT / name).exists(), name
