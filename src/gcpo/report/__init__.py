"""One self-contained HTML page that shows why a run learned: which groups carried signal and which were noise."""

from gcpo.report.page import build

__all__ = ["build"]
