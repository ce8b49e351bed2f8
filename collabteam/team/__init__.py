"""A camera's team: networks, folds, training, votes."""
