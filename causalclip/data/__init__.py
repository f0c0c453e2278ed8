"""What the data sets share: facts, listings, splits, few-shot draws, downloads, rendering."""
