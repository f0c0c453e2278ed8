"""CLIP-ICM's mathematics: interventions, the invariant subspace, its choice, the linear probe."""
