"""AdaptiveLayerRate on one process: length and direction of steps, what stays plain, state and refusals."""

import copy
import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim.lr_scheduler import LambdaLR

from addertrain.optim import AdaptiveLayerRate, AdderSGD, Lion
from addertrain.optim.layer_rate import Rule
from tests.optim.parameters import groups, largest_difference, parameters
from tests.optim.tolerances import FLOAT64, RATE
from tests.source_tree import ROOT

ETA, LR, DECAY = 0.2, 1e-2, 0.1
RULES: dict[str, Rule] = {
    "adamw": partial(torch.optim.AdamW, lr=LR, weight_decay=DECAY),
    "adam": partial(torch.optim.Adam, lr=LR, weight_decay=DECAY),
    "fused": partial(torch.optim.AdamW, lr=LR, weight_decay=DECAY, fused=True),
    "one by one": partial(torch.optim.AdamW, lr=LR, weight_decay=DECAY, foreach=False),
    "maximize": partial(torch.optim.AdamW, lr=LR, weight_decay=DECAY, maximize=True),
    "nadam": partial(torch.optim.NAdam, lr=LR, weight_decay=DECAY),
    "rmsprop": partial(torch.optim.RMSprop, lr=LR, weight_decay=DECAY, momentum=0.9),
    "adagrad": partial(torch.optim.Adagrad, lr=LR, weight_decay=DECAY),
    "adafactor": partial(torch.optim.Adafactor, lr=LR, weight_decay=DECAY),
    "lion": partial(Lion, lr=LR, weight_decay=DECAY),
}
MUON = partial(torch.optim.Muon, lr=LR, weight_decay=DECAY)
SGD = partial(torch.optim.SGD, lr=LR, weight_decay=DECAY, momentum=0.9, nesterov=True)
every_rule = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)


def _rms(values: Tensor) -> float:
    return values.detach().double().square().mean().sqrt().item()


def _set_gradients(params: list[Parameter], step: int) -> None:
    """Gradients of sizes from 1e-6 to 1 that depend on the step and not on the weights."""
    generator = torch.Generator().manual_seed(1000 + step)
    for index, param in enumerate(params):
        noise = torch.randn(param.shape, generator=generator, dtype=torch.float64)
        param.grad = (10.0 ** -(2 * (index % 4)) * noise).to(param.dtype)


def _trained(optimizer: torch.optim.Optimizer, params: list[Parameter], steps: range) -> list[Tensor]:
    for step in steps:
        _set_gradients(params, step)
        optimizer.step()
    return [param.detach().clone() for param in params]


def _step_of_filters(rule: Rule, filter_rule: Rule | None = None, **settings: Any) -> list[Tensor]:
    """What the fourth step adds to filters of zeros: no rounding of weights is in the way."""
    filters, others = parameters()
    optimizer = AdaptiveLayerRate(groups(filters, others), rule, filter_rule=filter_rule, **settings)
    _trained(optimizer, filters + others, range(3))
    with torch.no_grad():
        for param in filters:
            param.zero_()
    return _trained(optimizer, filters + others, range(3, 4))[: len(filters)]


@every_rule
def test_a_step_of_every_layer_has_the_rms_lr_times_eta(rule: Rule) -> None:
    for step in _step_of_filters(rule, eta=ETA):
        assert _rms(step) == pytest.approx(LR * ETA, rel=FLOAT64)


@every_rule
def test_doubling_eta_doubles_the_step_of_adder_filters(rule: Rule) -> None:
    for once, twice in zip(_step_of_filters(rule, eta=ETA), _step_of_filters(rule, eta=2 * ETA), strict=True):
        assert torch.equal(2 * once, twice)


def test_doubling_eta_doubles_muons_step_too() -> None:
    once, twice = (_step_of_filters(RULES["adamw"], MUON, eta=eta) for eta in (ETA, 2 * ETA))
    assert all(torch.equal(2 * a, b) for a, b in zip(once, twice, strict=True))


@every_rule
def test_the_direction_is_that_of_the_rule(rule: Rule) -> None:
    """Without a decay, which some rules add to the gradient."""
    plain_rule = partial(rule, weight_decay=0.0)
    filters, others = parameters()
    plain = plain_rule([{"params": filters + others}])
    _trained(plain, filters + others, range(3))
    before = [param.detach().clone() for param in filters]
    after = _trained(plain, filters + others, range(3, 4))
    for old, new, step in zip(before, after, _step_of_filters(plain_rule), strict=False):
        cosine = torch.nn.functional.cosine_similarity((new - old).flatten(), step.flatten(), dim=0)
        assert cosine.item() == pytest.approx(1.0, abs=FLOAT64)


def test_scaled_gradients_leave_adamw_where_it_was_and_eta_does_not() -> None:
    """Why the update is scaled: with eps = 0 a hundredfold gradient changes no bit that counts."""
    ends = []
    for scale in (1.0, 100.0):
        filters, _ = parameters()
        adamw = torch.optim.AdamW(filters, lr=LR, eps=0.0)
        for step in range(10):
            _set_gradients(filters, step)
            for param in filters:
                param.grad.mul_(scale)
            adamw.step()
        ends.append([param.detach() for param in filters])
    assert largest_difference(*ends) < FLOAT64


@every_rule
def test_other_parameters_take_the_plain_step_bit_for_bit(rule: Rule) -> None:
    filters, others = parameters(torch.float32)
    _, same = parameters(torch.float32)
    found = _trained(AdaptiveLayerRate(groups(filters, others), rule), others, range(10))
    expected = _trained(rule([{"params": same}]), same, range(10))
    assert all(map(torch.equal, found, expected))


def test_weight_decay_is_apart_from_the_update_and_follows_lr() -> None:
    filters, others = parameters()
    optimizer = AdaptiveLayerRate(groups(filters, others), RULES["adam"], eta=ETA)
    before = [param.detach().clone() for param in filters]
    after = _trained(optimizer, filters, range(1))
    for old, new in zip(before, after, strict=True):
        assert _rms(new - (1 - LR * DECAY) * old) == pytest.approx(LR * ETA, rel=1e-10)


def test_muon_steps_filters_as_matrices_and_another_rule_the_rest() -> None:
    filters, others = parameters()
    optimizer = AdaptiveLayerRate(groups(filters, others), RULES["adamw"], filter_rule=MUON, eta=ETA)
    before = [param.detach().clone() for param in filters]
    found = _trained(optimizer, filters + others, range(1))
    for old, param in zip(before, filters, strict=True):
        matrix = Parameter(torch.zeros_like(old.flatten(1)))
        matrix.grad = param.grad.flatten(1)
        torch.optim.Muon([matrix], lr=1.0, weight_decay=0.0).step()
        plain, step = matrix.detach(), param.detach() - (1 - LR * DECAY) * old
        assert _rms(step) == pytest.approx(LR * ETA, rel=1e-10)
        cosine = torch.nn.functional.cosine_similarity(plain.flatten(), step.flatten(), dim=0)
        assert cosine.item() == pytest.approx(1.0, abs=1e-10)
    same = [Parameter(param.detach().clone()) for param in filters + parameters()[1]]
    assert all(map(torch.equal, found[3:], _trained(RULES["adamw"]([{"params": same}]), same, range(1))[3:]))


def test_sgd_steps_the_rest_bit_for_bit_where_filters_have_another_rule() -> None:
    filters, others = parameters(torch.float32)
    _, same = parameters(torch.float32)
    optimizer = AdaptiveLayerRate(groups(filters, others), SGD, filter_rule=MUON, eta=ETA)
    found = _trained(optimizer, filters + others, range(10))[len(filters) :]
    theirs = _trained(SGD([{"params": same}]), parameters(torch.float32)[0] + same, range(10))
    assert all(map(torch.equal, found, theirs[len(filters) :]))
    with pytest.raises(ValueError, match="got SGD; its step follows the gradient's length"):
        AdaptiveLayerRate(groups(*parameters()), RULES["adamw"], filter_rule=SGD)


def test_muons_state_has_the_shapes_of_the_filters_and_resumes_bit_for_bit() -> None:
    filters, others = parameters(torch.float32)
    filters[0].data = filters[0].data.contiguous(memory_format=torch.channels_last)
    optimizer = AdaptiveLayerRate(groups(filters, others), SGD, filter_rule=MUON, eta=ETA)
    _trained(optimizer, filters + others, range(5))
    state = copy.deepcopy(optimizer.state_dict())
    shapes = [state["state"][index]["momentum_buffer"].shape for index in range(len(filters))]
    assert shapes == [param.shape for param in filters]
    F, p = ([Parameter(param.detach().clone()) for param in params] for params in (filters, others))
    resumed = AdaptiveLayerRate(groups(F, p), SGD, filter_rule=MUON)
    resumed.load_state_dict(state)
    expected = _trained(optimizer, filters + others, range(5, 10))
    assert all(map(torch.equal, _trained(resumed, F + p, range(5, 10)), expected))


def test_without_alr_it_is_adamw() -> None:
    filters, others = parameters()
    same = [Parameter(param.detach().clone()) for param in filters + others]
    optimizer = AdaptiveLayerRate(groups(filters, others), RULES["adamw"], alr="off")
    found = _trained(optimizer, filters + others, range(10))
    expected = _trained(RULES["adamw"]([{"params": same}]), same, range(10))
    assert largest_difference(found, expected) < FLOAT64


def test_a_step_that_is_not_sound_changes_nothing() -> None:
    filters, others = parameters()
    optimizer = AdaptiveLayerRate(groups(filters, others), RULES["adamw"])
    _trained(optimizer, filters + others, range(2))
    before = copy.deepcopy(optimizer.state_dict()["state"])
    weights = [param.detach().clone() for param in filters + others]
    optimizer.is_sound = torch.tensor(False)
    filters[0].grad.fill_(float("nan"))
    optimizer.step()
    assert all(map(torch.equal, weights, filters + others))
    after = optimizer.state_dict()["state"]
    assert all(torch.equal(before[i][key], after[i][key]) for i in before for key in before[i])


def test_a_gradient_of_zero_leaves_a_filter_to_its_decay_and_rates_are_kept() -> None:
    filters, others = parameters()
    optimizer = AdaptiveLayerRate(groups(filters, others), RULES["adamw"], eta=ETA)
    before = filters[0].detach().clone()
    for param in filters:
        param.grad = torch.zeros_like(param)
    filters[1].grad.fill_(1.0)
    optimizer.step()
    assert torch.equal(filters[0].detach(), before * (1 - LR * DECAY))
    assert optimizer.last_rates.tolist() == pytest.approx([0.0, ETA, 0.0], rel=RATE)
    assert optimizer.last_sq_norms.tolist() == pytest.approx([0.0, filters[1].numel(), 0.0], rel=RATE)


def test_schedulers_and_closures_work() -> None:
    filters, others = parameters()
    optimizer = AdaptiveLayerRate(groups(filters, others), RULES["lion"], eta=ETA)
    scheduler = LambdaLR(optimizer, lambda step: 1.0 if step == 0 else 0.0)
    assert optimizer.step(lambda: sum(p.sum() for p in filters + others).backward() or 3.0) == 3.0
    scheduler.step()
    before = [param.detach().clone() for param in filters + others]
    optimizer.step()
    assert all(map(torch.equal, before, filters + others))


@every_rule
def test_state_dict_resumes_bit_for_bit_through_a_weights_only_file(rule: Rule, tmp_path: Path) -> None:
    filters, others = parameters(torch.float32)
    optimizer = AdaptiveLayerRate(groups(filters, others), rule, eta=0.3)
    _trained(optimizer, filters + others, range(5))
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    F, p = ([Parameter(param.detach().clone()) for param in params] for params in (filters, others))
    resumed = AdaptiveLayerRate(groups(F, p), rule)
    resumed.load_state_dict(torch.load(tmp_path / "optimizer.pt", weights_only=True))
    expected = _trained(optimizer, filters + others, range(5, 10))
    assert all(map(torch.equal, _trained(resumed, F + p, range(5, 10)), expected))


class _OfAUser(torch.optim.AdamW):
    """One that is known to be AdamW; the next one is not known."""


class _Unknown(torch.optim.Optimizer):
    def __init__(self, params: Any, lr: float = 0.1, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    def step(self, closure: Any = None) -> None:
        with torch.no_grad():
            for group in self.param_groups:
                for param in group["params"]:
                    param.sub_(group["lr"] * param.grad.sign())


class Lamb(_Unknown):
    """As other libraries name it."""


class FusedLAMB(_Unknown):
    """As others name it."""


class Lars(_Unknown):
    """SGD whose steps are as long as a share of the filter."""


def test_optimizers_that_are_not_known_say_whether_they_work_by_elements() -> None:
    assert AdaptiveLayerRate(groups(*parameters()), _OfAUser).param_groups[0]["elementwise"]
    with pytest.raises(ValueError, match="expected elementwise=True or False with _Unknown, not known here"):
        AdaptiveLayerRate(groups(*parameters()), _Unknown)
    for step in _step_of_filters(partial(_Unknown, lr=LR), elementwise=True, eta=ETA):
        assert _rms(step) == pytest.approx(LR * ETA, rel=FLOAT64)


@pytest.mark.parametrize(
    ("rule", "settings", "message"),
    [
        (torch.optim.SGD, {}, "got SGD; its step follows the gradient's length, so scale"),
        (torch.optim.ASGD, {}, "got ASGD; its average of the weights"),
        (torch.optim.Rprop, {}, "got Rprop; its step sizes depend on lr"),
        (torch.optim.LBFGS, {}, "got LBFGS; it searches along a line"),
        (Lamb, {"elementwise": False}, "got Lamb; eta would replace its length, the filter's; use AdamW"),
        (FusedLAMB, {}, "got FusedLAMB; eta would replace its length"),
        (Lars, {}, "got Lars; eta would replace its length, the filter's; use AdderSGD"),
        (torch.optim.AdamW, {"eta": 0.0}, "expected eta > 0, got eta=0.0"),
        (torch.optim.AdamW, {"alr": "local"}, "expected alr to be one of global, off, got 'local'"),
        (partial(torch.optim.AdamW, differentiable=True), {}, "expected differentiable=False, got True"),
        (partial(torch.optim.AdamW, capturable=True), {}, "expected capturable=False, got True"),
        (partial(torch.optim.AdamW, lr=torch.tensor(0.1)), {}, "expected AdamW with a number as lr"),
    ],
)  # fmt: skip
def test_what_cannot_be_exact_is_refused_with_the_reason(
    rule: Rule, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        AdaptiveLayerRate(groups(*parameters()), rule, **settings)
    assert "\n" not in str(caught.value)


def test_a_state_of_another_rule_is_refused() -> None:
    states = [
        AdaptiveLayerRate(groups(*parameters()), torch.optim.RMSprop).state_dict(),
        AdderSGD(groups(*parameters())).state_dict(),
    ]
    optimizer = AdaptiveLayerRate(groups(*parameters()), torch.optim.AdamW)
    for state, theirs in zip(states, ("'RMSprop'", "None"), strict=True):
        with pytest.raises(ValueError, match=f"expected a state with rule='AdamW', got {theirs}"):
            optimizer.load_state_dict(state)


def test_decay_and_steps_balance_at_the_size_of_the_formula() -> None:
    """docs/other-optimizers.md: RMS(w) -> eta sqrt(gamma / (2 lambda) (1 + beta_1) / (1 - beta_1))."""
    lr, decay, beta = 0.02, 0.5, 0.5
    param = Parameter(torch.zeros(20_000))
    group = {"params": [param], "adder": True, "layer_names": ["one"], "layer_numel": [param.numel()]}
    rule = partial(torch.optim.AdamW, lr=lr, betas=(beta, 0.999), weight_decay=decay)
    optimizer = AdaptiveLayerRate([group], rule, eta=ETA)
    torch.manual_seed(0)
    for _ in range(300):  # six times 1 / (2 lr decay)
        param.grad = torch.randn_like(param)
        optimizer.step()
    assert _rms(param) == pytest.approx(ETA * (lr / (2 * decay) * (1 + beta) / (1 - beta)) ** 0.5, rel=0.03)


def test_the_documents_example_trains(capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "docs" / "other-optimizers.md").read_text(encoding="utf-8")
    script, with_muon = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(script, "docs/other-optimizers.md", "exec"), names)
    loss = float(re.findall(r"loss ([\d.]+), rates \[[\d.]+\]", capsys.readouterr().out)[0])
    assert loss < 1.5, "it starts at ln 10 = 2.3"
    exec(compile(with_muon, "docs/other-optimizers.md", "exec"), names)
    assert [group["rule"] for group in names["optimizer"].param_groups] == ["Muon", "AdamW"]
