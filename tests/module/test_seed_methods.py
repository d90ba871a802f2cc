"""Every class and method of the reference page "Module API" has a test that shows what it does.

``seed_methods.txt`` lists them in the page's order. The tables say where each is tested; a test that does
not so much as name its method does not count.
"""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

import pytest

import dmod as mx

LISTED = Path(__file__).with_name("seed_methods.txt").read_text(encoding="utf-8").split()

# By class: the file, then by test the methods that it shows. "*" stands for making one.
TABLES: dict[str, list[tuple[str, str, str]]] = {
    "BaseModule": [
        ("base_module", "test_fit_needs_no_more_than_the_interface", "* fit"),
        ("base_module", "test_forward_backward_is_both_in_training", "forward_backward"),
        ("base_module", "test_score_calls_back", "score"),
        ("base_module", "test_predict_and_iter_predict_leave_padding_out", "iter_predict predict"),
        (
            "base_module",
            "test_parameters_go_through_files_and_set_params",
            "set_params save_params load_params",
        ),
        ("base_module", "test_a_module_without_states_has_none", "get_states set_states"),
        ("base_module", "test_prepare_does_nothing_by_itself_and_says_so_of_sparse_rows", "prepare"),
        ("base_module", "test_the_symbol_of_a_module_without_one_is_none", "symbol"),
        (
            "base_module",
            "test_what_a_kind_of_module_must_provide",
            "data_names output_names data_shapes label_shapes output_shapes get_params init_params bind "
            "init_optimizer forward backward update get_outputs get_input_grads update_metric "
            "install_monitor",
        ),
    ],
    "Module": [
        (
            "module",
            "test_names_and_shapes",
            "* data_names label_names output_names data_shapes label_shapes output_shapes bind",
        ),
        ("module", "test_parameters_go_in_and_out", "get_params set_params"),
        ("sharing", "test_init_params_takes_given_values_and_makes_the_rest", "init_params"),
        ("module", "test_resuming_from_a_checkpoint_gives_the_bits_of_the_whole_run", "load"),
        ("sharing", "test_checkpoints_load_and_reshape", "save_checkpoint reshape"),
        (
            "module",
            "test_fit_is_the_loop_that_one_writes_by_hand",
            "init_optimizer forward backward update update_metric",
        ),
        ("sharing", "test_borrow_optimizer_uses_the_other_modules_states", "borrow_optimizer"),
        ("module", "test_devices_compute_what_one_does", "get_outputs"),
        ("module", "test_gradients_of_inputs", "get_input_grads"),
        ("module", "test_state_inputs_keep_their_values", "get_states set_states"),
        (
            "sharing",
            "test_optimizer_states_of_groups_go_through_a_file",
            "save_optimizer_states load_optimizer_states",
        ),
        ("sharing", "test_a_monitor_sees_other_shapes_too", "install_monitor"),
    ],
    "BucketingModule": [
        (
            "bucketing",
            "test_names_shapes_and_symbol_are_the_current_buckets",
            "* data_names output_names data_shapes label_shapes output_shapes symbol switch_bucket",
        ),
        ("bucketing", "test_get_and_set_params_are_those_of_all_buckets", "set_params get_params"),
        ("bucketing", "test_get_and_set_params_are_those_of_all_buckets", "init_params"),
        ("bucketing", "test_states_are_the_current_buckets", "get_states set_states"),
        (
            "bucketing",
            "test_forward_backward_update_do_what_a_module_of_that_length_does",
            "init_optimizer forward backward update get_outputs",
        ),
        ("bucketing", "test_prepare_binds_a_bucket_and_keeps_the_current_one", "prepare"),
        ("bucketing", "test_input_gradients_and_bind_twice", "bind get_input_grads"),
        ("bucketing", "test_metric_and_monitor_follow_the_bucket", "update_metric install_monitor"),
    ],
    "SequentialModule": [
        ("sequential", "test_add_chains_and_unbinds", "* add bind"),
        (
            "sequential",
            "test_names_and_shapes_are_those_of_the_ends",
            "data_names output_names data_shapes label_shapes output_shapes",
        ),
        ("sequential", "test_set_and_init_params_reach_every_module", "get_params init_params"),
        (
            "sequential",
            "test_a_chain_computes_what_one_symbol_does",
            "init_optimizer forward backward update get_outputs get_input_grads",
        ),
        ("sequential", "test_update_metric_asks_those_that_take_labels", "update_metric"),
        ("sequential", "test_a_monitor_sees_every_module", "install_monitor"),
    ],
    "PythonModule": [
        (
            "sequential",
            "test_a_python_module_reports_what_it_was_bound_with",
            "* data_names output_names data_shapes label_shapes output_shapes bind",
        ),
        (
            "sequential",
            "test_a_python_module_has_no_parameters_and_nothing_to_update",
            "get_params init_params update init_optimizer",
        ),
        ("sequential", "test_a_python_module_feeds_a_metric_if_it_has_labels", "update_metric"),
    ],
    "PythonLossModule": [
        (
            "sequential",
            "test_a_loss_in_python_gives_back_scores_and_the_users_gradient",
            "* forward get_outputs backward get_input_grads install_monitor",
        ),
    ],
}


def shown() -> dict[str, tuple[str, str]]:
    """The file and the test of every class and method in the tables."""
    found = {}
    for cls, rows in TABLES.items():
        for file, test, methods in rows:
            for method in methods.split():
                name = cls if method == "*" else f"{cls}.{method}"
                assert name not in found, f"{name} stands twice"
                found[name] = (file, test)
    return found


def test_the_tables_name_what_the_page_lists_and_nothing_else():
    assert len(LISTED) == 115
    assert sorted(shown()) == sorted(LISTED)


@pytest.mark.parametrize("name", LISTED)
def test_what_the_page_lists_is_there_and_tested(name):
    cls, _, method = name.partition(".")
    assert hasattr(getattr(mx.mod, cls), method or "__init__")
    file, test = shown()[name]
    source = inspect.getsource(getattr(importlib.import_module(f"tests.module.test_{file}"), test))
    assert f".{method}" in source, f"{test} does not call {method}"
