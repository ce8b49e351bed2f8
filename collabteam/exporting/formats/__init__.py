"""The export formats: each module holds one :class:`~collabteam.exporting.base.ExportFormat`."""
