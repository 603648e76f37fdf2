"""Asks a hub with the hub's own library, in a process of its own: `official_client.py`, questions on standard input."""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, hf_hub_download, snapshot_download


def ask(call: str, given: dict[str, Any]) -> Any:
    match call:
        case "files":
            tree = HfApi().list_repo_tree(recursive=True, **given)
            return [[each.path, getattr(each, "size", None)] for each in tree]
        case "info":
            return HfApi().model_info(**given).sha
        case "file":
            return Path(hf_hub_download(**given)).read_text(encoding="utf-8")
        case "snapshot":
            root = Path(snapshot_download(**given))
            return sorted(
                str(Path(folder, name).relative_to(root))
                for folder, _, names in os.walk(root)
                for name in names
            )
        case "constants":
            from huggingface_hub import constants, get_token

            os.environ.clear()
            os.environ.update(given)
            importlib.reload(constants)
            return {
                "endpoint": constants.ENDPOINT,
                "cache": str(Path(constants.HF_HUB_CACHE).absolute()),
                "token_file": constants.HF_TOKEN_PATH,
                "offline": constants.is_offline_mode(),
                "token": None if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN else get_token(),
            }
    raise AssertionError(call)


def main() -> None:
    answers = []
    for call, given in json.loads(sys.stdin.read()):
        try:
            answers.append(ask(call, given))
        except Exception as error:
            answers.append(type(error).__name__)
    sys.stdout.write(json.dumps(answers))


if __name__ == "__main__":
    main()
