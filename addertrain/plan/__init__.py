"""What a recipe asks for on a number of ranks, worked out without a GPU and before anything runs."""

from addertrain.plan.figures import Plan, PlanError, make_plan
from addertrain.plan.text import plan_text

__all__ = ["Plan", "PlanError", "make_plan", "plan_text"]
