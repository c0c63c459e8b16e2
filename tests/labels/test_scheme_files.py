"""Label schemes of users, in files and in records."""

import json

import numpy as np
import pytest

from knee3d.labels.label_names import LabelNames, labels_to_classes
from knee3d.labels.label_scheme import SCHEMES, known_tissue_names
from knee3d.labels.scheme_files import find_scheme, scheme_from_json, scheme_to_json

EFFUSION = {
    "name": "effusion",
    "tissues": [
        {"name": "femoral cartilage"},
        {"name": "Effusion", "colour": "#4dbbd5", "sources": ["effusion", "synovial_fluid"], "pieces": 2},
    ],
}


def written(tmp_path, content):
    path = tmp_path / "scheme.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def test_a_scheme_of_a_file_maps_masks(tmp_path):
    scheme = find_scheme(written(tmp_path, EFFUSION))
    assert scheme.names == ("femoral cartilage", "effusion")
    assert scheme.tissues[1].colour == (0x4D, 0xBB, 0xD5)
    assert scheme.pieces == (1, 2)
    assert not scheme.sided
    label_names = LabelNames({1: "synovial fluid", 2: "femur", 7: "femoral cartilage", 9: "effusion"})
    label_names.check_names(known_tissue_names(scheme))
    np.testing.assert_array_equal(labels_to_classes(np.array([0, 1, 2, 7, 9]), label_names, scheme), [0, 2, 0, 1, 2])
    with pytest.raises(ValueError, match="unknown tissue 'synovial fluid' for label 1"):
        label_names.check_names(known_tissue_names())


@pytest.mark.parametrize("name", SCHEMES)
def test_builtin_schemes_are_recorded_by_name(name):
    assert find_scheme(name) is SCHEMES[name]
    assert scheme_to_json(SCHEMES[name]) == name
    assert scheme_from_json(name) is SCHEMES[name]


def test_a_mask_may_call_a_class_by_its_own_name(tmp_path):
    """As results of knee3d do, and what is restored from a dataset."""
    scheme = find_scheme(written(tmp_path, of({"name": "fluid", "sources": ["effusion"]}, {"name": "acl"})))
    label_names = LabelNames({1: "fluid", 2: "acl", 3: "effusion"})
    np.testing.assert_array_equal(labels_to_classes(np.array([0, 1, 2, 3]), label_names, scheme), [0, 1, 2, 1])
    assert scheme_from_json(json.loads(json.dumps(scheme_to_json(scheme)))) == scheme


def test_sources_of_one_side_make_a_scheme_sided(tmp_path):
    one = {"name": "inner plate", "sources": ["medial tibial cartilage"]}
    both = {"name": "plates", "sources": ["medial tibial cartilage", "lateral tibial cartilage"]}
    assert find_scheme(written(tmp_path, of(one))).sided
    assert not find_scheme(written(tmp_path, of(both))).sided


def test_a_record_holds_all_of_a_users_scheme(tmp_path):
    scheme = find_scheme(written(tmp_path, EFFUSION))
    record = json.loads(json.dumps(scheme_to_json(scheme)))
    assert scheme_from_json(record) == scheme
    assert scheme_to_json(scheme_from_json(record)) == record


def test_colours_that_are_not_given_differ(tmp_path):
    names = [{"name": f"tissue {number}"} for number in range(12)]
    scheme = find_scheme(written(tmp_path, {"name": "many", "tissues": names}))
    assert len({one.colour for one in scheme.tissues}) == 12


def test_medial_and_lateral_make_a_scheme_sided(tmp_path):
    tissues = [{"name": "medial collateral ligament"}]
    assert find_scheme(written(tmp_path, {"name": "mcl", "tissues": tissues})).sided
    with pytest.raises(
        ValueError, match="sided is false, but medial collateral ligament is another tissue in a mirror"
    ):
        find_scheme(written(tmp_path, {"name": "mcl", "tissues": tissues, "sided": False}))
    assert find_scheme(written(tmp_path, {"name": "acl", "tissues": [{"name": "acl"}], "sided": True})).sided


def of(*tissues, **others):
    return {"name": "mine", "tissues": list(tissues), **others}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "is not a label scheme"),
        ("[1]", "it is no object"),
        ("[" * 100_000, "is not a label scheme"),
        ({"tissues": [{"name": "acl"}]}, "its name is None"),
        ({"name": "My Scheme", "tissues": [{"name": "acl"}]}, "its name is 'My Scheme'"),
        ({"name": "iwoai", "tissues": [{"name": "acl"}]}, "iwoai is the name of a built-in scheme"),
        (of(), "tissues must be a list of 1 to 100"),
        ({"name": "mine", "tissues": "acl"}, "tissues must be a list"),
        (of("acl"), 'tissue 1 is not written as {"name": ...}'),
        (of({"name": "a/c"}), "the name of tissue 1 is 'a/c'"),
        (of({"name": "../../etc"}), "the name of tissue 1"),
        (of({"name": "background"}), "background is no tissue: it is class 0"),
        (of({"name": "mean"}), "mean is no tissue: scores of all tissues together are called so"),
        ('{"name": "mine", "name": "yours", "tissues": [{"name": "acl"}]}', "key 'name' is there twice"),
        (of({"name": "acl"}, {"name": "ACL"}), "tissue 'acl' is there twice"),
        (of({"name": "acl"}, {"name": "pcl", "sources": ["acl"]}), "source 'acl' is there twice"),
        (of({"name": "acl", "sources": []}), "sources of acl must be a list of names"),
        (of({"name": "acl", "sources": [1]}), "the name of a source of acl is 1"),
        (of({"name": "acl", "pieces": 0}), "pieces of acl must be a number of 1 or more, not 0"),
        (of({"name": "acl", "pieces": True}), "pieces of acl must be"),
        (of({"name": "acl", "colour": "red"}), """the colour of acl is 'red'; write it as "#e64b35\""""),
        (of({"name": "acl", "color": "#ff0000"}), "acl has 'color'; known are colour, name, pieces, sources"),
        (of({"name": "acl"}, side=True), "the scheme has 'side'; known are name, sided, tissues"),
        (of({"name": "acl"}, sided="yes"), "sided is true or false, not 'yes'"),
    ],
)
def test_what_is_no_scheme_is_refused(tmp_path, content, reason):
    path = written(tmp_path, content)
    with pytest.raises(ValueError, match="is not a label scheme") as error:
        find_scheme(path)
    assert path in str(error.value)
    assert reason in str(error.value)


def test_a_name_of_nothing_is_said_with_those_that_there_are():
    with pytest.raises(FileNotFoundError, match="cartilages is neither a scheme nor a JSON file.*cartilage, compart"):
        find_scheme("cartilages")


@pytest.mark.parametrize("record", [None, 3, "cartilages", {}, {"name": "iwoai", "tissues": [{"name": "acl"}]}])
def test_damaged_records_are_refused(record):
    with pytest.raises(ValueError, match="scheme|name"):
        scheme_from_json(record)
