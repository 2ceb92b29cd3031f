"""Tasks: the calls that go on after their answer."""

import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from pyVmomi import vim, vmodl

from snapferry.lab.host.errors import HostError
from snapferry.lab.vcenter.faults import fault_of_host
from snapferry.lab.vcenter.store import Store

_log = logging.getLogger(__name__)


class Tasks:
    """Starts tasks and keeps their infos in the store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def start(self, entity: Any, name: str, user: str, hold: Callable[[Any], None], work: Callable[[], Any]) -> Any:
        """Runs `work` in a thread of its own; returns the task at once.

        Args:
            name: `VirtualMachine.createSnapshot`.
            hold: gets the task before `work` starts, in the order of the calls; may raise the fault that it ends with.
            work: returns the task's result, or raises the fault that the task ends with.
        """
        task = vim.Task(self._store.next_id("task"))
        now = datetime.now(UTC)
        info = vim.TaskInfo(
            key=task._moId,
            task=task,
            descriptionId=name,
            entity=entity,
            entityName=self._store.get(entity, "name"),
            state=vim.TaskInfo.State.running,
            cancelled=False,
            cancelable=False,
            reason=vim.TaskReasonUser(userName=user),
            queueTime=now,
            startTime=now,
            eventChainId=int(task._moId.rpartition("-")[2]),
        )
        self._store.add(task, info=info)
        refused = None
        try:
            hold(task)
        except vmodl.MethodFault as fault:
            refused = fault
        threading.Thread(target=self._run, args=(task, work, refused), name=task._moId, daemon=True).start()
        return task

    def _run(self, task: Any, work: Callable[[], Any], refused: Any) -> None:
        state, result, error = vim.TaskInfo.State.success, None, None
        try:
            if refused is not None:
                raise refused
            result = work()
        except vmodl.MethodFault as fault:
            state, error = vim.TaskInfo.State.error, fault
        except HostError as failure:
            state, error = vim.TaskInfo.State.error, fault_of_host(failure)
        except Exception as failure:  # noqa: BLE001 (whatever it was, the task has to end)
            _log.exception("task %s failed", task._moId)
            state = vim.TaskInfo.State.error
            error = vmodl.fault.SystemError(reason=str(failure), msg=f"A general system error occurred: {failure}")

        def end(info: Any) -> None:
            info.state, info.result, info.error = state, result, error
            info.progress = None if error else 100
            info.completeTime = datetime.now(UTC)

        self._store.edit(task, "info", end)
