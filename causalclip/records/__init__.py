"""The records of a run: run.json, results.json and predictions.npz; search.json of a search."""
