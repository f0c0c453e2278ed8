"""Files: written atomically, downloaded and verified, stored in caches."""
