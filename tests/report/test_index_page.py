import math
import re
from urllib.parse import unquote

import pytest

from knee3d.report.index_page import IndexRow, worst_first, write_index

EVIL = "<script>alert('x')</script>\"><b>"


def row(case: str, flags: int = 0, inter_view_dice: float = 0.9, **more) -> IndexRow:
    return IndexRow(
        case=case, report=f"{case}/report.html", flags=["odd"] * flags, inter_view_dice=inter_view_dice, **more
    )


def test_the_worst_come_first_and_the_unknown_after_the_known():
    rows = [
        row("fine"),
        row("b", 1, 0.8),
        row("unknown", 1, math.nan),
        row("many", 3, 0.95),
        row("a", 1, 0.8),
        row("low", 0, 0.1),
    ]
    assert [one.case for one in worst_first(rows)] == ["many", "a", "b", "unknown", "low", "fine"]


def test_every_knee_has_a_row_and_every_tissue_a_column(tmp_path):
    rows = [
        row(
            "one",
            side="L",
            predictive_entropy=0.123456,
            volumes_mm3={"a": 1234.5, "b": math.nan},
            thickness_mm={"a": 2.345},
        ),
        row("two", 1, volumes_mm3={"c": 7.0}, thumbnail="two/small.png"),
    ]
    write_index(rows, tmp_path / "index.html", "Some knees")
    text = (tmp_path / "index.html").read_text()
    lines = re.findall("<tr[^>]*>(.*?)</tr>", text, re.DOTALL)[2:]
    cells = [[re.sub("<[^>]*>", "", cell) for cell in re.findall("<t[hd][^>]*>(.*?)</t[hd]>", line)] for line in lines]
    assert cells == [
        ["", "two", "–", "odd", "0.900", "–", "–", "–", "7", "–"],
        ["", "one", "L", "", "0.900", "0.123", "1,234", "–", "–", "2.35"],
    ]
    assert "<h1>Some knees</h1><p>2 knees, 1 with something to look at</p>" in text
    assert text.count('scope="colgroup"') == 2
    assert 'colspan="3">Volume (mm³)' in text
    columns = [int(number) for number in re.findall('data-column="(\\d+)"', text)]
    assert sorted(columns) == list(range(1, 10))


def test_knees_that_were_not_checked_are_counted(tmp_path):
    write_index([row("one"), row("two", unchecked=True)], tmp_path / "index.html")
    said = "0 with something to look at, 1 of which not all was checked</p>"
    assert said in (tmp_path / "index.html").read_text()


def test_no_knee_is_a_page_too(tmp_path):
    write_index([], tmp_path / "new" / "index.html")
    assert "0 knees" in (tmp_path / "new" / "index.html").read_text()


def test_names_and_flags_are_text_and_links_are_paths(tmp_path):
    evil = IndexRow(
        case=EVIL, report="javascript:alert(1)", flags=[EVIL], volumes_mm3={EVIL: 1.0}, thumbnail='50% "a#b?.png'
    )
    write_index([evil], tmp_path / "index.html", EVIL)
    text = (tmp_path / "index.html").read_text()
    assert "<script>alert" not in text
    assert "<b>" not in text
    links = re.findall('(?:href|src)="([^"]*)"', text)
    assert unquote(links[-1]) == '50% "a#b?.png' or unquote(links[-2]) == '50% "a#b?.png'
    assert not [link for link in links if link.startswith("javascript:")]
    assert not re.search(r"https?:|unsafe", re.search('Policy" content="([^"]*)"', text).group(1))


@pytest.mark.parametrize(("changes", "words"), [({"side": "left"}, "side of 'c'"), ({"report": "/etc/x"}, "relative"),
                                               ({"thumbnail": "//host/x.png"}, "relative")])  # fmt: skip
def test_what_is_not_a_knee_beside_the_page_is_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        IndexRow(**{"case": "c", "report": "c.html", **changes})
