"""Estimates what a recipe needs on any number of ranks, before it runs and without a GPU."""

from addertrain.plan.figures import Plan, PlanError, make_plan
from addertrain.plan.text import plan_text

__all__ = ["Plan", "PlanError", "make_plan", "plan_text"]
