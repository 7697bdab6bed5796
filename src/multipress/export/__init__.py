"""Write an artifact as files that other programs open, and check that they give its answers."""

from multipress.export.files import FORMATS, Export, exports_in, known_exports, read_export
from multipress.export.write import check_source, export_artifact

__all__ = ["FORMATS", "Export", "check_source", "export_artifact", "exports_in", "known_exports", "read_export"]
