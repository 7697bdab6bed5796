"""The Ray engine on a study without torch: the same table as workers of this computer, with a node that is lost too."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

import multipress.engines.ray as engine_module
import stub
from multipress.engines.job import Job, Places
from multipress.engines.local import LocalEngine
from multipress.engines.ray import RayEngine, _fill
from multipress.engines.schedule import run_what_is_left
from multipress.errors import InputError
from multipress.spec import DataSpec, RunSpec
from multipress.store import Store

TESTS = str(Path(stub.__file__).parent)


@pytest.fixture
def ray(monkeypatch):
    found = pytest.importorskip("ray")
    paths = [TESTS, *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))  # nodes import the stub by its name
    yield found
    found.shutdown()


def local_table(folder, cells):
    store = Store(folder)
    with closing(LocalEngine(store, Places(), 2, executor=stub.EXECUTOR)) as engine:
        stub.run(store, stub.make_jobs(cells), engine)
    return stub.table(store)


def listening():
    """Addresses that a process of this computer listens to, from the kernel's table."""
    found = set()
    for name, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A":
                address, port = fields[1].split(":")
                raw = b"".join(bytes.fromhex(address[i : i + 8])[::-1] for i in range(0, len(address), 8))
                found.add((socket.inet_ntop(family, raw), int(port, 16)))
    return found


@pytest.mark.slow
def test_a_ray_started_here_gives_the_same_table_and_listens_to_this_host_only(ray, tmp_path):
    before = listening()
    store = Store(tmp_path / "ray")
    with closing(RayEngine(store, Places(), 2, executor=stub.EXECUTOR)) as engine:
        stub.run(store, stub.make_jobs(9), engine)
        opened = listening() - before
        jobs = [
            Job(f"{number:012x}", RunSpec("train", model, DataSpec(task="t"), seed=number))
            for number, model in enumerate(["dies", "dies-once", "diverges", "breaks", "stub"])
        ]
        run_what_is_left(jobs, store, engine)
    assert opened
    assert {address.removeprefix("::ffff:") for address, _ in opened} <= {"127.0.0.1", "::1"}
    assert stub.table(store) == local_table(tmp_path / "local", 9)
    runs = [store.run(job.run_id) for job in jobs]
    assert [(run.state, run.attempts) for run in runs] == [
        ("failed", 5), ("done", 2), ("diverged", 1), ("failed", 5), ("done", 1)
    ]  # fmt: skip
    assert "WorkerCrashedError" in runs[0].why
    assert "ValueError" in runs[3].why


@pytest.mark.slow
def test_a_node_that_is_killed_takes_nothing_along(ray, tmp_path, monkeypatch):
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("STUB_SECONDS", "1")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    other = cluster.add_node(num_cpus=1)
    store = Store(tmp_path / "ray")
    try:
        with closing(RayEngine(store, Places(), address=cluster.address, executor=stub.EXECUTOR)) as engine:

            def kill():
                raylet = other.all_processes["raylet"][0].process.pid
                while True:  # until a run is in the middle on that node
                    found = subprocess.run(["pgrep", "-P", str(raylet)], capture_output=True, text=True)
                    children = found.stdout.split()
                    open_runs = [
                        path for path in store.folder.glob("*/*/worker") if not (path.parent / "DONE").exists()
                    ]
                    if any(path.read_text() in children for path in open_runs):
                        break
                    time.sleep(0.02)
                for process in [raylet, *map(int, children)]:  # all at once, as when its power fails
                    os.kill(process, signal.SIGKILL)

            store.check_writable()
            killer = threading.Thread(target=kill)
            killer.start()
            stub.run(store, stub.make_jobs(12), engine)
            killer.join()
    finally:
        cluster.shutdown()
    assert max(run.attempts for run in store.runs()) == 2  # what ran on the lost node ran again
    assert all(len(list((tmp_path / "ray" / run.run_id).glob("*/DONE"))) == 1 for run in store.runs())
    monkeypatch.setenv("STUB_SECONDS", "0")
    assert stub.table(store) == local_table(tmp_path / "local", 12)


def test_a_node_that_does_not_see_the_folder_says_so(tmp_path):
    spec = RunSpec("train", "stub", DataSpec(task="t")).to_json()
    outcome = _fill((tmp_path, Places(), stub.EXECUTOR), "0" * 12, spec, str(tmp_path / "nowhere" / "attempt-1"))
    assert outcome["state"] == "failed"
    assert outcome["retryable"]
    assert "All nodes" in outcome["why"]


@pytest.mark.slow
def test_a_cluster_with_a_node_that_differs_is_refused_before_anything_runs(ray, tmp_path, monkeypatch):
    real = engine_module._probe
    monkeypatch.setattr(engine_module, "_probe", lambda folder: real(folder) | {"versions": {"torch": "0.1"}})
    store = Store(tmp_path / "ray")
    # The nodes are asked with the real function: what the study's own process would find differs.
    monkeypatch.setattr(RayEngine, "_probe_task", lambda self: self._ray.remote(real), raising=False)
    with pytest.raises(InputError, match="has other versions than this one"):
        RayEngine(store, Places(), 1, executor=stub.EXECUTOR)
    monkeypatch.setattr(engine_module, "_probe", real)
    monkeypatch.setattr(RayEngine, "_probe_task", lambda self: self._ray.remote(lambda folder: real(folder + "/x")))
    with pytest.raises(InputError, match="does not see"):
        RayEngine(store, Places(), 1, executor=stub.EXECUTOR)
    assert store.runs() == []


@pytest.mark.slow
def test_waiting_for_a_run_that_is_elsewhere_takes_its_time(ray, tmp_path):
    with closing(RayEngine(Store(tmp_path / "ray"), Places(), 1, executor=stub.EXECUTOR)) as engine:
        began = time.monotonic()
        assert engine.wait(0.3) == []
        assert time.monotonic() - began >= 0.3


@pytest.mark.slow
def test_a_cluster_that_does_not_answer_and_a_missing_ray_are_told(tmp_path, monkeypatch):
    pytest.importorskip("ray")
    code = (
        "import sys; from pathlib import Path; from multipress.engines.ray import RayEngine\n"
        "from multipress.engines.job import Places; from multipress.store import Store\n"
        "RayEngine(Store(Path('.')), Places(), address='127.0.0.1:1')"
    )
    environment = os.environ | {"RAY_gcs_rpc_server_connect_timeout_s": "1", "RAY_NUM_REDIS_GET_RETRIES": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert "InputError: No Ray cluster answers at 127.0.0.1:1" in done.stderr
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match="pip install"):
        RayEngine(Store(tmp_path), Places())
