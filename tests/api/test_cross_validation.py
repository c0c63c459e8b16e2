"""The scores of folds: their mean and spread, and their file."""

import json
import math

import pytest
from jsonschema import Draft202012Validator

from knee3d.api.cross_validation import CrossValidationResult, FoldScores


def test_the_spread_over_folds_is_known_from_two_on():
    found = FoldScores.of({"1": 0.5, "3": 0.75})
    assert (found.mean, found.sd) == (0.625, pytest.approx(0.25 / math.sqrt(2)))
    assert math.isnan(FoldScores.of({"2": 0.5}).sd)


def test_scores_of_folds_come_back_from_json_as_their_schema_says(tmp_path):
    views = {"axial": FoldScores.of({"1": 0.5}), "volume": FoldScores.of({"1": 0.5, "2": 0.75})}
    result = CrossValidationResult(5, views)
    result.write(tmp_path / "folds.json")
    text = (tmp_path / "folds.json").read_text()
    assert json.loads(text)["views"]["axial"] == {"val_dice": {"1": 0.5}, "mean": 0.5, "sd": None}
    assert CrossValidationResult.from_json(text).to_json() == result.to_json()
    Draft202012Validator(CrossValidationResult.json_schema()).validate(json.loads(text))
    with pytest.raises(ValueError, match="folds: input should be a valid integer"):
        CrossValidationResult.from_json(text.replace('"folds": 5', '"folds": "5"'))
