"""What is proposed fits by the same measure, what is next larger does not, and it is cheapest."""

import dataclasses
import functools

import pytest
from helpers import tiny_config
from plans import TINY, TOLD, make_config

from vit_jax.analysis import devices
from vit_jax.errors import InputError
from vit_jax.experiment import build_learner, plain
from vit_jax.planning import describe_data, plan, search
from vit_jax.planning.work import Work
from vit_jax.train.sharding import make_abstract_mesh

MODEL = TINY | dict(depth=6, unroll=1)
POLICIES = ("none", "dots", "full")


@functools.cache
def works():
    """One for each policy, each of which traces a microbatch once for all tests."""
    mesh = make_abstract_mesh(num_devices=2)
    config = plain(make_config(model=MODEL))
    info = describe_data(config, 0, TOLD, [])
    configs = {name: search.set_key(config, search.REMAT, name) for name in POLICIES}
    return {name: Work(build_learner(c, mesh, info, 100), 64) for name, c in configs.items()}


def found(usable):
    return {name: search.option(work, name, usable) for name, work in works().items()}


def total(remat, accum_steps):
    """Bytes as the search counts them."""
    return works()[remat].memory(accum_steps)["total"]


def test_where_everything_fits_nothing_is_split_or_computed_again():
    options = found(10**12)
    assert all(o.fits and (o.accum_steps, o.microbatch) == (1, 32) for o in options.values())
    best = search.cheapest(list(options.values()))
    flags = ["--config.train.accum_steps=1", "--config.task.model.remat=none"]
    assert best.remat == "none" and search.flags(best) == flags
    flops = [options[name].flops_per_example for name in POLICIES]
    assert flops == sorted(flops) and flops[0] < flops[2]


@pytest.mark.parametrize("remat", POLICIES)
@pytest.mark.parametrize("accum_steps", [2, 8, 32])
def test_proposed_microbatch_fits_and_the_next_larger_does_not(remat, accum_steps):
    usable = total(remat, accum_steps)
    option = found(usable)[remat]
    assert option.fits and option.memory["total"] <= usable
    assert option.accum_steps <= accum_steps and option.microbatch * option.accum_steps == 32
    larger = [k for k in search.divisors(32) if k < option.accum_steps]
    assert all(total(remat, k) > usable for k in larger)


def test_cheapest_computes_least_again_among_what_fits():
    usable = total("dots", 32)  # where without remat nothing does
    assert usable < total("none", 32)
    options = found(usable)
    assert not options["none"].fits and options["none"].accum_steps == 32
    assert search.cheapest(list(options.values())).remat == "dots"
    assert search.cheapest(list(found(10).values())) is None


def test_losses_that_compare_examples_are_not_split():
    learner = works()["none"].learner
    task = learner.task

    class Contrastive(type(task)):
        mixes_examples = True

    fields = {name: getattr(task, name) for name in task.__dataclass_fields__}
    learner = dataclasses.replace(learner, task=Contrastive(**fields))
    option = search.option(Work(learner, 64), "none", 10)
    assert not option.fits and option.accum_steps == 1


def test_card_tells_fit_and_speed_and_the_flags_that_change_it(monkeypatch):
    small = devices.Device(
        **{**vars(devices.DEVICES["h100"]), "memory_bytes": total("dots", 32) / 0.9 + 1}
    )
    monkeypatch.setitem(devices.DEVICES, "h100", small)
    card = plan(make_config(model=MODEL), told=TOLD, num_devices=2, device="H100")
    fit, speed = card["fit"], card["speed"]
    assert not fit["fits"] and fit["cheapest"]["remat"] in ("dots", "attention")
    assert card["device"]["name"] == "h100"
    # Set as told, it fits.
    accum_steps, remat = (flag.split("=")[1] for flag in fit["cheapest"]["flags"])
    again = plan(
        make_config(
            model=MODEL | dict(remat=remat), train=dict(num_steps=100, accum_steps=int(accum_steps))
        ),
        told=TOLD,
        num_devices=2,
        device="h100",
    )
    assert again["fit"]["fits"]
    assert sum(speed["parts_seconds"].values()) == pytest.approx(speed["step_seconds"])
    assert speed["images_per_second"] * speed["step_seconds"] == pytest.approx(64)
    assert speed["run_device_hours"] == pytest.approx(2 * speed["step_seconds"] * 100 / 3600)
    assert 0 < speed["mfu"] < 1
    assert any("estimate by roofline" in note for note in card["notes"])


def test_mistakes():
    with pytest.raises(InputError, match="--device is 'h1'"):
        plan(make_config(), told=TOLD, num_devices=1, device="h1")


def test_device_without_a_known_peak_has_neither_speed_nor_fit():
    card = plan(make_config(), told=TOLD, num_devices=1, device="cpu")
    assert card["fit"] is None and card["speed"] is None
    assert any("peak is not known" in note for note in card["notes"])


@pytest.mark.parametrize(
    "model, policies",
    [
        (
            dict(patch_size=2, width=16, depth=2, token_mlp_dim=8, channel_mlp_dim=16),
            ["none", "dots", "full"],
        ),
        (dict(stages=(1, 1)), ["none", "full"]),
    ],
    ids=["mixer", "resnet"],
)
def test_only_policies_that_a_model_has_are_searched(model, policies, request):
    name = request.node.callspec.id
    config = tiny_config(train__num_steps=2)
    config["task"]["model"] = {"name": name, **model}
    options = plan(config, device="h100", num_devices=1)["fit"]["options"]
    assert [option["remat"] for option in options] == policies
