"""A Ray cluster made here: a head without processors, as this machine, and two machines with one each."""

import pytest


@pytest.fixture(scope="module")
def cluster(request, tmp_path_factory):
    """Its own raylet for each machine; `workers` are those with a processor. What a killed one leaves, pytest removes.

    Ray's own files stay in /tmp: the names of its sockets must be short.
    """
    ray = pytest.importorskip("ray")
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    places = pytest.MonkeyPatch()
    places.setenv("RAY_TMPDIR", "/tmp")
    places.setenv("TMPDIR", str(tmp_path_factory.mktemp("cluster")))
    made = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    made.workers = [made.add_node(num_cpus=1) for _ in range(2)]
    made.wait_for_nodes()
    ray.cloudpickle.register_pickle_by_value(request.module)  # a test's module cannot be imported over there
    yield made
    ray.cloudpickle.unregister_pickle_by_value(request.module)
    ray.shutdown()
    made.shutdown()
    places.undo()
