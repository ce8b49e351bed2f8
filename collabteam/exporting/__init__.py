"""Export labelled crops as a dataset, in the format of another tool or for PyTorch."""
