"""The report page: one HTML file of a study, and its figures and tables as files of their own."""
