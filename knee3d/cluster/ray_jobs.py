"""Run jobs on the machines of a Ray cluster."""

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import ceil
from pathlib import Path
from textwrap import shorten
from typing import Any

from knee3d.cluster import ClusterError, ClusterJob, check_cluster_answers, log_to_stderr
from knee3d.lease import LeaseHeldError, Run, share_work

log = logging.getLogger(__name__)

WEIGHTS, READY_S = "KNEE3D_ENCODER_WEIGHTS", 600.0


def run_on_ray(jobs: Sequence[ClusterJob], address: str | None, retries: int) -> None:
    """Run jobs at the same time on the machines of a cluster; for the arguments see `pool_on_ray`.

    Raises:
        ClusterError: There is no such cluster, or jobs failed: names them, after all have ended.
    """
    with pool_on_ray(lambda: lambda job, _: job.work() or job.folder, len(jobs), address, retries) as run:
        ended = dict(share_work({job.name: job for job in jobs}, run))
    if failed := [f"{name}: {outcome}" for name, outcome in ended.items() if isinstance(outcome, Exception)]:
        raise ClusterError("; ".join(failed))


@contextmanager
def pool_on_ray(make: Callable[[], Any], count: int, address: str | None, retries: int) -> Iterator[Run[Any, Any]]:
    """Workers for `lease.share_work`: one on each machine, or one for each GPU where items outnumber machines.

    Args:
        make: Called by each worker on its machine; returns what it calls with each item, see `lease.run_in_threads`.
            The outcome of an item that fails is an exception.
        count: Number of items.
        address: Address of the cluster, as `ray start --head` prints it, to which this machine must belong; "auto" is
            the cluster that it belongs to, None starts one of this machine alone.
        retries: How often an item whose worker was lost is tried again.

    Raises:
        ClusterError: There is no such cluster, or no worker is left.
    """
    given = {"env_vars": {WEIGHTS: str(Path(path).absolute())}} if (path := os.environ.get(WEIGHTS)) else None
    try:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        check_cluster_answers(address)
        ray.init(address, logging_level=logging.WARNING, runtime_env=given)
    except ImportError as error:
        raise ClusterError("Ray is not installed; pip install 'knee3d[ray]' on every machine") from error
    except (OSError, RuntimeError, ValueError) as error:
        raise ClusterError(f"no Ray cluster answers at {address}; see ray start --help ({error})") from error
    try:
        workers, options = [], {"max_restarts": -1, "max_task_retries": retries}
        nodes = {node["NodeID"]: node["Resources"] for node in ray.nodes() if "CPU" in node["Resources"]}
        for node, has in nodes.items():
            many = max(1, min(int(has.get("GPU", 0)), ceil(count / len(nodes))))
            there = NodeAffinitySchedulingStrategy(node, soft=False)
            each = {"num_cpus": max(1, has["CPU"] // many), "num_gpus": has.get("GPU", 0) // many}
            actor = ray.remote(_Worker).options(scheduling_strategy=there, **each, **options)
            workers += [actor.remote(make) for _ in range(many)]
        yield lambda items, take_over: _hand_out(workers, items, take_over)
    finally:
        ray.shutdown()


class _Worker:  # an actor of Ray
    def __init__(self, make: Callable[[], Any]) -> None:
        log_to_stderr()
        self._work = make()

    def ready(self) -> None: ...

    def run(self, name: str, item: Any, take_over: bool) -> tuple[str, Any]:
        try:
            return name, self._work(item, take_over)
        except LeaseHeldError:
            return name, None
        except Exception as error:
            return name, error


def _hand_out(workers: list[Any], items: Mapping[str, Any], take_over: bool) -> Iterator[tuple[str, Any]]:
    """A `lease.Run`; what was lost with its machine has no outcome, and is handed out again by the next call."""
    from ray.exceptions import RayError
    from ray.util import ActorPool

    workers[:] = filter(_answers, workers)
    if not workers:
        raise ClusterError("no worker is left on any machine of the cluster; what is finished stays, run it again")
    pool, queue, at = ActorPool(workers), [*items.items()], dict[str, Any]()
    while pool.has_next() or (queue and pool.has_free()):
        while queue and pool.has_free():
            pool.submit(lambda worker, it: at.setdefault(it[0], worker).run.remote(*it, take_over), queue.pop(0))
        try:
            name, outcome = pool.get_next_unordered()
            del at[name]
            yield name, outcome
        except RayError as error:
            for worker in filter(_answers, [*iter(pool.pop_idle, None)]):
                pool.push(worker)
                for name in [name for name, its in at.items() if its is worker]:
                    del at[name]
                    yield name, ClusterError(f"lost its worker each time it was tried ({shorten(str(error), 300)})")


def _answers(worker: Any) -> bool:
    """Whether a worker can be used. A worker that is started again is waited for, as long as `READY_S`."""
    import ray

    try:
        return ray.get(worker.ready.options(max_task_retries=-1).remote(), timeout=READY_S) is None
    except ray.exceptions.RayError as error:
        log.warning("a worker is not used: %s", shorten(str(getattr(error, "cause", error)), 300))
        return False
