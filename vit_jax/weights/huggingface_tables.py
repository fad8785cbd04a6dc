"""Hugging Face's names of a vision tower's weights, one table a family.

The names are those of the files, on the hub and from `save_pretrained`; inside a running model
transformers 5 uses others.
"""

from vit_jax.weights import pretraining
from vit_jax.weights import transforms as t
from vit_jax.weights.table import Rename, Rule, Table
from vit_jax.weights.torch_rules import BLOCK, dense, norm

# Ours -> the transforms of weight and bias.
PROJECTIONS = {
    "attention/query": (t.heads, t.heads_bias),
    "attention/key": (t.heads, t.heads_bias),
    "attention/value": (t.heads, t.heads_bias),
    "attention/out": (t.heads_out, t.copy),
}


def blocks(prefix: str, *, norms: tuple[str, str], **names: str) -> tuple[Rule, ...]:
    """Rules of a layer: `names` are ours, with '_' for '/', e.g. attention_query='q_proj'."""
    rules: list[Rule] = []
    for ours, theirs in zip(("attention_norm", "mlp_norm"), norms, strict=True):
        rules += norm(f"{prefix}.{theirs}", f"{BLOCK}/{ours}")
    for ours, theirs in names.items():
        path = ours.replace("_", "/")
        rules += dense(
            f"{prefix}.{theirs}", f"{BLOCK}/{path}", *PROJECTIONS.get(path, (t.linear, t.copy))
        )
    return tuple(rules)


def attention(prefix: str, out: str) -> dict[str, str]:
    """Names of projections that are called prefix + q, k and v."""
    projections = dict(query="q", key="k", value="v")
    names = {f"attention_{ours}": f"{prefix}{theirs}_proj" for ours, theirs in projections.items()}
    return {**names, "attention_out": out}


def scales(prefix: str) -> tuple[Rule, ...]:
    return tuple(
        Rule(f"{prefix}.layer_scale{i}.lambda1", f"{BLOCK}/{branch}_scale")
        for i, branch in ((1, "attention"), (2, "mlp"))
    )


# ViT, DeiT, MAE and DINOv2 call them so.
LONG_ATTENTION = dict(
    attention_query="attention.attention.query",
    attention_key="attention.attention.key",
    attention_value="attention.attention.value",
    attention_out="attention.output.dense",
)
EMBEDDINGS = (
    Rule("embeddings.cls_token", "class_token"),
    Rule("embeddings.distillation_token", "distillation_token"),
    Rule("embeddings.register_tokens", "registers"),
    Rule("embeddings.position_embeddings", "position_embedding"),
    *dense("embeddings.patch_embeddings.projection", "patch_embedding", t.conv),
)
# Of a gated MLP the gate and what it gates are one array.
GATED_MLP = (
    *(
        Rule(
            f"encoder.layer.{{layer}}.mlp.weights_in.{theirs}",
            (f"{BLOCK}/mlp/gate/{ours}", f"{BLOCK}/mlp/up/{ours}"),
            t.split(transform),
        )
        for theirs, ours, transform in (("weight", "kernel", t.linear), ("bias", "bias", t.copy))
    ),
    *dense("encoder.layer.{layer}.mlp.weights_out", f"{BLOCK}/mlp/down"),
)
PLAIN_MLP = (
    *dense("encoder.layer.{layer}.mlp.fc1", f"{BLOCK}/mlp/up"),
    *dense("encoder.layer.{layer}.mlp.fc2", f"{BLOCK}/mlp/down"),
)
# What ViT, DeiT and MAE call a block's layers, MAE's decoder too.
LONG_BLOCK = dict(
    norms=("layernorm_before", "layernorm_after"),
    **LONG_ATTENTION,
    mlp_up="intermediate.dense",
    mlp_down="output.dense",
)
# So on the hub; transformers 5 saves them under a name of their own.
DECODER_LAYERS = "decoder.decoder_layers"
DECODER = pretraining.huggingface_decoder(blocks(f"{DECODER_LAYERS}.{{layer}}", **LONG_BLOCK))


def vit_table(family: str, *heads: Rule) -> Table:
    return Table(
        family=family,
        renames=(
            Rename(r"^(vit|deit)\.", "", "there where the model has a head"),
            Rename(r"^decoder\.decoder_encoder\.layer\.", f"{DECODER_LAYERS}.", "transformers 5"),
        ),
        rules=(
            *EMBEDDINGS,
            *blocks("encoder.layer.{layer}", **LONG_BLOCK),
            *norm("layernorm", "encoder/norm"),
            *dense("pooler.dense", "representation"),
            *heads,
        ),
        parts={pretraining.DECODER: DECODER},
    )


def dinov2_table(*mlp: Rule) -> Table:
    return Table(
        family="Hugging Face DINOv2",
        renames=(Rename(r"^dinov2(_with_registers)?\.", "", "there where the model has a head"),),
        rules=(
            *EMBEDDINGS,
            *blocks("encoder.layer.{layer}", norms=("norm1", "norm2"), **LONG_ATTENTION),
            *scales("encoder.layer.{layer}"),
            *mlp,
            *norm("layernorm", "encoder/norm"),
            *dense("classifier", "head"),
            Rule("embeddings.mask_token", "mask_token"),
        ),
        ignored=pretraining.MASK_TOKEN,
    )


VIT = vit_table("Hugging Face ViT", *dense("classifier", "head"))
DEIT = vit_table(
    "Hugging Face DeiT",
    *dense("cls_classifier", "head"),
    *dense("distillation_classifier", "distillation_head"),
)
DINOV2 = dinov2_table(*PLAIN_MLP)
DINOV2_GATED = dinov2_table(*GATED_MLP)
DINOV3 = Table(
    family="Hugging Face DINOv3",
    renames=(Rename(r"^(dinov3_vit|model)\.", "", "there where the model has a head"),),
    rules=(
        Rule("embeddings.cls_token", "class_token"),
        Rule("embeddings.register_tokens", "registers"),
        *dense("embeddings.patch_embeddings", "patch_embedding", t.conv),
        *blocks(
            "layer.{layer}",
            norms=("norm1", "norm2"),
            **attention("attention.", "attention.o_proj"),
            mlp_gate="mlp.gate_proj",
            mlp_up="mlp.up_proj",
            mlp_down="mlp.down_proj",
        ),
        *scales("layer.{layer}"),
        *norm("norm", "encoder/norm"),
        Rule("embeddings.mask_token", "mask_token", t.squeeze(1)),
    ),
    ignored=pretraining.MASK_TOKEN,
)
CLIP_BLOCKS = blocks(
    "encoder.layers.{layer}",
    norms=("layer_norm1", "layer_norm2"),
    **attention("self_attn.", "self_attn.out_proj"),
    mlp_up="mlp.fc1",
    mlp_down="mlp.fc2",
)
TEXT = {
    r"text_model\..*|text_projection\..*": "the text tower",
    r"logit_scale|logit_bias": "of the contrastive loss",
    r".*position_ids": "a constant, 0, 1, 2, ...",
}
CLIP = Table(
    family="Hugging Face CLIP",
    renames=(Rename(r"^vision_model\.", "", "there beside a text tower or a projection"),),
    rules=(
        Rule("embeddings.class_embedding", "class_token", t.class_token),
        Rule("embeddings.position_embedding.weight", "position_embedding", t.positions),
        *dense("embeddings.patch_embedding", "patch_embedding", t.conv),
        *norm("pre_layrnorm", "embedding_norm"),
        *CLIP_BLOCKS,
        *norm("post_layernorm", "encoder/norm"),
        *dense("visual_projection", "head"),
    ),
    ignored=TEXT,
)


def siglip_table(family: str, patch: t.Transform) -> Table:
    return Table(
        family=family,
        renames=(Rename(r"^vision_model\.", "", "there beside a text tower"),),
        rules=(
            Rule("embeddings.position_embedding.weight", "position_embedding", t.positions),
            *dense("embeddings.patch_embedding", "patch_embedding", patch),
            *CLIP_BLOCKS,
            *norm("post_layernorm", "encoder/norm"),
            Rule("head.probe", "pool/probe"),
            Rule(
                "head.attention.in_proj_weight",
                tuple(f"pool/attention/{name}/kernel" for name in ("query", "key", "value")),
                t.fused_heads,
            ),
            Rule(
                "head.attention.in_proj_bias",
                tuple(f"pool/attention/{name}/bias" for name in ("query", "key", "value")),
                t.fused_heads_bias,
            ),
            *dense("head.attention.out_proj", "pool/attention/out", t.heads_out),
            *norm("head.layernorm", "pool/norm"),
            *dense("head.mlp.fc1", "pool/mlp/up"),
            *dense("head.mlp.fc2", "pool/mlp/down"),
            *dense("classifier", "head"),
        ),
        ignored={**TEXT, r"head\..*": "the classifier reads the average of the tokens instead"},
    )


SIGLIP = siglip_table("Hugging Face SigLIP", t.conv)
# Patches are cut before the model there (NaFlex, arXiv:2502.14786), so they meet a dense layer.
SIGLIP2 = siglip_table("Hugging Face SigLIP 2", t.patches)
