"""Files of mlcore in Azure Blob Storage."""

__all__: list[str] = []
