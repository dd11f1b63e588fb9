"""One self-contained HTML page that shows why a run learned, or what a probe found."""

from gcpo.report.page import build

__all__ = ["build"]
