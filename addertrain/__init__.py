"""addertrain: train AdderNets, networks whose layers measure similarity by -sum|x - w|, at scale."""

__version__ = "0.1.0"
