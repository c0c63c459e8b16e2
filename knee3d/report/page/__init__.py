"""The page of one knee: one HTML file that opens from disk."""

from knee3d.report.page.content import KneePage
from knee3d.report.page.html import write_page

__all__ = ["KneePage", "write_page"]
