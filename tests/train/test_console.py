"""Progress for a person: lines in a file, a bar on a terminal."""

import io

import pytest
from rich.console import Console

from vit_jax.train.console import (
    ConsoleSink,
    coverage,
    evaluation_text,
    training_text,
    value_text,
)

TRAINING = {
    "train/loss": 1.23456,
    "train/top1": 0.5,
    "train/learning_rate": 0.001,
    "speed/images_per_second": 2000.0,
    "speed/data_share": 0.07,
    "speed/host_share": 0.13,
    "speed/device_share": 0.8,
}
EVALUATION = {"test/loss": 0.0712, "test/top1": 0.98611, "test/scored": 360.0, "test/examples": 360}


def shown(writes, **console):
    file = io.StringIO()
    sink = ConsoleSink(Console(file=file, **console), num_steps=1000, start_step=100, batch_size=64)
    for step, values in writes:
        sink.write(step, values)
    sink.close()
    return file.getvalue()


def test_lines_are_plain_where_there_is_no_terminal():
    text = shown([(200, TRAINING), (200, EVALUATION)], width=40)  # no line is wrapped
    assert text.splitlines() == [
        "step 200/1000: loss 1.2346 | top1 50.00% | lr 1.00e-03 | 2,000 images/s | "
        "time: data 7%, host 13%, device 80% | ETA 0:00:26",
        "step 200: test/loss 0.0712 | test/top1 98.61% | test: 360 of 360 scored",
    ]


def test_time_left_is_the_images_left_at_this_speed():
    slow = TRAINING | {"speed/images_per_second": 64.0}
    assert shown([(400, slow)]).rstrip().endswith("ETA 0:10:00")
    assert shown([(1000, slow)]).rstrip().endswith("ETA 0:00:00")


def test_terminal_shows_a_bar_with_the_same_numbers():
    text = shown([(200, TRAINING), (200, EVALUATION)], force_terminal=True, width=200)
    assert "\x1b[" in text  # it redraws
    assert " 200/1000" in text and "━" in text
    assert "loss 1.2346 | top1 50.00%" in text
    assert "test/top1 98.61%" in text
    assert "starting" in shown([], force_terminal=True, width=200)
    assert "step 200/1000:" not in text


def test_memory_is_that_of_the_devices_where_they_count():
    host = TRAINING | {"memory/host_peak_bytes": 3.0 * 2**30}
    assert "| peak 3.0 GiB of RAM |" in training_text(host)
    assert "| peak 71.5 GiB |" in training_text(host | {"memory/device_peak_bytes": 71.5 * 2**30})
    assert "peak" not in training_text(TRAINING)


def test_speed_of_a_device_is_shown_where_there_are_several():
    share = "speed/images_per_second_per_device"
    assert "| 2,000 images/s |" in training_text(TRAINING | {share: 2000.0})
    assert "| 2,000 images/s (250 a device) |" in training_text(TRAINING | {share: 250.0})


def test_a_line_with_everything_is_short():
    whole = {
        "speed/images_per_second": 123456.7,
        "speed/images_per_second_per_device": 1929.0,
        "speed/mfu": 0.6,
        "memory/device_peak_bytes": 71.5 * 2**30,
        "memory/host_peak_bytes": 1e9,
        "speed/compile_seconds": 70.0,
    }
    assert len(training_text(TRAINING | whole)) < 150


@pytest.mark.parametrize("name", ["train/top1", "speed/mfu"])
def test_optional_numbers_are_shown_where_they_exist(name):
    values = {**TRAINING, "speed/mfu": 0.456}
    assert "MFU 45.6%" in training_text(values) and "top1 50.00%" in training_text(values)
    del values[name]
    assert name.split("/")[1].lower() not in training_text(values).lower()


def test_evaluation_of_several_splits_tells_what_was_scored_of_each():
    values = EVALUATION | {"val/loss": 2, "val/scored": 1999.0, "val/examples": 2000, "val/ap": 0.5}
    values |= {"val/unreadable": 1}
    assert evaluation_text(values) == (
        "test/loss 0.0712 | test/top1 98.61% | val/loss 2.0000 | val/ap 0.5000 | "
        "test: 360 of 360 scored | val: 1,999 of 2,000 scored, 1 unreadable"
    )


@pytest.mark.parametrize(
    "metric, is_share",
    [
        *((name, True) for name in ("caltech101_top1", "natural_top1", "vtab", "top1_5shot")),
        *((name, True) for name in ("corrupted_error", "relative_error", "map_at_r", "near_fpr95")),
        *((name, False) for name in ("loss", "mce", "relative_mce", "nll", "brier_scaled")),
        *((name, False) for name in ("temperature", "chosen_l2", "squared_error", "mapping")),
    ],
)
def test_shares_alone_are_percentages(metric, is_share):
    assert value_text(metric, 0.5).endswith("%") == is_share


def test_nan_loss_can_be_shown():
    assert "loss nan" in training_text(TRAINING | {"train/loss": float("nan")})


@pytest.mark.parametrize(
    "unreadable, expected",
    [
        (0, "50 of 60 scored, 10 left out"),
        (10, "50 of 60 scored, 10 unreadable"),
        (3, "50 of 60 scored, 3 unreadable, 7 left out"),
    ],
)
def test_what_was_not_scored_has_a_reason(unreadable, expected):
    assert coverage(scored=50, examples=60, unreadable=unreadable) == expected
