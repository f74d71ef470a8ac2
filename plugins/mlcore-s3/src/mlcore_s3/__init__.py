"""Files of mlcore in S3 and what speaks its protocol."""

__all__: list[str] = []
