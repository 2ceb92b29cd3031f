"""Makes the README's pictures of the Prefect UI from a demo: `make docs-images`. Fails on a blank or error page."""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from uuid import UUID

from playwright.sync_api import Page, expect, sync_playwright

CHROMIUM = "/usr/bin/chromium"
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)
IMAGES = Path(__file__).parent / "images"
MOST_BYTES = 200_000
LEAST_BYTES = 45_000
"""The UI's frame with nothing in it makes a smaller file."""
WAIT_MS = 60_000
VM = "web01"


class BadPage(Exception):
    """A page isn't what the README shows."""


class Camera:
    """A browser on a Prefect UI that takes pictures of pages whose content is there."""

    def __init__(self, page: Page, ui_url: str, folder: Path) -> None:
        self.page = page
        self._url = ui_url
        self._folder = folder
        self._errors: list[str] = []
        page.on("pageerror", lambda error: self._errors.append(str(error)))

    def open(self, path: str) -> None:
        """Goes to a page of the UI."""
        self.page.goto("about:blank")  # so that what the page before did last isn't taken for this one's error
        self._errors.clear()
        reply = self.page.goto(f"{self._url}{path}", timeout=WAIT_MS)
        if reply is None or not reply.ok:
            raise BadPage(f"{path}: {reply.status if reply else 'no answer'}")

    def open_artifact(self, key: str) -> None:
        """Goes to the newest artifact of a key."""
        self.open(f"/artifacts/key/{key}")
        self.page.locator('a[href*="/artifacts/artifact/"]').first.click(timeout=WAIT_MS)

    def take(self, name: str, *texts: str) -> Path:
        """Takes a picture once all the texts are seen.

        Raises:
            BadPage: a script of the page failed, or the picture is blank or too large.
            AssertionError: a text isn't there in time.
        """
        for text in texts:
            expect(self.page.get_by_text(text).first).to_be_visible(timeout=WAIT_MS)
        self.page.wait_for_load_state("networkidle", timeout=WAIT_MS)
        file = self._folder / f"{name}.png"
        self.page.screenshot(path=file, animations="disabled")
        if self._errors:
            raise BadPage(f"{name}: {'; '.join(self._errors)}")
        if not LEAST_BYTES < file.stat().st_size < MOST_BYTES:
            raise BadPage(f"{name}: {file.stat().st_size} bytes")
        return file


def take_all(ui_url: str, presync_id: str, migrate_id: str, folder: Path) -> list[Path]:
    """The gate, answered in the browser; then the runs and what they show."""
    with tempfile.TemporaryDirectory() as profile, sync_playwright() as driver:
        browser = driver.chromium.launch_persistent_context(
            profile, executable_path=CHROMIUM, args=list(FLAGS), viewport={"width": 1280, "height": 860}
        )
        camera = Camera(browser.pages[0], ui_url, folder)
        camera.open(f"/runs/flow-run/{presync_id}")
        taken = [camera.take("run", f"presync {VM}", "Completed", "Task Runs")]
        camera.open_artifact(f"{VM}-rounds")
        taken.append(camera.take("rounds", "base", "delta"))
        camera.open(f"/runs/flow-run/{migrate_id}")
        camera.page.get_by_role("button", name="Resume").first.click(timeout=WAIT_MS)
        taken.append(camera.take("gate", f"Cut over {VM} to OpenNebula?", "Name of the VM, typed again"))
        answer_gate(camera.page)
        wait_completed(ui_url, migrate_id)
        camera.open_artifact(f"{VM}-report")
        taken.append(camera.take("report", "Downtime", "Hard disk 1", "last changes"))
        browser.close()
    return taken


def answer_gate(page: Page) -> None:
    """Fills the form in and sends it, as an operator does."""
    form = page.locator(".p-modal")
    form.get_by_role("switch").click()
    name, when = form.get_by_role("textbox").all()
    name.fill(VM)
    when.fill("now")
    form.get_by_role("button", name="Submit").click()
    expect(form).to_be_hidden(timeout=WAIT_MS)


def wait_completed(ui_url: str, flow_run_id: str) -> None:
    """Returns once a run has completed. Raises BadPage where it ends otherwise."""
    os.environ["PREFECT_API_URL"] = f"{ui_url}/api"

    from snapferry.deployments import follow

    followed = follow(UUID(flow_run_id), timeout_seconds=300)
    if followed.outcome != "completed":
        raise BadPage(f"{followed.name}: {followed.state}: {followed.message}")


def main() -> None:
    """Runs a demo up to its gate, takes the pictures, ends the demo."""
    demo = [sys.executable, "-m", "snapferry.cli", "demo", "--folder", "build/images-demo"]
    done = subprocess.run([*demo, "--at-gate"], stdout=subprocess.PIPE, text=True, timeout=600)
    print(done.stdout)
    try:
        found = re.search(r"Prefect's UI: (\S+)", done.stdout)
        runs = re.findall(r"flow-run/([0-9a-f-]{36})", done.stdout)
        if done.returncode or not found or len(runs) != 2:
            raise BadPage(f"the demo ended with {done.returncode}")
        IMAGES.mkdir(exist_ok=True)
        for file in take_all(found[1], *runs, IMAGES):
            print(f"{file.relative_to(Path.cwd())}: {file.stat().st_size} bytes")
    finally:
        subprocess.run([*demo, "--stop"], check=True, timeout=60)


if __name__ == "__main__":
    os.chdir(Path(__file__).parent.parent)
    main()
