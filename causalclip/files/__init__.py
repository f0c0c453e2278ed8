"""Files: written whole or not at all, fetched and checked, kept in caches."""
