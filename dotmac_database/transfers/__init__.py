"""Export, import and deletion of a tenant: all its rows, in every table."""

from .checking import verify_export
from .deleting import DeletionReport, delete_tenant
from .exporting import export_tenant
from .importing import ImportReport, import_tenant
from .journal import transfer_metadata
from .manifest import ExportedColumn, ExportedTable, Head, Manifest, Part
from .presence import has_rows
from .progress import OnProgress, TransferProgress
from .remaining import Remaining

__all__ = [
    "DeletionReport",
    "ExportedColumn",
    "ExportedTable",
    "Head",
    "ImportReport",
    "Manifest",
    "OnProgress",
    "Part",
    "Remaining",
    "TransferProgress",
    "delete_tenant",
    "export_tenant",
    "has_rows",
    "import_tenant",
    "transfer_metadata",
    "verify_export",
]
