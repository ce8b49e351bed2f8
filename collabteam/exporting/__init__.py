"""Export of the labelled crops as a dataset: formats of other tools, or a PyTorch dataset."""
