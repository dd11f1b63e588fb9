"""Which releases of the host were tested; imports nothing, so that it can be said where the host does not fit."""

TESTED = ">=1.0,!=1.15.0,<1.17"
"""Releases of TRL, by docs/results/versions.md."""
