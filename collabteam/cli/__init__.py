"""The command line: Hydra's edge and sweeps."""
