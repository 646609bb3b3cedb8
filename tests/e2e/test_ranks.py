"""A replica whose model is split over ranks, and ones with smaller weights, keys and values, behind a router."""

import json
import os
import subprocess
import urllib.request

import openai

from conftest import ROOT

PROMPTS = ["Hello", "What is a weir?", "Tell me a story about a fox.", "Count to ten"]


def answers(fleet):
    api = openai.OpenAI(base_url=f"http://{fleet.routers[0]['rest']}/v1", api_key=fleet.api_key, max_retries=0)
    return [api.chat.completions.create(model="demo", messages=[{"role": "user", "content": p}], temperature=0, max_tokens=48)
            .choices[0].message.content for p in PROMPTS]


def test_the_same_answers_on_two_ranks(fleet, own_fleet):
    two = own_fleet(1, 1, replica_args=["--tensor-parallel", "2"])
    assert answers(two) == answers(fleet)
    with open(two.log_path("replica-1"), encoding="utf-8") as log:
        assert " x 2" in log.read()  # the back end's name


def test_ranks_that_do_not_fit_are_refused_by_name(bin_dir):
    run = subprocess.run([os.path.join(bin_dir, "weir-replica"), "--model-dir", os.path.join(ROOT, "models", "demo"),
                          "--tensor-parallel", "7"], capture_output=True, text=True, timeout=60)
    assert run.returncode != 0
    assert "7 ranks can't share the model's heads" in run.stdout + run.stderr


def test_eight_bit_weights_answer_the_same_to_easy_questions(fleet, own_fleet):
    eight = own_fleet(1, 1, replica_args=["--weights", "q8"])
    pairs = list(zip(answers(eight), answers(fleet)))
    assert all(len(a) > 2 for a, _ in pairs)
    assert sum(a == b for a, b in pairs) >= 2  # greedy; a close choice may fall the other way


def test_keys_and_values_in_bf16_take_half_the_memory(own_fleet):
    def pages_and_answers(kv_type):
        fleet = own_fleet(1, 1, replica_args=["--kv-type", kv_type, "--kv-bytes", "33554432"])
        with urllib.request.urlopen(f"http://{fleet.replicas[0]['admin']}/debug/load") as page:
            return json.load(page)["kv_blocks"], answers(fleet)
    (wide, exact), (narrow, close) = pages_and_answers("f32"), pages_and_answers("bf16")
    assert narrow in (2 * wide, 2 * wide + 1)
    assert sum(a == b for a, b in zip(exact, close)) >= 2  # greedy; a close choice may fall the other way
