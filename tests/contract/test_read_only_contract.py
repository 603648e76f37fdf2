"""What every storage promises that is only read, on one in memory."""

from __future__ import annotations

from tests.contract.mutants.storages import ReadOnlyContract

from llmengine_core.testing.verdicts import run_law


class TestReadOnly(ReadOnlyContract):
    """It holds, where it applies."""

    subject = "read-only"
    quirks = {}  # noqa: RUF012


def test_laws_that_write_do_not_apply_to_what_is_read_only() -> None:
    ReadOnlyContract.setup_class()
    try:
        verdict = run_law(ReadOnlyContract, "test_create_only_never_replaces")
    finally:
        ReadOnlyContract.teardown_class()
    assert (verdict.outcome, verdict.reason) == ("not applicable", "writing is not declared")
