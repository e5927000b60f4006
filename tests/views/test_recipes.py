from typing import get_args

import pytest

from bingo.methods.compress import CompressTraining
from bingo.study.sections import RecipeName, Training
from bingo.views.recipes import RECIPES, Recipe

QUARTER = (3 / 4, 4 / 3)


# A recipe is a frozen name: these numbers, among them MoCo-v2's (main_moco.py, main_lincls.py), never change.
@pytest.mark.parametrize(
    ("name", "crop_scale", "flip", "jitter", "strengths", "grayscale", "blur", "sigma"),
    [
        ("paper", (0.2, 1.0), 0.5, 0.8, (0.4, 0.4, 0.4, 0.1), 0.2, 0.5, (0.1, 2.0)),
        ("cifar", (0.2, 1.0), 0.5, 0.8, (0.4, 0.4, 0.4, 0.1), 0.2, 0.0, (0.1, 2.0)),
        ("small", (0.3, 1.0), 0.5, 0.8, (0.4, 0.4, 0.0, 0.0), 0.0, 0.0, (0.1, 2.0)),
        ("crop-flip", (0.08, 1.0), 0.5, 0.0, (0.0, 0.0, 0.0, 0.0), 0.0, 0.0, (0.1, 2.0)),
    ],
)
def test_a_recipe_keeps_its_numbers(name, crop_scale, flip, jitter, strengths, grayscale, blur, sigma):
    assert RECIPES[name] == Recipe(crop_scale, QUARTER, flip, jitter, *strengths, grayscale, blur, sigma)


def test_every_recipe_that_a_study_may_name_exists_and_no_other():
    assert set(get_args(RecipeName)) == set(RECIPES)
    for section in (Training, CompressTraining):
        assert section.model_fields["views"].annotation is RecipeName
        assert section().views in RECIPES
