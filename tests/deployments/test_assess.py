"""An operator asks what stands in a VM's way, by the blocks that Prefect has."""

import json
from pathlib import Path

from .conftest import Site


def test_assess_by_the_blocks_says_only_what_it_found(idle_site: Site, tmp_path: Path) -> None:
    """Nothing of Prefect's own queue of events, which is never empty at the end of so short a process."""
    done = idle_site.command(tmp_path, "assess", "canary", "--vcenter", "lab", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert "canary" in json.dumps(json.loads(done.stdout))
