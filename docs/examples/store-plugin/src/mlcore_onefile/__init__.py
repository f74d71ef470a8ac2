"""Keep mlcore's runs in one SQLite file."""
