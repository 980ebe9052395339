"""Benchmarks: `addertrain bench ops` times operators layer by layer, `bench step` complete training steps."""
