"""Waiting for changes."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from pyVim.task import WaitForTask
from pyVmomi import vim, vmodl

from snapferry.lab import Lab

PC = vmodl.query.PropertyCollector


def watch(collector: Any, mo: Any, *paths: str) -> Any:
    return collector.CreateFilter(
        PC.FilterSpec(objectSet=[PC.ObjectSpec(obj=mo)], propSet=[PC.PropertySpec(type=type(mo), pathSet=list(paths))]),
        True,
    )


def changes(update: Any) -> dict[str, Any]:
    return {one.name: one.val for each in update.filterSet for obj in each.objectSet for one in obj.changeSet}


def test_a_wait_ends_when_the_property_changes(si: Any, vm: Any, lab: Lab) -> None:
    collector = si.content.propertyCollector.CreatePropertyCollector()
    watch(collector, vm, "runtime.powerState", "name")
    first = collector.WaitForUpdatesEx("", PC.WaitOptions(maxWaitSeconds=5))
    assert changes(first) == {"runtime.powerState": "poweredOn", "name": vm.name}
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(collector.WaitForUpdatesEx, first.version, PC.WaitOptions(maxWaitSeconds=20))
        began = time.monotonic()
        lab.control.power_off(vm.name)
        assert changes(waiting.result(timeout=20)) == {"runtime.powerState": "poweredOff"}
        assert time.monotonic() - began < 5


def test_a_wait_without_news_ends_in_time_with_nothing(si: Any, web01: Any) -> None:
    collector = si.content.propertyCollector.CreatePropertyCollector()
    watch(collector, web01, "name")
    first = collector.WaitForUpdatesEx("", None)
    assert collector.WaitForUpdatesEx(first.version, PC.WaitOptions(maxWaitSeconds=0)) is None
    assert collector.WaitForUpdatesEx(first.version, PC.WaitOptions(maxWaitSeconds=1)) is None


def test_an_old_version_is_told_everything_again(si: Any, vm: Any) -> None:
    collector = si.content.propertyCollector.CreatePropertyCollector()
    watch(collector, vm, "config.annotation")
    first = collector.WaitForUpdatesEx("", None)
    WaitForTask(vm.ReconfigVM_Task(vim.vm.ConfigSpec(annotation="one")))
    assert changes(collector.WaitForUpdatesEx(first.version, None)) == {"config.annotation": "one"}
    assert changes(collector.WaitForUpdatesEx(first.version, None)) == {"config.annotation": "one"}
    with pytest.raises(vmodl.query.InvalidCollectorVersion):
        collector.WaitForUpdatesEx("x", None)


def test_an_ended_session_ends_its_waits(lab: Lab, connect: Any, web01: Any) -> None:
    instance = connect()
    collector = instance.content.propertyCollector
    watch(collector, web01, "name")
    version = collector.WaitForUpdatesEx("", None).version
    asked = threading.Event()

    def wait() -> None:
        asked.set()
        collector.WaitForUpdatesEx(version, PC.WaitOptions(maxWaitSeconds=60))

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(wait)
        assert asked.wait(5)
        lab.control.expire_sessions()
        with pytest.raises((vmodl.fault.RequestCanceled, vim.fault.NotAuthenticated)):
            waiting.result(timeout=10)


def test_snapshots_enter_and_leave_a_filter(si: Any, vm: Any) -> None:
    collector = si.content.propertyCollector.CreatePropertyCollector()
    watch(collector, vm, "snapshot")
    version = collector.WaitForUpdatesEx("", None).version
    task = vm.CreateSnapshot_Task("s", "", False, False)
    WaitForTask(task)
    update = collector.WaitForUpdatesEx(version, PC.WaitOptions(maxWaitSeconds=5))
    assert changes(update)["snapshot"].currentSnapshot == task.info.result
    WaitForTask(task.info.result.RemoveSnapshot_Task(False))
    update = collector.WaitForUpdatesEx(update.version, PC.WaitOptions(maxWaitSeconds=5))
    assert changes(update) == {"snapshot": None}
