from typing import get_args

import pytest

from bingo.config import Training
from bingo.views.recipes import RECIPES, Recipe

QUARTER = (3 / 4, 4 / 3)


# A recipe is a frozen name: these numbers are MoCo-v2's (main_moco.py --aug-plus, main_lincls.py) and never change.
@pytest.mark.parametrize(
    ("name", "crop_scale", "flip", "jitter", "strengths", "grayscale", "blur", "sigma"),
    [
        ("paper", (0.2, 1.0), 0.5, 0.8, (0.4, 0.4, 0.4, 0.1), 0.2, 0.5, (0.1, 2.0)),
        ("small", (0.3, 1.0), 0.5, 0.8, (0.4, 0.4, 0.0, 0.0), 0.0, 0.0, (0.1, 2.0)),
        ("probe", (0.08, 1.0), 0.5, 0.0, (0.0, 0.0, 0.0, 0.0), 0.0, 0.0, (0.1, 2.0)),
    ],
)
def test_a_recipe_keeps_its_numbers(name, crop_scale, flip, jitter, strengths, grayscale, blur, sigma):
    assert RECIPES[name] == Recipe(crop_scale, QUARTER, flip, jitter, *strengths, grayscale, blur, sigma)


def test_every_recipe_that_a_study_may_name_exists():
    assert set(get_args(Training.model_fields["views"].annotation)) <= set(RECIPES)
