"""Works handed to workers of a Ray cluster: lost workers, poison, back-pressure, and that nothing else is sent."""

import os
from pathlib import Path

import pytest

from knee3d.launch.job import LaunchError
from knee3d.launch.pool_on_ray import AHEAD, Shared, run_pool_on_ray

ray = pytest.importorskip("ray")
MACHINES = 2


@pytest.fixture
def shared(tmp_path) -> Shared:
    (tmp_path / "shared" / "deep").mkdir(parents=True)
    (tmp_path / "shared" / "deep" / "words").write_text("loaded")
    (tmp_path / "shared" / "secret").write_text("stays")
    return Shared(tmp_path / "shared", ("deep/words",))


def make_work(folder):
    """Says what it was given; some items kill the worker, or fail."""
    loaded = (folder / "deep" / "words").read_text()
    assert not (folder / "secret").exists()

    def work(item, home):
        marker = Path(item["marker"])
        if item["kind"] == "poison" or (item["kind"] == "unlucky" and not marker.exists()):
            marker.write_text("was here")
            (home / "half").write_text("half")
            os.kill(os.getpid(), 9)
        if item["kind"] == "bad":
            raise ValueError("cannot\nbe done")
        (home / "sub").mkdir()
        (home / "sub" / "result").write_text(f"{loaded} {item['kind']} {os.getpid()}")

    return work


@pytest.mark.slow
def test_lost_workers_are_replaced_and_poison_is_left_out(cluster, tmp_path, shared):
    kinds = ["fine"] * 4 + ["unlucky", "poison"] + ["fine"] * 3 + ["bad"] + ["fine"] * 5
    out, asked, most = tmp_path / "out", [], 0
    (out / "0").mkdir(parents=True)
    (out / "0" / "old").write_text("replaced")

    def items():
        for number, kind in enumerate(kinds):
            asked.append(number)
            yield str(number), {"kind": kind, "marker": str(tmp_path / f"marker-{number}")}

    found = {}
    for name, error in run_pool_on_ray(items(), make_work, shared, out, cluster.address, retries=1):
        found[name] = error
        most = max(most, len(asked) - len(found))
    assert most <= MACHINES * AHEAD
    assert sorted(found, key=int) == [str(number) for number in range(len(kinds))]
    expected = {"5": "lost its worker 2 times; left out", "9": "cannot be done"}
    assert {name: error for name, error in found.items() if error} == expected
    results = {}
    for number, kind in enumerate(kinds):
        folder = out / str(number)
        assert folder.exists() == (str(number) not in expected)
        if folder.exists():
            results[number] = (folder / "sub" / "result").read_text().split()
            assert results[number][:2] == ["loaded", kind]
            assert [path.name for path in folder.iterdir()] == ["sub"]
    # Loaded once by each worker, not for each work: two to begin with, and one for each that was lost.
    assert 2 <= len({words[2] for words in results.values()}) <= 2 + 3


@pytest.mark.slow
def test_workers_that_cannot_load_are_an_error(cluster, tmp_path, shared):
    wrong = Shared(shared.folder, ("deep/words", "nowhere"))
    with pytest.raises(LaunchError, match="no worker could be started"):
        list(run_pool_on_ray(iter([("a", {})]), make_work, wrong, tmp_path / "out", cluster.address, retries=1))


def test_no_cluster_is_a_clear_error(tmp_path, shared):
    with pytest.raises(LaunchError, match="host:port"):
        list(run_pool_on_ray(iter([]), make_work, shared, tmp_path, "ray://10.0.0.1:10001", retries=0))
