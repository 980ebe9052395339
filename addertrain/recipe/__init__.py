"""Recipes, which describe a run completely and are read strictly from YAML.

`settings` defines the keys, `load` reads them, `checks` tests ranges and combinations, and `help` prints
them. Nothing here imports torch, and jsonargparse is imported only to check types: `addertrain fit --help`
answers at once.
"""

from addertrain.errors import RecipeError
from addertrain.recipe.checks import check_recipe
from addertrain.recipe.help import recipe_help
from addertrain.recipe.load import load_recipe, parse_recipe
from addertrain.recipe.settings import (
    DataRecipe,
    DistillRecipe,
    ExpectedRecipe,
    ModelRecipe,
    OptimRecipe,
    Recipe,
    ScheduleRecipe,
    TrainRecipe,
)
from addertrain.recipe.yaml_text import recipe_to_yaml

__all__ = [
    "DataRecipe",
    "DistillRecipe",
    "ExpectedRecipe",
    "ModelRecipe",
    "OptimRecipe",
    "Recipe",
    "RecipeError",
    "ScheduleRecipe",
    "TrainRecipe",
    "check_recipe",
    "load_recipe",
    "parse_recipe",
    "recipe_help",
    "recipe_to_yaml",
]
