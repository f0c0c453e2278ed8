"""CDC's mathematics: evidence and its fusion, losses, the views of the templates. Torch alone."""
