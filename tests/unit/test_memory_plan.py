"""The memory plan: what config.json says, how the KV cache is laid out, which verdict and remedies follow."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.cards import Card, find_card
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.engine_log import Observation, observe
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.kv_cache import kv_cache
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.model import (
    ModelShape,
    base_name,
    guessed_shape,
    quantization_name,
    shape_from_config,
    weight_bytes_of_directory,
)
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.observation import (
    difference,
    learned,
    same_server,
)
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.plan import decide, plan
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.ranking import rank
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.releases import release
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.remedies import remedies
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.sources import (
    catalogue_shape,
    facts,
    shape_of_entry,
)
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.terms import capture_sizes
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.units import GIB, PlanError
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.verdict import DOES_NOT_FIT, FITS, TIGHT
from ansible_collections.pageindex.home.plugins.module_utils.memory_plan.wish import Wish

KNOWN = facts()
RTX_5090 = find_card("rtx_5090", KNOWN.gpus)
QWEN3_8B = {
    "num_hidden_layers": 36,
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151936,
    "max_position_embeddings": 40960,
}


def shape(name: str) -> ModelShape:
    return catalogue_shape(name, KNOWN)


def config_of(name: str, **changes: Any) -> ModelShape:
    return shape_from_config({**KNOWN.architectures[name], **changes}, name, 10**10)


class TestConfig:
    def test_a_plain_model(self) -> None:
        found = shape_from_config(QWEN3_8B, "Qwen/Qwen3-8B", 16_380_000_000)
        assert (found.kind, found.full_layers, found.kv_heads, found.quantization) == ("dense", 36, 8, "none")
        assert found.estimated_weight_bytes == pytest.approx(16.38e9, rel=0.01)

    def test_what_is_missing_is_named(self) -> None:
        with pytest.raises(PlanError, match=r"hidden_size, vocab_size is missing; expected"):
            shape_from_config({"num_hidden_layers": 2, "num_attention_heads": 4})

    def test_the_language_model_of_a_multimodal_config_is_in_text_config(self) -> None:
        found = shape_from_config({"model_type": "gemma3", "text_config": QWEN3_8B, "vision_config": {"depth": 27}})
        assert found.kind == "vision"
        assert found.layers == 36
        assert found.vision is not None
        assert found.vision.tokens == 256

    @pytest.mark.parametrize(
        ("extra", "kinds"),
        [
            ({"layer_types": ["full_attention", "sliding_attention"] * 18, "sliding_window": 128}, (18, 18, 0)),
            ({"sliding_window_pattern": 6, "sliding_window": 1024}, (6, 30, 0)),
            ({"sliding_window": 4096}, (0, 36, 0)),
            ({"sliding_window": 4096, "use_sliding_window": False}, (36, 0, 0)),
            ({"sliding_window": None}, (36, 0, 0)),
        ],
    )
    def test_layers_with_a_window(self, extra: dict[str, Any], kinds: tuple[int, int, int]) -> None:
        found = shape_from_config({**QWEN3_8B, **extra})
        linear = found.linear.layers if found.linear else 0
        assert (found.full_layers, found.sliding_layers, linear) == kinds

    def test_a_hybrid_counts_its_linear_layers(self) -> None:
        found = config_of("qwen3.8-27b")
        assert found.linear is not None
        assert (found.full_layers, found.linear.layers, found.draft_layers, found.kind) == (16, 48, 1, "hybrid")

    def test_an_unknown_kind_of_state_is_refused(self) -> None:
        with pytest.raises(PlanError, match="gated"):
            shape_from_config({**QWEN3_8B, "layer_types": ["mamba"] * 36})

    @pytest.mark.parametrize(
        ("hint", "name"),
        [
            ("awq_marlin", "awq"),
            ("compressed-tensors RedHatAI/x-quantized.w8a8", "int8"),
            ("modelopt_fp4", "nvfp4"),
            ({"quant_method": "fp8"}, "fp8"),
            ("auto_round", "int4"),
            (None, "none"),
        ],
    )
    def test_quantisations_have_one_name_each(self, hint: Any, name: str) -> None:
        assert quantization_name(hint) == name

    @pytest.mark.parametrize(
        ("repository", "base"),
        [
            ("RedHatAI/Meta-Llama-3.1-8B-Instruct-quantized.w4a16", "llama-3.1-8b-instruct"),
            ("Lorbus/Qwen3.6-27B-int4-AutoRound", "qwen3.6-27b"),
            ("Qwen/Qwen3.8-27B (4-bit, own build)", "qwen3.8-27b"),
            ("Qwen/Qwen3-8B", "qwen3-8b"),
        ],
    )
    def test_a_quantised_repository_is_known_by_its_base_name(self, repository: str, base: str) -> None:
        assert base_name(repository) == base

    def test_weights_are_read_from_the_index_or_the_files(self, tmp_path: Path) -> None:
        assert weight_bytes_of_directory(tmp_path) is None
        (tmp_path / "model.safetensors").write_bytes(b"x" * 1000)
        assert weight_bytes_of_directory(tmp_path) == 1000
        index = tmp_path / "model.safetensors.index.json"
        index.write_text(json.dumps({"metadata": {"total_size": 5}}), encoding="utf-8")
        assert weight_bytes_of_directory(tmp_path) == 5

    def test_a_name_without_a_size_is_no_model(self) -> None:
        assert "guessed" in guessed_shape("someone/Unheard-30B-AWQ", None).assumed[0]
        with pytest.raises(PlanError, match="Give --config"):
            guessed_shape("someone/unheard", None)


class TestKvCache:
    """Pools and tokens as vLLM logged them; the tokens have to come out to the last one."""

    def test_a_plain_model_has_one_group(self) -> None:
        layout = kv_cache(shape_from_config(QWEN3_8B), release("0.12.0"), 1)
        assert layout.block_bytes == 147456 * 16
        assert layout.pool_tokens(21.36 * GIB, 9216) == pytest.approx(155536, abs=32)

    def test_tensor_parallelism_halves_a_block_and_never_splits_a_head(self) -> None:
        small = shape_from_config({**QWEN3_8B, "num_key_value_heads": 2})
        sizes = [kv_cache(small, release("0.32.0"), cards).block_bytes for cards in (1, 2, 4)]
        assert sizes[0] == 2 * sizes[1] == 2 * sizes[2]

    def test_eight_bit_halves_a_block(self) -> None:
        plain = shape_from_config(QWEN3_8B)
        assert (
            kv_cache(plain, release("0.32.0"), 1, 1).block_bytes * 2
            == kv_cache(plain, release("0.32.0"), 1).block_bytes
        )

    def test_sliding_windows_share_blocks_with_full_attention(self) -> None:
        gemma = shape_from_config({**QWEN3_8B, "num_hidden_layers": 48, "full_attention_layers": 8,
                                   "sliding_window_layers": 40, "sliding_window": 1024, "head_dim": 256})  # fmt: skip
        layout = kv_cache(gemma, release("0.12.0"), 1, batch_tokens=8192)
        assert layout.groups == 6
        assert layout.pool_tokens(15.97 * GIB, 9216) == pytest.approx(43600, abs=16)
        # A window and a whole batch of tokens are as long as the context here: nothing is saved at the start.
        assert layout.request_bytes(9216) / GIB == pytest.approx(3.38, abs=0.005)

    @pytest.mark.parametrize(
        ("name", "cards", "version", "draft", "pool", "context", "tokens"),
        [
            ("qwen3.6-35b-a3b", 1, "0.24.0", 0, 299 * 10 * 2146304, 131072, 567978),
            ("qwen3.8-27b", 2, "0.24.0", 3, 426 * 17 * 1638400, 262144, 623873),
            ("qwen3.8-27b", 2, "0.27.0", 0, 208 * 16 * 1605632, 131072, 302921),
        ],
    )
    def test_a_hybrid_pays_for_states_in_blocks(
        self, name: str, cards: int, version: str, draft: int, pool: int, context: int, tokens: int
    ) -> None:
        layout = kv_cache(config_of(name), release(version), cards, 1, draft_tokens=draft)
        assert layout.pool_tokens(pool, context) == tokens

    def test_latent_attention_keeps_one_vector_on_every_card(self) -> None:
        deepseek = config_of("deepseek-v2-lite-chat")
        one, two = (kv_cache(deepseek, release("0.19.0"), cards) for cards in (1, 2))
        assert one.block_bytes == two.block_bytes == 27 * 576 * 2 * 16
        assert one.pool_tokens(43.61 * GIB, 8192) == pytest.approx(1505552, rel=0.0002)

    def test_the_greatest_context_is_the_last_that_fits(self) -> None:
        layout = kv_cache(config_of("qwen3.8-27b"), release("0.32.0"), 2)
        pool = 5 * GIB
        for requests in (1, 3):
            most = layout.greatest_context(pool, requests, 262144)
            assert requests * layout.blocks_of_request(most) <= layout.blocks(pool)
            assert requests * layout.blocks_of_request(most + layout.block_tokens) > layout.blocks(pool)
        assert layout.greatest_context(0, 1, 262144) == 0


class TestReleases:
    @pytest.mark.parametrize(
        ("text", "number", "known"),
        [
            ("0.32.0", (0, 32, 0), True),
            ("0.19.1rc1.dev71", (0, 19, 1), True),
            ("0.22.0 (June 2026 pin)", (0, 22, 0), True),
            ("0.6.x (V0 engine)", (0, 6, 0), True),
            (None, (0, 12), False),
            ("image vllm/vllm-openai:name", (0, 12), False),
        ],
    )
    def test_versions_are_read(self, text: str | None, number: tuple[int, ...], known: bool) -> None:
        assert (release(text).number, release(text).known) == (number, known)

    def test_what_changed_when(self) -> None:
        old, new = release("0.16.0"), release("0.17.0")
        assert (old.sampler(True), new.sampler(True)) == ("sort", "triton")
        assert release("0.19.0").default_utilization == 0.9
        assert release("0.32.0").default_utilization == 0.92
        assert not release("0.20.0").graphs_in_budget(False)
        assert release("0.21.0").graphs_in_budget(False)
        assert not release("0.28.0").graphs_in_budget(dense=True)
        assert release("0.32.0").graphs_in_budget(dense=True)

    def test_the_old_engine_passes_the_whole_context_at_once(self) -> None:
        model = config_of("qwen3-8b")
        short, long = (plan(model, RTX_5090, 1, Wish("0.6.3", context=size)) for size in (4096, 40960))
        assert short.terms.layers < long.terms.layers
        assert long.batched_tokens == 40960

    def test_capture_sizes(self) -> None:
        assert capture_sizes(1) == 2
        assert capture_sizes(256) == capture_sizes(1024) == 51
        assert capture_sizes(8) == 5


class TestCards:
    @pytest.mark.parametrize(
        ("name", "key"),
        [
            ("NVIDIA GeForce RTX 5090", "rtx_5090"),
            ("RTX 5060 Ti 16GB", "rtx_5060_ti"),
            ("NVIDIA A100-SXM4-80GB", "a100_80gb"),
            ("H100 80GB", "h100"),
            ("rtx_3060", "rtx_3060"),
        ],
    )
    def test_a_card_is_known_by_the_names_it_has(self, name: str, key: str) -> None:
        assert find_card(name, KNOWN.gpus).name == KNOWN.gpus[key]["name"]

    def test_a_card_of_another_size_is_another_card(self) -> None:
        small = find_card("RTX 3060 8GB", KNOWN.gpus)
        assert small.total == find_card("RTX 3060", KNOWN.gpus, 8192).total < 8192 * 2**20
        with pytest.raises(PlanError, match="--gpu-total-mib"):
            find_card("RTX 9999", KNOWN.gpus)

    def test_cuda_sees_less_than_nvml(self) -> None:
        assert RTX_5090.total / GIB == pytest.approx(31.36, abs=0.01)
        assert find_card("rtx_5090", KNOWN.gpus, 32607).total == RTX_5090.total

    def test_vllms_defaults_follow_the_size(self) -> None:
        big = find_card("h100", KNOWN.gpus)
        assert (RTX_5090.default_sequences, RTX_5090.default_batched_tokens) == (256, 2048)
        assert (big.default_sequences, big.default_batched_tokens) == (1024, 8192)
        assert find_card("a100_80gb", KNOWN.gpus).default_sequences == 256

    @pytest.mark.parametrize(
        ("capability", "quantization", "version", "text"),
        [
            (6.1, "none", (0, 32), "no vLLM"),
            (7.0, "none", (0, 32), "0.19.1"),
            (7.0, "none", (0, 19), None),
            (8.6, "fp8", (0, 32), None),
            (7.0, "awq", (0, 19), "awq weights need 7.5"),
            (12.0, "nvfp4", (0, 32), None),
        ],
    )
    def test_what_a_card_cannot_run(
        self, capability: float, quantization: str, version: tuple[int, ...], text: str | None
    ) -> None:
        found = Card("a card", 16 * GIB, capability).refuses(quantization, version)
        assert found is None if text is None else text in str(found)


class TestPlan:
    def test_the_default_model_fits_two_cards_and_is_tight_on_one(self) -> None:
        model = shape("qwen3-32b-awq")
        assert decide(model, RTX_5090, 2, Wish(context=32768)).verdict == FITS
        assert decide(model, RTX_5090, 1, Wish(context=32768)).verdict == TIGHT

    def test_the_budget_is_shared_without_a_remainder(self) -> None:
        one = plan(shape("qwen3-8b"), RTX_5090)
        assert one.pool + one.terms.outside_kv == pytest.approx(one.budget)
        assert one.terms.activation_peak == max(one.terms.layers, one.terms.sampler)

    def test_a_model_that_fits_one_card_is_served_twice(self) -> None:
        small, large = (decide(shape(name), RTX_5090, 2, Wish()) for name in ("qwen3-8b-awq", "llama-3.3-70b-awq"))
        assert (small.tensor_parallel, small.replicas) == (1, 2)
        assert (large.tensor_parallel, large.replicas) == (2, 1)

    def test_an_explicit_layout_is_obeyed(self) -> None:
        assert decide(shape("qwen3-8b-awq"), RTX_5090, 2, Wish(tensor_parallel=2)).replicas == 1
        assert decide(shape("llama-3.3-70b-awq"), RTX_5090, 2, Wish(tensor_parallel=1)).verdict == DOES_NOT_FIT

    def test_what_is_impossible_is_an_error(self) -> None:
        model = shape("qwen3-8b")
        for wish, text in (
            (Wish(tensor_parallel=4), "there are 2"),
            (Wish(utilization=1.2), "expected more than 0"),
            (Wish(context=0), "context is 0"),
        ):
            with pytest.raises(PlanError, match=text):
                plan(model, RTX_5090, 2, wish)
        with pytest.raises(PlanError, match="does not divide"):
            plan(model, RTX_5090, 3, Wish())

    def test_more_than_is_free_at_start_is_refused(self) -> None:
        one = plan(shape("qwen3-0.6b"), RTX_5090, 1, Wish(utilization=0.99))
        assert one.verdict == DOES_NOT_FIT
        assert "Use at most 0.98" in one.reasons[0]

    def test_a_stated_pool_is_taken_as_it_is(self) -> None:
        one = plan(shape("qwen3-8b"), RTX_5090, 1, Wish(kv_bytes=8 * GIB, context=8192))
        assert (one.pool, one.less, one.verdict) == (8 * GIB, 0, FITS)

    def test_images_cost_memory_and_can_be_left_out(self) -> None:
        model = shape("qwen3-vl-8b")
        with_images, without = (plan(model, RTX_5090, 1, Wish(text_only=only)) for only in (False, True))
        assert with_images.terms.vision > GIB
        assert without.terms.vision == 0
        assert without.pool > with_images.pool + GIB
        assert without.arguments["--language-model-only"] is True

    def test_a_hybrid_needs_a_block_for_every_sequence(self) -> None:
        one = plan(shape("qwen3.8-27b-fp8"), RTX_5090, 2, Wish(sequences=1024, context=8192))
        assert one.verdict == DOES_NOT_FIT
        assert "lower --max-num-seqs" in one.reasons[0]

    def test_the_plan_is_plain_data(self) -> None:
        found = plan(shape("qwen3-8b"), RTX_5090, 1, Wish(context=8192)).as_dict()
        assert json.loads(json.dumps(found)) == found
        memory = found["per_gpu_mib"]
        taken = sum(
            memory[name] for name in ("weights", "activation_peak", "hybrid_state", "runtime_context", "kv_pool")
        )
        assert taken + memory["cuda_graphs"] == pytest.approx(memory["budget"], abs=4)

    def test_what_is_only_guessed_is_never_refused_for_its_cache(self) -> None:
        one = plan(guessed_shape("someone/Unheard-30B-AWQ", None), RTX_5090, 1, Wish(context=1_000_000))
        assert one.verdict == TIGHT
        assert one.notes


class TestRemedies:
    def test_a_plan_that_fits_needs_none(self) -> None:
        model = shape("qwen3-8b")
        assert remedies(plan(model, RTX_5090), model, RTX_5090, Wish()) == []

    def test_they_are_planned_and_better(self) -> None:
        model, wish = shape("qwen3-32b-awq"), Wish(context=40960)
        others = {name: shape_of_entry(name, entry, KNOWN) for name, entry in KNOWN.models.items()}
        one = plan(model, RTX_5090, 1, wish)
        found = remedies(one, model, RTX_5090, wish, others)
        order = {FITS: 0, TIGHT: 1, DOES_NOT_FIT: 2}
        assert [order[entry.plan.verdict] for entry in found] == sorted(order[entry.plan.verdict] for entry in found)
        assert all(order[entry.plan.verdict] < order[one.verdict] for entry in found)
        changes = " ".join(entry.change for entry in found)
        assert "--max-model-len" in changes
        assert "--kv-cache-dtype fp8" in changes
        assert "(smaller)" in changes

    def test_another_card_and_other_weights_are_offered(self) -> None:
        others = {name: shape_of_entry(name, entry, KNOWN) for name, entry in KNOWN.models.items()}
        model, wish = shape("qwen3-32b-fp8"), Wish(context=8192, tensor_parallel=1)
        found = remedies(plan(model, RTX_5090, 2, wish), model, RTX_5090, wish, others)
        changes = [entry.change for entry in found]
        assert "--tensor-parallel-size 2" in changes
        assert any("qwen3-32b-awq (other weights of the same model)" in change for change in changes)


class TestRanking:
    def test_tiers_get_models_that_fit_them(self) -> None:
        shapes = {name: shape_of_entry(name, entry, KNOWN) for name, entry in KNOWN.models.items()}
        best = {}
        for key, count in (("rtx_3060", 1), ("rtx_4070_ti", 1), ("rtx_5060_ti", 1), ("rtx_3090", 2), ("rtx_5090", 2)):
            ranked = rank(KNOWN.models, shapes, find_card(key, KNOWN.gpus), count, Wish(context=8192, sequences=16))
            assert len(ranked) == len(KNOWN.models)
            assert [entry.name for entry in ranked if entry.plan.verdict == FITS], key
            best[key] = ranked[0]
        assert KNOWN.models[best["rtx_3060"].name]["quantization"] in ("none", "awq")
        # The most parameters that fit: 70 or 80 billion at 4 bit.
        assert best["rtx_5090"].name in ("llama-3.3-70b-awq", "qwen3-next-80b-a3b-gptq")

    def test_a_card_without_the_capability_is_told_so(self) -> None:
        shapes = {name: shape_of_entry(name, entry, KNOWN) for name, entry in KNOWN.models.items()}
        ranked = {
            entry.name: entry for entry in rank(KNOWN.models, shapes, find_card("rtx_3090", KNOWN.gpus), 2, Wish())
        }
        assert ranked["qwen3.8-27b-nvfp4"].plan.verdict == DOES_NOT_FIT
        assert "compute capability 10.0" in ranked["qwen3.8-27b-nvfp4"].plan.reasons[0]


class TestNames:
    def test_a_model_that_does_not_exist_names_the_nearest(self) -> None:
        with pytest.raises(PlanError, match=r"'Qwen3-70B' does not exist in the catalogue; nearest: \S+"):
            shape("Qwen3-70B")

    def test_a_repository_is_as_good_as_a_name(self) -> None:
        assert shape("Qwen/Qwen3-8B") == shape("qwen3-8b")


LOG = """
INFO 10-01 gpu_model_runner.py:1 Model loading took 18.05 GiB memory and 12.3 seconds
INFO 10-01 gpu_worker.py:2 Available KV cache memory: 8.10 GiB
INFO 10-01 gpu_worker.py:2 Available KV cache memory: 8.00 GiB
INFO 10-01 kv_cache_utils.py:3 GPU KV cache size: 32,768 tokens, Maximum concurrency
INFO 10-01 gpu_model_runner.py:4 Graph capturing finished in 15 secs, took 0.81 GiB
INFO 10-01 gpu_worker.py:5 Free memory on device (30.86/31.36 GiB) on startup. Usage is 0.36 GiB for peak activation
"""


class TestObservation:
    def test_the_engines_lines_are_read(self) -> None:
        assert observe(LOG.splitlines()) == Observation(
            kv_pool_gib=8.0,
            kv_pool_tokens=32768,
            weights_gib=18.05,
            graphs_gib=0.81,
            activation_gib=0.36,
            free_gib=30.86,
            total_gib=31.36,
        )
        assert observe(["nothing here"]) == Observation()

    def test_the_next_plan_uses_what_was_seen(self) -> None:
        model, wish = shape("qwen3-32b-awq"), Wish(context=32768)
        first = plan(model, RTX_5090, 1, wish)
        seen = observe(LOG.splitlines())
        second = plan(model, RTX_5090, 1, learned(wish, first, seen))
        assert second.pool / GIB == pytest.approx(8.0, abs=0.01)
        assert second.less < first.less
        assert {line["name"] for line in difference(first, seen)} == {
            "weights_gib", "kv_pool_gib", "kv_pool_tokens", "graphs_gib",
        }  # fmt: skip
        # It speaks for another context, not for another number of sequences.
        assert same_server(plan(model, RTX_5090, 1, replace(wish, context=8192))) == same_server(first)
        assert same_server(plan(model, RTX_5090, 1, replace(wish, sequences=8))) != same_server(first)

    def test_a_record_survives(self) -> None:
        seen = observe(LOG.splitlines())
        assert Observation.from_dict({**seen.as_dict(), "of_a_later_version": 1}) == seen
        assert learned(Wish(), plan(shape("qwen3-8b"), RTX_5090), Observation()) == Wish()
