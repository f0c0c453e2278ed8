"""What the trainers share: base classes, evaluation, checkpoints, features and their cache."""
