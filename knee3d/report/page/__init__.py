"""A knee as one page to open from disk: the knee to look at, what was measured, what to bear in mind."""

from knee3d.report.page.content import KneePage
from knee3d.report.page.html import write_page

__all__ = ["KneePage", "write_page"]
