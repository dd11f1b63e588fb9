"""What a wheel and a source distribution hold: ``python tests/release/contents.py DIST``."""

import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
BESIDE = {"README.md", "CHANGELOG.md", "CITATION.cff", "LICENSE", "pyproject.toml", "PKG-INFO", ".gitignore"}


def package() -> set[str]:
    """Every file of the package that is no leaving of an interpreter."""
    files = (path for path in (ROOT / "src" / "gcpo").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(ROOT / "src").as_posix() for path in files}


def compare(archive: Path, found: set[str], expected: set[str]) -> None:
    """Exit with a sentence unless the archive holds what it should and no more."""
    for wrong, what in ((expected - found, "lacks"), (found - expected, "should not have")):
        if wrong:
            sys.exit(f"{archive.name} {what} {', '.join(sorted(wrong))}: see [tool.hatch.build] in pyproject.toml.")


def check(dist: Path) -> None:
    """The wheel is the package and its metadata; the source distribution is what a wheel is built from."""
    [wheel], [source] = dist.glob("*.whl"), dist.glob("*.tar.gz")
    files = package()
    for needed in ("gcpo/py.typed", "gcpo/report/page.html", "gcpo/policies/starter/model.safetensors"):
        assert needed in files, needed
    info = f"{'-'.join(wheel.name.split('-')[:2])}.dist-info"
    metadata = {f"{info}/{name}" for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE")}
    compare(wheel, set(zipfile.ZipFile(wheel).namelist()), files | metadata)
    with tarfile.open(source) as tar:
        inside = {name.partition("/")[2] for name in tar.getnames()}
    compare(source, inside, {f"src/{name}" for name in files} | BESIDE)


if __name__ == "__main__":
    check(Path(sys.argv[1]))
