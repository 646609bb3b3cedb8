"""A replica on an emulated device, which fails in the middle of an answer: it leaves the fleet and ends with an error, so that whoever
watches over it starts it again; calls without a token go elsewhere. Needs a build with the emulated plug-in."""

import os
import shutil

import openai
import pytest

from conftest import ROOT, check_exit
import fleet as fleet_module

PROMPT = [{"role": "user", "content": "What is a weir?"}]


@pytest.fixture()
def emulated_bin(bin_dir, tmp_path):
    """The binaries, beside the plug-in: a replica looks for it where it is itself."""
    plugin = os.path.join(os.path.dirname(os.path.abspath(bin_dir)), "emulated", "libweir_cuda.so")
    if not os.path.exists(plugin):
        pytest.skip("no emulated device in this build")
    for name in ("weir-replica", "weir-router", "weirctl"):
        shutil.copy2(os.path.join(bin_dir, name), tmp_path)
    shutil.copy2(plugin, tmp_path)
    return str(tmp_path)


def emulated_fleet(path, bin_dir, **env):
    fleet = fleet_module.Fleet(path, bin_dir, os.path.join(ROOT, "models", "demo"), port_base=20000,
                               replica_args=["--threads", "1", "--backend", "cuda", "--slots", "4", "--deterministic"], env=env)
    return fleet


def ask(fleet, **more):
    api = openai.OpenAI(base_url=f"http://{fleet.routers[0]['rest']}/v1", api_key=fleet.api_key, max_retries=0, timeout=120)
    return api.chat.completions.create(model="demo", messages=PROMPT, max_tokens=6, seed=1, **more)


def test_answers_come_from_the_device(emulated_bin, tmp_path_factory):
    """Greedy, sampled, and one whose tokens the host must know: whole answers, the sampled one the same each time."""
    fleet = emulated_fleet(tmp_path_factory.mktemp("device"), emulated_bin)
    try:
        fleet.start(1, 1)
        greedy, warm = (ask(fleet, temperature=0).choices[0].message.content for _ in range(2))
        sampled, again = (ask(fleet, temperature=1).choices[0].message.content for _ in range(2))
        assert greedy and greedy == warm and sampled and sampled == again
        assert ask(fleet, temperature=0, frequency_penalty=0.5).usage.completion_tokens == 6
        with open(fleet.log_path("replica-1"), encoding="utf-8") as log:
            assert "cuda emulated" in log.read()
    finally:
        check_exit(fleet, fleet.stop())


def test_a_device_that_fails_takes_its_replica_out(emulated_bin, tmp_path_factory):
    fleet = emulated_fleet(tmp_path_factory.mktemp("device"), emulated_bin, WEIR_EMULATED_FAILS="3")
    try:
        fleet.start(1, 1)
        with pytest.raises(openai.APIError):
            ask(fleet, temperature=0)
        assert fleet.processes["replica-1"].wait(timeout=30) == 1
        fleet_module.wait_for("the replica to go", lambda: fleet.usable(fleet.routers[0]) == set())
        with open(fleet.log_path("replica-1"), encoding="utf-8") as log:
            text = log.read()
        assert "engine_failed" in text and "told to fail" in text and "stopped" in text
    finally:
        codes = fleet.stop()
        codes.pop("replica-1", None)
        check_exit(fleet, codes)
