"""Logins to the simulated vCenter."""

import ssl
import threading
from pathlib import Path
from typing import Any

import pytest
from pyVim.connect import SmartConnect
from pyVmomi import vim, vmodl

from snapferry.lab import Lab, LabConfig, up
from snapferry.lab.config import LabVCenter


def test_a_wrong_password_is_refused_as_vcenter_does(connect: Any) -> None:
    with pytest.raises(vim.fault.InvalidLogin):
        connect("looker", "no")
    with pytest.raises(vim.fault.InvalidLogin):
        connect("looker", "")


def test_an_unknown_ca_is_refused(lab: Lab) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        SmartConnect(
            host=lab.endpoints.vcenter_host, port=lab.endpoints.vcenter_port, user="x", pwd="x",
            sslContext=ssl.create_default_context(),
        )  # fmt: skip


def test_a_session_that_expired_is_not_authenticated(lab: Lab, connect: Any) -> None:
    instance = connect()
    folder = instance.content.rootFolder
    assert folder.name == "Datacenters"
    assert lab.control.expire_sessions() >= 1
    with pytest.raises(vim.fault.NotAuthenticated):
        folder.name  # noqa: B018 (reading it is a call)


@pytest.mark.slow
def test_a_session_dies_of_idleness_and_lives_by_use(tmp_path: Path) -> None:
    config = LabConfig(vcenter=LabVCenter(session_idle_seconds=1))
    with up(config, tmp_path / "lab") as lab:
        ends = lab.endpoints
        context = ssl.create_default_context(cafile=ends.ca_file)
        instance = SmartConnect(
            host=ends.vcenter_host, port=ends.vcenter_port, user=ends.vcenter_user, pwd=ends.vcenter_password,
            sslContext=context,
        )  # fmt: skip
        collector = instance.content.propertyCollector
        options = vmodl.query.PropertyCollector.WaitOptions(maxWaitSeconds=2)
        assert collector.WaitForUpdatesEx("", options) is None  # a wait is use, however long it is
        assert instance.CurrentTime()
        threading.Event().wait(1.3)  # idleness is what this is about
        with pytest.raises(vim.fault.NotAuthenticated):
            instance.CurrentTime()


def test_views_and_filters_end_with_their_session(connect: Any, si: Any) -> None:
    other = connect()
    view = other.content.viewManager.CreateContainerView(other.content.rootFolder, [vim.VirtualMachine], True)
    assert vim.view.ContainerView(view._moId, si._stub).view
    other.content.sessionManager.Logout()
    with pytest.raises(vmodl.fault.ManagedObjectNotFound):
        vim.view.ContainerView(view._moId, si._stub).view  # noqa: B018 (reading it is a call)


def test_the_current_session_is_told(connect: Any) -> None:
    instance = connect("looker")
    session = instance.content.sessionManager.currentSession
    assert session.userName == "looker"
    assert instance.content.sessionManager.SessionIsActive(session.key, "looker")
