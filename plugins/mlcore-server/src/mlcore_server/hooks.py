"""What mlcore-server brings, by name; nothing is imported before it is asked for."""
