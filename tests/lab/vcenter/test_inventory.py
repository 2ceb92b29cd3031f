"""The inventory as the stock client reads it."""

from typing import Any

import pytest
from pyVmomi import vim, vmodl

from snapferry.lab import Lab
from snapferry.lab.kinds import KINDS

PC = vmodl.query.PropertyCollector


def retrieve(si: Any, kind: Any, paths: list[str], page: int | None = None) -> list[Any]:
    """Every object of a type below the root, in as many pages as it takes."""
    content = si.content
    view = content.viewManager.CreateContainerView(content.rootFolder, [kind], True)
    step = PC.TraversalSpec(name="view", path="view", skip=False, type=vim.view.ContainerView)
    spec = PC.FilterSpec(
        objectSet=[PC.ObjectSpec(obj=view, skip=True, selectSet=[step])],
        propSet=[PC.PropertySpec(type=kind, pathSet=paths)],
    )
    found, pages = [], 0
    result = content.propertyCollector.RetrievePropertiesEx([spec], PC.RetrieveOptions(maxObjects=page))
    while result is not None:
        pages += 1
        found += result.objects
        result = content.propertyCollector.ContinueRetrievePropertiesEx(result.token) if result.token else None
    view.DestroyView()
    if page:
        assert pages == -(-len(found) // page)
    return found


def disks(config: Any) -> list[Any]:
    return [one for one in config.hardware.device if isinstance(one, vim.vm.device.VirtualDisk)]


def test_bulk_reads_come_in_pages(si: Any) -> None:
    whole = retrieve(si, vim.VirtualMachine, ["name"])
    paged = retrieve(si, vim.VirtualMachine, ["name"], page=4)
    assert [one.propSet[0].val for one in paged] == [one.propSet[0].val for one in whole]
    assert "web01" in [one.propSet[0].val for one in whole]


def test_a_page_token_is_good_once(si: Any) -> None:
    content = si.content
    view = content.viewManager.CreateContainerView(content.rootFolder, [vim.VirtualMachine], True)
    step = PC.TraversalSpec(path="view", type=vim.view.ContainerView)
    spec = PC.FilterSpec(
        objectSet=[PC.ObjectSpec(obj=view, skip=True, selectSet=[step])],
        propSet=[PC.PropertySpec(type=vim.VirtualMachine, pathSet=["name"])],
    )
    token = content.propertyCollector.RetrievePropertiesEx([spec], PC.RetrieveOptions(maxObjects=1)).token
    content.propertyCollector.ContinueRetrievePropertiesEx(token)
    with pytest.raises(vmodl.fault.InvalidArgument):
        content.propertyCollector.ContinueRetrievePropertiesEx(token)


def test_traversal_walks_up_by_named_steps(si: Any, web01: Any) -> None:
    up = PC.TraversalSpec(name="up", type=vim.ManagedEntity, path="parent", selectSet=[PC.SelectionSpec(name="up")])
    spec = PC.FilterSpec(
        objectSet=[PC.ObjectSpec(obj=web01, selectSet=[up])],
        propSet=[PC.PropertySpec(type=vim.ManagedEntity, pathSet=["name"])],
    )
    found = si.content.propertyCollector.RetrievePropertiesEx([spec], PC.RetrieveOptions()).objects
    assert [one.propSet[0].val for one in found] == ["web01", "prod", "vm", "dc1", "Vienna", "Datacenters"]


def test_an_unknown_property_is_refused(si: Any, web01: Any) -> None:
    for path in ("nonsense", "config.nonsense"):
        spec = PC.FilterSpec(
            objectSet=[PC.ObjectSpec(obj=web01)], propSet=[PC.PropertySpec(type=vim.VirtualMachine, pathSet=[path])]
        )
        with pytest.raises(vmodl.query.InvalidProperty) as caught:
            si.content.propertyCollector.RetrievePropertiesEx([spec], PC.RetrieveOptions())
        assert caught.value.name == path


def test_a_vm_tells_its_hardware(web01: Any) -> None:
    config = web01.config
    places = [(one.key, one.controllerKey, one.unitNumber, one.capacityInBytes) for one in disks(config)]
    mib = 1 << 20
    assert places == [(2000, 1000, 0, 4 * mib + 512), (16000, 15000, 0, 2 * mib), (2001, 1000, 1, 2 * mib)]
    controllers = {one.key: one for one in config.hardware.device if isinstance(one, vim.vm.device.VirtualController)}
    assert isinstance(controllers[1000], vim.vm.device.ParaVirtualSCSIController)
    assert isinstance(controllers[15000], vim.vm.device.VirtualAHCIController)
    assert list(controllers[1000].device) == [2000, 2001]
    assert (config.firmware, config.bootOptions.efiSecureBootEnabled, config.version) == ("efi", True, "vmx-19")
    assert len({one.backing.uuid for one in disks(config)}) == 3
    nics: list[Any] = [one for one in config.hardware.device if isinstance(one, vim.vm.device.VirtualEthernetCard)]
    assert [nic.macAddress for nic in nics][1] == "00:50:56:01:02:03"
    assert [nic.connectable.startConnected for nic in nics] == [True, False]
    assert [nic.backing.network.name for nic in nics] == ["VM Network", "dmz"]
    net = web01.guest.net
    assert [(one.macAddress, list(one.ipAddress)) for one in net] == [
        (nics[0].macAddress, ["10.0.5.77"]), (nics[1].macAddress, [])
    ]  # fmt: skip


def test_tools_are_told_as_they_are(si: Any) -> None:
    find = si.content.searchIndex.FindByInventoryPath
    seen = {}
    for name in ("web01", "mute", "bare", "still"):
        guest = find(f"/Vienna/dc1/vm/prod/{name}").guest
        seen[name] = (guest.toolsRunningStatus, guest.toolsVersionStatus2, guest.hostName)
    assert seen == {
        "web01": ("guestToolsRunning", "guestToolsUnmanaged", "web01"),
        "mute": ("guestToolsNotRunning", "guestToolsUnmanaged", None),
        "bare": ("guestToolsNotRunning", "guestToolsNotInstalled", None),
        "still": ("guestToolsNotRunning", "guestToolsUnmanaged", None),
    }


def test_names_are_shown_as_vcenter_writes_them(si: Any) -> None:
    found = si.content.searchIndex.FindByInventoryPath("Vienna/dc1/vm/prod/deep/10%25 a%2fb%5cc")
    assert found.name == "10%25 a%2fb%5cc"
    assert found.parent.name == "deep"


def test_a_vm_is_found_by_either_uuid(si: Any, web01: Any) -> None:
    index, config = si.content.searchIndex, web01.config
    assert index.FindByUuid(None, config.instanceUuid, True, True) == web01
    assert index.FindByUuid(None, config.uuid.upper(), True, False) == web01
    assert index.FindByUuid(None, config.uuid, True, True) is None
    assert index.FindAllByUuid(None, config.uuid, True, False) == [web01]
    assert index.FindByDnsName(None, "web01", True) == web01
    assert index.FindByInventoryPath("Vienna/dc1/vm/prod/none") is None


def test_datastores_tell_their_kind_and_free_space(si: Any, lab: Lab) -> None:
    stores = {one.name: one for one in si.content.searchIndex.FindByInventoryPath("Vienna/dc1").datastore}
    assert sorted(stores) == sorted(["san1", "san2", *KINDS])
    info, summary = stores["san1"].info, stores["san1"].summary
    assert (summary.type, info.vmfs.majorVersion, summary.accessible) == ("VMFS", 6, True)
    assert summary.capacity == 500 << 30
    used = summary.capacity - summary.freeSpace
    assert 1 << 20 < used < 1 << 30
    assert stores["san2"].summary.freeSpace == 1 << 40


def test_vms_stand_in_their_places(si: Any, web01: Any) -> None:
    host = web01.runtime.host
    assert host.name == "esx1.lab.test"
    assert host.parent.name == "cluster1"
    assert web01 in host.vm
    assert web01 in web01.resourcePool.vm
    assert web01 in web01.datastore[0].vm
    assert [one.name for one in host.parent.host] == ["esx1.lab.test", "esx2.lab.test"]
    assert host.summary.config.product.version == "8.0.3"


def test_an_object_that_never_was_is_not_found(si: Any) -> None:
    with pytest.raises(vmodl.fault.ManagedObjectNotFound) as caught:
        vim.VirtualMachine("vm-99999", si._stub).name  # noqa: B018 (reading it is a call)
    assert caught.value.obj._moId == "vm-99999"


def test_an_unknown_method_is_refused(web01: Any) -> None:
    with pytest.raises(vmodl.fault.MethodNotFound):
        web01.SuspendVM_Task()
