"""A Ray cluster made here: a head without processors, as this machine, and two machines with one each."""

import pytest

QUICK = {"health_check_initial_delay_ms": 500, "health_check_period_ms": 500, "health_check_failure_threshold": 3}


@pytest.fixture(scope="module")
def cluster(request, tmp_path_factory):
    """Its own raylet for each machine; `workers` are those with a processor. What a killed one leaves, pytest removes.

    Ray's own files stay in /tmp: the names of its sockets must be short.
    """
    ray = pytest.importorskip("ray", reason="Ray is an optional package")
    from ray import cluster_utils

    places = pytest.MonkeyPatch()
    places.setenv("RAY_TMPDIR", "/tmp")
    places.setenv("TMPDIR", str(tmp_path_factory.mktemp("cluster")))
    head = {"num_cpus": 0, "include_dashboard": False, "_system_config": QUICK}
    made = cluster_utils.Cluster(initialize_head=True, head_node_args=head)
    made.workers = [made.add_node(num_cpus=1, wait=False) for _ in range(2)]
    made.wait_for_nodes()
    ray.cloudpickle.register_pickle_by_value(request.module)  # a test's module cannot be imported over there
    yield made
    ray.cloudpickle.unregister_pickle_by_value(request.module)
    ray.shutdown()
    made.shutdown()
    places.undo()
