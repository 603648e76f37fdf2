"""``python -m llmengine_core.cli``."""

from __future__ import annotations

from llmengine_core.cli import main

if __name__ == "__main__":
    main()
