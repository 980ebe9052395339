"""Compares the compiled kernels with the reference on every layer of a network, before a run trusts them."""

from addertrain.proof.layers import ProvenLayer, layers_of
from addertrain.proof.operators import CompiledOperators, Operators
from addertrain.proof.proving import Failure, Outcome, prove
from addertrain.proof.store import ProofStore

__all__ = [
    "CompiledOperators",
    "Failure",
    "Operators",
    "Outcome",
    "ProofStore",
    "ProvenLayer",
    "layers_of",
    "prove",
]
