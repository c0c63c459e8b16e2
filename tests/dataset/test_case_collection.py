"""cases.json holds what PNGs cannot."""

import json
from dataclasses import fields, replace

import numpy as np
import pytest

from knee3d.dataset.case_collection import CaseCollection, Split, load_cases, save_cases


def test_what_is_saved_is_loaded(balls):
    again = load_cases(balls.folder)
    assert again.scheme is balls.scheme
    for before, after in zip(balls.cases, again.cases, strict=True):
        for field in fields(before):
            np.testing.assert_array_equal(getattr(before, field.name), getattr(after, field.name))
            assert type(getattr(before, field.name)) is type(getattr(after, field.name))


def test_images_and_masks_come_back_as_volumes_in_their_place(balls):
    case = balls.cases[0]
    assert balls.image(case).shape == balls.mask(case).shape == case.shape
    np.testing.assert_array_equal(balls.mask(case).affine, case.affine)
    assert set(np.unique(balls.mask(case).array)) == {0, 1}
    with pytest.raises(ValueError, match="has no mask"):
        balls.mask(replace(case, labelled=False))
    with pytest.raises(ValueError, match=r"cases\.json says"):
        balls.image(replace(case, shape=(16, 17, 14)))


def test_an_empty_split_says_what_there_is(balls):
    train = CaseCollection(balls.folder, balls.scheme, balls.of_split(Split.TRAIN))
    with pytest.raises(ValueError, match="no labelled test cases, only 2 train"):
        train.of_split(Split.TEST)


def test_one_name_for_two_cases_is_refused(balls):
    with pytest.raises(ValueError, match="ball0"):
        CaseCollection(balls.folder, balls.scheme, (balls.cases[0], balls.cases[0]))


@pytest.mark.parametrize("content", ["", "[]", '{"version": 99}', '{"version": 1, "scheme": "toes", "cases": []}'])
def test_files_that_are_no_case_lists_are_refused(tmp_path, content):
    with pytest.raises(FileNotFoundError, match="knee3d prepare"):
        load_cases(tmp_path)
    (tmp_path / "cases.json").write_text(content)
    with pytest.raises(ValueError, match="not a readable case list|a later version of knee3d"):
        load_cases(tmp_path)


def test_an_interrupted_save_keeps_the_old_list(balls, tmp_path, monkeypatch):
    dataset = CaseCollection(tmp_path, balls.scheme, balls.cases)
    save_cases(dataset)
    before = (tmp_path / "cases.json").read_bytes()

    def full(*_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", full)
    with pytest.raises(OSError, match="No space"):
        save_cases(CaseCollection(tmp_path, balls.scheme, ()))
    assert (tmp_path / "cases.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["cases.json"]


WRONG = {"shape": [[1, 2], [-1, 2, 3], "abc", [1, 2, None], 3], "patient": [None, 3], "source_axes": [3, "XYZ", ""],
         "name": [3, "../../x", "", "a/b"], "labelled": ["no", 1], "affine": [[[1]], "a", None],
         "window": [None, {}, 3], "side": ["X", 3], "split": ["dev", None], "fingerprint": [None]}  # fmt: skip


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in WRONG.items() for value in values])
def test_a_case_of_another_kind_is_one_clear_error(balls, tmp_path, key, value):
    content = json.loads((balls.folder / "cases.json").read_text())
    content["cases"][0][key] = value
    (tmp_path / "cases.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"cases\.json is not a readable case list .*prepare again"):
        load_cases(tmp_path)
