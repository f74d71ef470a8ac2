"""mlcore on SQL: entities as tables, and queries of them compiled to SQL, for an index and for stores of teams.

The parts are imported by name: `projection` writes entities, `reading` answers queries, `schema` has the tables.
"""

__all__: list[str] = []
