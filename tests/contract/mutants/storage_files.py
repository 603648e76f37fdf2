"""Storages in folders that are wrong."""

from __future__ import annotations

from tests.contract.mutants import Mutant
from tests.contract.mutants.storages import storage_mutant
from tests.contract.wrong_folders import (
    BufferedByTask,
    InMemory,
    InPlace,
    LeavesDrafts,
    LeavesFilesOpen,
    LeavesKilledDrafts,
    LockedInProcess,
    Naive,
    SweepsAll,
    Unlocked,
    WritesLater,
)

MUTANTS: list[Mutant] = [
    storage_mutant(
        "unlocked",
        "writers don't exclude each other",
        Unlocked,
        "test_of_several_processes_exactly_one_creates",
    ),
    storage_mutant(
        "locked_in_process",
        "a lock is the process's own",
        LockedInProcess,
        "test_increments_of_several_processes_are_all_counted",
    ),
    storage_mutant(
        "in_memory",
        "a large object is held in memory",
        InMemory,
        "test_memory_is_bounded_whatever_the_size",
    ),
    storage_mutant(
        "leaves_drafts",
        "what broke off stays as a file",
        LeavesDrafts,
        "test_broken_off_puts_do_not_pile_up",
    ),
    storage_mutant(
        "leaves_killed_drafts",
        "what killed writers left stays",
        LeavesKilledDrafts,
        "test_a_writer_killed_in_a_put_leaves_nothing",
    ),
    storage_mutant(
        "sweeps_all",
        "what others are writing is swept",
        SweepsAll,
        "test_puts_beside_deletes_are_not_lost",
    ),
    storage_mutant(
        "leaves_files_open",
        "files stay open",
        LeavesFilesOpen,
        "test_streams_that_are_left_keep_no_files_open",
    ),
    storage_mutant(
        "in_place",
        "objects are written in place",
        InPlace,
        "test_a_writer_killed_in_a_put_leaves_nothing",
        "test_nobody_sees_a_part_of_an_object",
    ),
    storage_mutant(
        "writes_later",
        "put returns before its object is there",
        WritesLater,
        "test_a_killed_writer_loses_nothing_acknowledged",
    ),
    storage_mutant(
        "buffered_by_task",
        "a cancelled put goes on",
        BufferedByTask,
        "test_broken_off_puts_do_not_pile_up",
    ),
    storage_mutant(
        "naive",
        "paths are keys, unquoted, with links followed",
        Naive,
        "test_no_key_leads_out_of_the_storage",
        "test_no_link_leads_out_of_the_storage",
        "test_all_errors_are_storage_errors",
    ),
]
