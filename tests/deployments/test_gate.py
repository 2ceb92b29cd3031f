"""A gate keeps its question while workers come and go; it is answered on the command line or in the browser."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from time import monotonic
from uuid import UUID

import pytest
from playwright.sync_api import Page, expect, sync_playwright
from prefect.client.orchestration import get_client

from snapferry.deployments import Update, deploy

from .conftest import Site
from .support import artifacts, gate_of, plan, run, watch

pytestmark = pytest.mark.slow
CHROMIUM = Path("/usr/bin/chromium")
FLAGS = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync")
WAIT_MS = 60_000


def test_a_gate_that_outlived_its_worker_is_answered_on_the_command_line(site: Site, tmp_path: Path) -> None:
    deploy([plan("terminal")])
    updates: list[Update] = []
    waiting = run("migrate-vm/migrate-terminal", updates=updates)
    assert waiting.outcome == "waiting", waiting
    site.replace_worker()
    check_shown(waiting.flow_run_id, updates)
    refused = site.command(tmp_path, "approve", "terminal", "--name", "another")
    assert refused.returncode == 2, refused.stderr
    nobody_asked = site.command(tmp_path, "approve", "terminal")
    assert nobody_asked.returncode == 2, nobody_asked.stderr
    assert gate_of(waiting.flow_run_id).vm == "terminal"  # it still waits
    answered = site.command(tmp_path, "approve", "terminal", "--name", "terminal", "--json")
    assert answered.returncode == 0, answered.stderr
    assert "Predicted downtime" in answered.stderr
    assert json.loads(answered.stdout)["outcome"] == "completed"
    check_moved(site, "terminal")
    assert {"round.completed", "converged", "gate.waiting", "cutover.started", "migrated"} <= events_of("terminal")


def check_shown(run: UUID, updates: list[Update]) -> None:
    """Steps and progress were seen while it copied; rounds and disks are artifacts."""
    assert any(line.text.startswith("copying") for update in updates for line in update.lines)
    assert {disk.label for update in updates for disk in update.disks} == {"Hard disk 1", "Hard disk 2"}
    assert {"terminal-rounds", "terminal-hard-disk-1", "terminal-hard-disk-2"} <= set(artifacts(run))


def check_moved(site: Site, vm: str) -> None:
    """The source is off and marked, the target runs."""
    inventory = site.lab.control.inventory()
    assert inventory.vms[f"{vm}-migrated"].power == "poweredOff"
    assert [one["state"] for one in inventory.machines if one["name"] == vm] == ["ACTIVE"]


def events_of(vm: str) -> set[str]:
    """Names of our events about a VM, without `snapferry.`; they reach the database in batches."""
    deadline = monotonic() + 30
    with get_client(sync_client=True) as client:
        while True:
            asked = {"filter": {"event": {"prefix": ["snapferry."]}}, "limit": 50}
            events = client.request("POST", "/events/filter", json=asked).json()["events"]
            found = {one["event"].removeprefix("snapferry.") for one in events if one["payload"].get("vm") == vm}
            if "migrated" in found or monotonic() > deadline:
                return found


@contextmanager
def browser_page(profile: Path) -> Iterator[Page]:
    """A page of Debian's chromium, headless."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch_persistent_context(
            profile, executable_path=CHROMIUM, headless=True, args=list(FLAGS)
        )
        try:
            yield browser.pages[0]
        finally:
            browser.close()


def submit(page: Page) -> int:
    """Sends the gate's form; the status that the server answers."""
    with page.expect_response(lambda one: one.url.endswith("/resume"), timeout=WAIT_MS) as answer:
        page.locator(".p-modal").get_by_role("button", name="Submit").click()
    return answer.value.status


@pytest.mark.skipif(not CHROMIUM.exists(), reason=f"{CHROMIUM} is missing: apt-get install chromium")
def test_a_gate_that_outlived_its_worker_is_answered_in_the_browser(site: Site, tmp_path: Path) -> None:
    deploy([plan("browser")])
    waiting = run("migrate-vm/migrate-browser")
    assert waiting.outcome == "waiting", waiting
    site.replace_worker()
    with browser_page(tmp_path / "profile") as page:
        page.goto(f"{site.api.removesuffix('/api')}/runs/flow-run/{waiting.flow_run_id}", timeout=WAIT_MS)
        page.get_by_role("button", name="Resume").first.click(timeout=WAIT_MS)
        form = page.locator(".p-modal")
        expect(form.get_by_text("Cut over browser to OpenNebula?")).to_be_visible(timeout=WAIT_MS)
        expect(form.get_by_text("Predicted downtime")).to_be_visible()
        form.get_by_role("button", name="Submit").click()
        expect(form.get_by_text("'vm' is a required property")).to_be_visible(timeout=WAIT_MS)
        expect(form.get_by_text("'when' is a required property")).to_be_visible()
        assert gate_of(waiting.flow_run_id).vm == "browser"  # it still waits
        form.get_by_role("switch").click()
        name, when = form.get_by_role("textbox").all()
        name.fill("browser")
        when.fill("now")
        for _ in range(5):
            if submit(page) != HTTPStatus.SERVICE_UNAVAILABLE:  # its database was busy; the form stays as it is
                break
        expect(form).to_be_hidden(timeout=WAIT_MS)
    assert watch(waiting.flow_run_id).outcome == "completed"
    check_moved(site, "browser")
