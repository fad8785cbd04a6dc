"""The sections of a page, in its order, with the words that explain each."""

from collections.abc import Sequence

from vit_jax import sections
from vit_jax.errors import InputError
from vit_jax.explain import attending, learned, pointing, predicting, relating, representing
from vit_jax.explain.section import Section

SECTIONS = {
    "predictions": Section(
        "Predictions",
        "Each image as the model gets it, and the classes that it finds most probable.",
        "Where the label is known it stands beside the image, so that mistakes can be seen.",
        "The softmax (or sigmoid) of the head's logits.",
        predicting.predictions,
    ),
    "attention": Section(
        "Attention maps",
        "How much the tokens that the head reads attend to each patch: a row for each layer, a "
        "picture for each head.",
        "Bright patches are attended to; each picture has its own scale, so compare places within "
        "one and not brightness between two.",
        "softmax(QKᵀ/√d) of arXiv:1706.03762, equation 1, drawn as in arXiv:2104.14294, Figure 1.",
        attending.maps,
    ),
    "rollout": Section(
        "Attention rollout",
        "Attention multiplied through all layers, half of each being the residual connection: how "
        "much of each patch is mixed into the output.",
        "Bright patches reach the output most; all classes have the same picture, as nothing here "
        "asks for one.",
        "arXiv:2010.11929, Figure 6; arXiv:2005.00928, section 3.",
        attending.rollout,
    ),
    "distance": Section(
        "Mean attention distance",
        "How many pixels away each head attends on average: a dot for each head of each layer.",
        "Low dots are local heads, as convolutions are; dots at the dashed line attend as far as "
        "attention to all patches alike.",
        "arXiv:2010.11929, Figures 7 (right) and 11.",
        attending.distance,
    ),
    "filters": Section(
        "Patch filters",
        "Principal components of the filters that turn a patch of pixels into a token.",
        "Smooth waves and edges are a basis for what is in a patch; noise has not been trained "
        "away.",
        "arXiv:2010.11929, Figure 7 (left).",
        learned.filters,
    ),
    "positions": Section(
        "Similarity of positions",
        "For each patch a small picture of the cosine similarity of its position embedding to "
        "those of all patches.",
        "A bright spot at a patch's own place, with its row and column, says that the model knows "
        "what is near what.",
        "arXiv:2010.11929, Figures 7 (centre) and 10.",
        learned.positions,
    ),
    "relevance": Section(
        "Relevance, and how faithful it is",
        "Which patches speak for the explained class, by attention weighted with gradients and by "
        "other methods, and what becomes of the output as patches go or come in that order.",
        "A method is right where the output falls fast as its patches are deleted and rises fast "
        "as they are inserted, more than in random order.",
        "arXiv:2103.15679, section 3; deletion and insertion: arXiv:1806.07421, section 4.",
        pointing.relevance,
    ),
    "occlusion": Section(
        "Occlusion sensitivity",
        "How much the output loses where a window of the image is hidden.",
        "Red places speak for the explained class, blue ones against it.",
        "arXiv:1311.2901, section 4.2.",
        pointing.occluded,
    ),
    "colours": Section(
        "Features as colours",
        "The first three principal components of the features at each place, over all images at "
        "once, as red, green and blue.",
        "Places of like colour are alike to the model, within an image and between images; a "
        "layer's colours say nothing of another's.",
        "arXiv:2304.07193, section 7.6 and Figure 1, without the background's removal.",
        representing.colours,
    ),
    "norms": Section(
        "Norms of tokens",
        "How long the patches' tokens are behind the last layer, and behind each.",
        "A second group far to the right are outliers, patches that the model uses as memory; "
        "register tokens take that over.",
        "arXiv:2309.16588, section 2 and Figure 3.",
        representing.norms,
    ),
    "tsne": Section(
        "Map of the features (t-SNE)",
        "What the head reads, of many images, as places in the plane where near ones are alike.",
        "Clusters of one colour are classes that the features tell apart; sizes of clusters and "
        "distances between them mean little.",
        "van der Maaten and Hinton, Visualizing Data using t-SNE, 2008.",
        representing.tsne,
    ),
    "umap": Section(
        "Map of the features (UMAP)",
        "The same features by another method, which keeps more of how clusters lie to each other.",
        "As above: clusters of one colour are classes that the features tell apart.",
        "arXiv:1802.03426.",
        representing.umap,
    ),
    "similarity": Section(
        "Similarity of layers",
        "Linear CKA of each two layers: how alike their features of the same images are, up to "
        "rotation and scale.",
        "1 is the same, 0 nothing in common; bright blocks are runs of layers that change little.",
        "arXiv:1905.00414, section 3; arXiv:2010.15327; of ViTs: arXiv:2108.08810, Figure 1.",
        relating.similarity,
    ),
    "comparison": Section(
        "Similarity to a second model's layers",
        "Linear CKA of each layer of this model with each of the other, of the same images.",
        "A bright diagonal says that both go the same way; a bright column that one layer of the "
        "other has what many here have.",
        "arXiv:1905.00414, section 3; arXiv:2108.08810, Figure 2.",
        relating.comparison,
    ),
}


def choose(only: Sequence[str], without: Sequence[str]) -> list[str]:
    """Names of the sections to make, in the page's order."""
    for flag, names in (("only", only), ("without", without)):
        for name in names:
            sections.choose(SECTIONS, name, where=f"--{flag}")
    chosen = [n for n in SECTIONS if (not only or n in only) and n not in without]
    if not chosen:
        raise InputError(f"no section is left; allowed: some of {', '.join(SECTIONS)}.")
    return chosen
