"""Parts shared by the data sets: facts, listings, splits, few-shot draws, downloads, rendering."""
