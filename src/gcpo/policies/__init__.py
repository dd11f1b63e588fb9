"""Policies that come with the package, and how a policy is named.

``"starter"`` half knows the built-in tasks, so that a first run has something to improve within minutes on a CPU;
its model card is ``starter/README.md``, its recipe ``gcpo.policies.pretrain``.
"""

from pathlib import Path

POLICIES: dict[str, Path] = {"starter": Path(__file__).parent / "starter"}


def resolve(name: str) -> str:
    """What ``from_pretrained`` needs for a policy: the directory of a packaged or a local one, or a Hub id unchanged.

    Raises:
        ValueError: ``name`` is a local path, but no policy is there.
    """
    if name in POLICIES:
        return str(POLICIES[name])
    path = Path(name).expanduser()
    if not (name.startswith((".", "/", "~")) or path.exists()):
        return name
    if not (path / "config.json").is_file():
        known = ", ".join(POLICIES)
        raise ValueError(
            f"a local policy must be a directory with a config.json, found none in {name!r}: "
            f"pass the directory that save_pretrained wrote, a Hub id, or one of: {known}."
        )
    return str(path)
