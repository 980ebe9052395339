"""Benchmarks: `addertrain bench ops` times operators by layer, `bench step` whole training steps."""
