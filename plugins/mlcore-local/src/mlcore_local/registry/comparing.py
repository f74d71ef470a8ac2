"""Compare two versions of registered models: what they take and give, what they need, their files, and their runs."""
