"""The report page: a study as one HTML file, and its figures and tables as separate files."""
