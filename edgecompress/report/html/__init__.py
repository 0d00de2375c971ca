"""The pages: a report, several side by side, and a history, each one self-contained HTML file."""

from __future__ import annotations

from edgecompress.report.html.compare_page import compare
from edgecompress.report.html.report_page import render
from edgecompress.report.html.trend_page import trend

__all__ = ["compare", "render", "trend"]
