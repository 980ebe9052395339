"""The runs of a report, their data, and observations of test images, for its sections.

Expensive work is done once, and only when a section needs it. Nothing is downloaded.
"""

import dataclasses
from collections.abc import Sequence

from addertrain.data import DataError, ImageData, load_data
from addertrain.data.sets.registry import data_places, facts_before_reading, image_shape
from addertrain.models import Kind
from addertrain.models.operations import OperationCount, count_operations
from addertrain.recipe import DataRecipe, ModelRecipe, Recipe
from addertrain.report.observation import Observation, observe
from addertrain.report.runs import Group, Run
from addertrain.train.building import build_network


class Study:
    """Groups of runs with their data and observations.

    Args:
        data_root: the folder of the data sets, instead of those that the recipes name.
    """

    def __init__(self, groups: Sequence[Group], *, data_root: str | None = None) -> None:
        self.groups = tuple(groups)
        self._data_root = data_root
        self._data: dict[DataRecipe, ImageData | DataError] = {}
        self._observations: dict[Run, Observation] = {}
        self._counts: dict[tuple[ModelRecipe, DataRecipe], OperationCount] = {}

    def data(self, recipe: Recipe) -> ImageData:
        """The recipe's data set.

        Raises:
            DataError: the data set is missing or damaged.
        """
        settings = recipe.data
        if self._data_root is not None:
            settings = dataclasses.replace(settings, root=self._data_root)
        if settings not in self._data:
            self._data[settings] = _load(settings)
        found = self._data[settings]
        if isinstance(found, DataError):
            raise found
        return found

    def observation(self, run: Run) -> Observation:
        """What test images cause in the run's network.

        Raises:
            DataError: the test images are missing.
        """
        if run not in self._observations:
            self._observations[run] = observe(run, self.data(run.recipe), self.operations(run.recipe))
        return self._observations[run]

    def operations(self, recipe: Recipe, *, kind: Kind | None = None) -> OperationCount:
        """The operations of the recipe's network, or of the same network of another kind, for one image.

        Raises:
            DataError: only the data say how many classes there are, and the test images are missing.
        """
        model = dataclasses.replace(recipe.model, kind=kind) if kind else recipe.model
        key = (model, recipe.data)
        if key not in self._counts:
            facts = facts_before_reading(recipe.data)
            data = self.data(recipe) if facts is None else None
            num_classes = facts.num_classes if facts is not None else self.data(recipe).num_classes
            shape = image_shape(recipe.data, data)
            network = build_network(model, num_classes=num_classes, in_channels=shape[0])
            self._counts[key] = count_operations(network, shape)
        return self._counts[key]


def _load(settings: DataRecipe) -> ImageData | DataError:
    missing = [str(place.path) for place in data_places(settings) if not place.is_there]
    if missing:
        return DataError(
            f"{settings.name}: expected its files in {', '.join(missing)}, got none; name their folder with "
            "--data.root or ADDERTRAIN_DATA"
        )
    try:
        return load_data(settings)
    except DataError as error:
        return error
