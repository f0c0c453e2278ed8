"""Tables and statistics of many results."""
