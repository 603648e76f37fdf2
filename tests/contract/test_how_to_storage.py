"""The storage of the how-to guide keeps the contract, as far as the guide says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from llmengine_core.testing.profiles import PROFILE_VARIABLE

GUIDE = Path(__file__).parents[2] / "docs" / "how-to" / "write-a-plugin.md"
PROGRAM = """
from llmengine_core.testing import Quirk, StorageContract, run_contract

class Guide(StorageContract):
    storage = "memory"
    plugin = "memory_plugin"
    shared_between_processes = False
    quirks = {"test_memory_is_bounded_whatever_the_size": Quirk("the guide says so")}

for verdict in run_contract(Guide):
    if verdict.outcome == "failed":
        print(verdict.law, verdict.reason)
"""


def test_the_guides_storage_keeps_the_contract(tmp_path: Path) -> None:
    blocks = re.findall(r"<!-- file: (\S+) -->\n```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    assert {"memory_plugin.py", "memory_storage.py"} <= {name for name, _ in blocks}
    for name, code in blocks:
        (tmp_path / name).write_text(code)
    (tmp_path / "judge.py").write_text(PROGRAM)
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), PROFILE_VARIABLE: "smoke"}
    done = subprocess.run(
        [sys.executable, "judge.py"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
