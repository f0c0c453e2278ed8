"""Results: written, read, and turned into tables, statistics and figures."""
