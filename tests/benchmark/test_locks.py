from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time

import pytest

from divid.benchmark import locks
from divid.benchmark.locks import STALE_SECONDS, Holder, folder_time, is_stale, this_host, try_lock
from divid.errors import OutputError


@pytest.fixture(scope="module")
def dead_pid():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def leave(path, host, pid, age=0.0):
    """Leave a lock as a process of that machine would."""
    path.write_text(json.dumps({"host": host, "pid": pid, "token": "old"}))
    then = folder_time(path.parent) - age
    os.utime(path, (then, then))


def test_one_at_a_time_and_again_after_release(tmp_path):
    path = tmp_path / "deep" / "lock"
    with try_lock(path) as lock:
        assert lock.is_held
        assert Holder.read(path).pid == os.getpid()
        assert try_lock(path) is None
    assert not path.exists()
    with try_lock(path) as lock:
        assert lock.is_held
    assert list(path.parent.iterdir()) == []


def test_a_lock_is_released_when_the_work_raises(tmp_path):
    with pytest.raises(ValueError, match="work"), try_lock(tmp_path / "lock"):
        raise ValueError("work")
    assert not (tmp_path / "lock").exists()


def test_the_lock_of_a_process_that_has_ended_is_taken_over(tmp_path, dead_pid, caplog):
    path = tmp_path / "lock"
    leave(path, this_host(), dead_pid)
    assert is_stale(path)
    with try_lock(path) as lock:
        assert lock.is_held
    assert f"taken over from process {dead_pid}" in caplog.text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("age", "expected"), [(0.0, False), (STALE_SECONDS - 20, False), (STALE_SECONDS + 5, True)])
def test_the_lock_of_another_machine_counts_by_its_heartbeat(tmp_path, dead_pid, age, expected):
    path = tmp_path / "lock"
    leave(path, "another/pid:[1]", dead_pid, age)
    assert is_stale(path) == expected
    lock = try_lock(path)
    assert (lock is not None) == expected
    if lock is not None:
        lock.release()


def test_a_living_process_that_shows_no_sign_of_life_loses_its_lock(tmp_path):
    leave(tmp_path / "lock", this_host(), os.getpid(), STALE_SECONDS + 5)
    with try_lock(tmp_path / "lock") as lock:
        assert lock.is_held


def test_a_lock_that_cannot_be_read_is_somebodys_until_it_is_old(tmp_path):
    path = tmp_path / "lock"
    path.write_text("")
    assert try_lock(path) is None
    old = folder_time(tmp_path) - STALE_SECONDS - 5
    os.utime(path, (old, old))
    with try_lock(path) as lock:
        assert lock.is_held


def test_of_many_who_find_a_stale_lock_one_gets_it(tmp_path, dead_pid):
    for attempt in range(10):
        path = tmp_path / f"lock-{attempt}"
        leave(path, this_host(), dead_pid)
        barrier, won = threading.Barrier(8), []

        def attempt_it(path=path, barrier=barrier, won=won):
            barrier.wait()
            won.append(try_lock(path))

        threads = [threading.Thread(target=attempt_it) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        locks_won = [lock for lock in won if lock is not None]
        assert len(locks_won) == 1
        assert locks_won[0].is_held
        locks_won[0].release()


def test_the_claim_of_one_who_died_while_taking_over_does_not_last(tmp_path, dead_pid):
    path = tmp_path / "lock"
    leave(path, this_host(), dead_pid)
    leave(tmp_path / ".lock.claim-old", this_host(), dead_pid)
    assert try_lock(path) is None
    with try_lock(path) as lock:
        assert lock.is_held


def test_the_heart_beats(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "HEARTBEAT_SECONDS", 0.01)
    path = tmp_path / "lock"
    with try_lock(path):
        os.utime(path, (1, 1))
        until = time.monotonic() + 20
        while path.stat().st_mtime < 10 and time.monotonic() < until:
            time.sleep(0.01)
        assert path.stat().st_mtime > 10


def test_whoever_lost_a_lock_leaves_the_new_holders_alone(tmp_path):
    path = tmp_path / "lock"
    lock = try_lock(path)
    leave(path, "another/pid:[1]", 1)
    assert not lock.is_held
    lock.release()
    assert Holder.read(path).host == "another/pid:[1]"


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="cannot be written"):
        try_lock(tmp_path / "file" / "lock")


def test_a_file_system_without_links_has_locks_too(tmp_path, monkeypatch, dead_pid):
    def no_links(*args, **options):
        raise PermissionError(1, "no links here")

    monkeypatch.setattr(os, "link", no_links)
    path = tmp_path / "lock"
    leave(path, this_host(), dead_pid)
    with try_lock(path) as lock:
        assert lock.is_held
        assert try_lock(path) is None
    assert list(tmp_path.iterdir()) == []
