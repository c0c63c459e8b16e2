import base64
import hashlib
import html
import re
from dataclasses import replace

import pytest

from knee3d.dataset.audit import CaseAudit, DatasetAudit, SplitAudit
from knee3d.report.audit_page import write_audit_page

EVIL = "<script>alert('x')</script>\"><b>"
CASE = CaseAudit("a", "p", "v", "", "", (3, 4, 5), (0.5, 1.0, 0.7), (0.0, 9.0), None, None)


def audited(leak: str | None = None) -> DatasetAudit:
    train = SplitAudit(2, 1, {"R": 1, "?": 1}, {"femur": 12345})
    other = replace(CASE, case=EVIL, side="R", split="train", voxels=(9,), mm3=(1234.5,), notes=(EVIL, "odd"))
    return DatasetAudit("0.1.0", "two", ("femur",), {"train": train}, leak, (CASE, other))


@pytest.fixture
def text(tmp_path) -> str:
    write_audit_page(audited(), "cases", tmp_path / "new" / "index.html")
    return (tmp_path / "new" / "index.html").read_text()


def test_every_split_and_every_case_has_a_row(text):
    rows = [re.findall("<td>(.*?)</td>", row) for row in re.findall("<tr>(.*?)</tr>", text, re.DOTALL)]
    assert [[html.unescape(cell) for cell in row] for row in rows if row] == [
        ["train", "2", "1", "R:1 ?:1", "12,345"],
        ["a", "p", "v", "?", "unlabelled", "3 x 4 x 5", "0.5 x 1 x 0.7", "no mask", ""],
        [EVIL, "p", "v", "R", "train", "3 x 4 x 5", "0.5 x 1 x 0.7", "1,234", f"{EVIL}; odd"],
    ]
    assert "<p>No patient is in two splits.</p>" in text
    assert "<p>1 cases have something to look at.</p>" in text


def test_a_leak_is_said(tmp_path):
    write_audit_page(audited(leak="p is in train & test"), "cases", tmp_path / "index.html")
    assert '<p class="bad">p is in train &amp; test</p>' in (tmp_path / "index.html").read_text()


def test_names_are_text_and_the_policy_allows_the_style_alone(text):
    assert "<script" not in text
    assert "<b>" not in text
    policy = html.unescape(re.search('Policy" content="([^"]*)"', text).group(1))
    style = re.search("<style>(.*?)</style>", text, re.DOTALL).group(1)
    assert f"style-src 'sha256-{base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()}';" in policy
    assert "script-src 'none'" in policy
