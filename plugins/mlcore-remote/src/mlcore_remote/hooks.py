"""What mlcore-remote brings, by name; nothing is imported before it is asked for."""
