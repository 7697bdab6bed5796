"""What a reader sees of a study: one page, one figure, tables; made from what the analysis says."""

from multipress.report.figure import figure_svg
from multipress.report.page import report_page
from multipress.report.provenance import provenance
from multipress.report.table import cells_csv, table_markdown

__all__ = ["cells_csv", "figure_svg", "provenance", "report_page", "table_markdown"]
