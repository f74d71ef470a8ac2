"""What mlcore-projects brings, by name; nothing is imported before it is asked for."""
