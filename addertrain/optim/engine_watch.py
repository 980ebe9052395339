"""Finds backward passes whose gradients a DeepSpeed engine loses or divides twice: AdderSGD then refuses.

The adaptive rate hides both: an adder layer's step has its right length on any gradient. Reads the engine
through its hooks; DeepSpeed itself is not imported. Facts are of DeepSpeed 0.19.
"""

from collections.abc import Iterator
from typing import Any

from torch import Tensor

_KEEPS_THE_LAST = "DeepSpeedZeroOptimizer"
_MARK = "addertrain: numbers of the outputs that an engine has returned"


class BackwardWatch:
    """The backward passes between two steps of an engine with ZeRO.

    Stages 1 and 2 overwrite the gradients of a finished accumulation with those of the next backward pass;
    stages 0 and 3 add. `loss.backward()` in place of `engine.backward(loss)` divides by the number of
    accumulated steps at every tensor that the engine's forward returns: twice if one depends on another.
    """

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self._keeps_the_last = type(engine.optimizer).__name__ == _KEEPS_THE_LAST
        self._finished: set[int] = set()
        self._last_pass = -1
        self._has_path = False
        self._divides_twice = False
        engine.register_forward_hook(self._note_forward, with_kwargs=True)
        engine.optimizer.register_grad_acc_post_hook(self._note_backward)
        engine.basic_optimizer.register_step_pre_hook(self._check)

    def _note_forward(self, _: Any, args: Any, kwargs: Any, outputs: Any) -> None:
        if self._engine.gradient_accumulation_steps() > 1:
            self._has_path |= path_between_outputs((args, kwargs), outputs)

    def _note_backward(self) -> None:
        self._divides_twice |= self._has_path and not self._engine._running_engine_backward
        zero = self._engine.optimizer
        if not self._keeps_the_last:
            return
        if zero.micro_step_id < self._last_pass:  # its count restarts with a step, also after an overflow
            self._finished.clear()
        self._last_pass = zero.micro_step_id
        if zero.is_gradient_accumulation_boundary():
            self._finished.add(self._last_pass)

    def _check(self, *_: Any) -> None:
        num_passes, divides_twice = len(self._finished), self._divides_twice
        self._finished.clear()
        self._has_path = self._divides_twice = False
        if num_passes > 1:
            raise ValueError(
                f"optimizer: expected one engine.backward before engine.step, got {num_passes}, of which "
                "ZeRO stages 1 and 2 keep only the last; sum the losses, or set "
                "gradient_accumulation_steps."
            )
        if divides_twice:
            raise ValueError(
                "optimizer: expected engine.backward(loss) with gradient_accumulation_steps above 1, got "
                "loss.backward() after a forward whose outputs depend on each other, for each of which "
                "DeepSpeed divides the gradient again; call engine.backward(loss)."
            )


def path_between_outputs(inputs: Any, outputs: Any) -> bool:
    """Whether a gradient that comes from `outputs` passes two tensors that an engine has returned.

    They may be of an earlier forward pass, too: outputs are marked in the graph. It is searched only where
    there are several outputs, or inputs computed with gradients.
    """
    edges: list[tuple[Any, int]] = [
        (tensor.grad_fn, tensor.output_nr) for tensor in _tensors_of(outputs) if tensor.grad_fn
    ]
    is_repeated = False
    for node, number in edges:
        marks = node.metadata.setdefault(_MARK, set())
        is_repeated |= number in marks
        marks.add(number)
    if is_repeated:
        return True
    if len(edges) < 2 and not any(tensor.grad_fn for tensor in _tensors_of(inputs)):
        return False
    return _reaches_a_mark([node for node, _ in edges])


def _reaches_a_mark(nodes: list[Any]) -> bool:
    seen = set(nodes)
    while nodes:
        for node, number in nodes.pop().next_functions:
            if node is None:
                continue
            if number in node.metadata.get(_MARK, ()):
                return True
            if node not in seen:
                seen.add(node)
                nodes.append(node)
    return False


def _tensors_of(values: Any) -> Iterator[Tensor]:
    """The tensors among outputs, as far as DeepSpeed looks for them."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, tuple | list):
        for value in values:
            yield from _tensors_of(value)
    elif isinstance(values, dict):
        for value in values.values():
            yield from _tensors_of(value)
