"""The command on a finished run: every section and its mistakes; the page in a real browser."""

import base64
import html
import io
import json
import re

import chromium
import numpy as np
import pytest
from helpers import train_arguments
from PIL import Image
from subjects import is_picture

from vit_jax.__main__ import main
from vit_jax.explain import contents

# A script of the test's own, which writes into the page what the browser made of it.
LOOK = """
<script>
window.onload = () => {
  const images = [...document.images];
  document.title = JSON.stringify({
    widths: images.map(i => i.naturalWidth),
    heights: images.map(i => i.clientHeight),
    sections: [...document.querySelectorAll("section")].map(s => s.id),
    asked: performance.getEntriesByType("resource").map(e => e.name)
      .filter(name => !name.startsWith("data:")),
    overflow: document.documentElement.scrollWidth - window.innerWidth,
  });
};
</script>
"""


def call(capsys, *arguments):
    """Exit code, standard output and standard error."""
    with pytest.raises(SystemExit) as stop:
        main(["explain", *map(str, arguments)])
    out, err = capsys.readouterr()
    return stop.value.code or 0, out, err


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A ViT with a class token, trained for two steps on digits stretched to 8×12 pixels."""
    folder = tmp_path_factory.mktemp("explain") / "run"
    settings = dict(data__image_size=(8, 12), task__model__patch_size=4, task__model__pool="cls")
    settings |= dict(
        train__num_steps=2, train__checkpoint_every=2, evals__validation__every_steps=2
    )
    with pytest.raises(SystemExit) as stop:
        main(train_arguments(folder, **settings))
    assert not stop.value.code
    return folder


@pytest.fixture(scope="module")
def page(workdir):
    """With every section but UMAP, whose library may be missing."""
    arguments = [f"--workdir={workdir}", f"--compare={workdir}", "--count=3", "--projected=20"]
    with pytest.raises(SystemExit) as stop:
        main(["explain", *arguments, "--without=umap", "--batch_size=8"])
    assert not stop.value.code
    return workdir / "explain" / "index.html"


def test_every_section_has_its_pictures(page):
    text = page.read_text()
    assert "Left out" not in text
    for name, section in contents.SECTIONS.items():
        assert (f'<section id="{name}">' in text) == (name != "umap")
        assert (html.escape(section.title) in text) == (name != "umap")
    inlined = re.findall(r'src="data:image/png;base64,([^"]+)"', text)
    files = {path.read_bytes(): path for path in page.parent.glob("*.png")}
    assert len(inlined) == len(files) == text.count("<img") >= len(contents.SECTIONS) - 1
    for content in map(base64.b64decode, inlined):
        assert is_picture(files[content])
        Image.open(io.BytesIO(content)).verify()
    numbers = json.loads((page.parent / "numbers.json").read_text())
    assert {row["method"] for row in numbers["relevance"]} >= {"relevance", "rollout", "random"}
    found = [row["CKA"] for row in numbers["comparison"]]
    assert found == pytest.approx([1, 1]) and f"<td>{found[0]:.3f}</td>" in text
    assert numbers["relevance"][0]["deletion"].keys() == {"mean", "error"}
    assert len(numbers["predictions"]) == 3 and "Made by <code>python -m vit_jax" in text


@chromium.NEEDED
def test_a_browser_shows_all_of_it_on_a_telephone_and_asks_nobody(page, tmp_path):
    copy = tmp_path / "page.html"
    copy.write_text(page.read_text().replace("</body>", f"{LOOK}</body>"))
    found = re.search(r"<title>(\{.*?\})</title>", chromium.document(copy))
    seen = json.loads(found[1].replace("&amp;", "&"))
    assert seen["sections"] == [name for name in contents.SECTIONS if name != "umap"]
    assert len(seen["widths"]) == page.read_text().count("<img")
    assert min(seen["widths"]) > 80 and min(seen["heights"]) > 40  # decoded, and shown
    assert seen["asked"] == [] and seen["overflow"] <= 0
    target = tmp_path / "page.png"
    chromium.screenshot(page, target)
    with Image.open(target) as image:
        assert image.size == chromium.TELEPHONE
        assert np.asarray(image.convert("L")).std() > 20


def test_images_are_named_and_unreadable_ones_told(workdir, capsys, tmp_path):
    """Whatever the name: mathematics to matplotlib, a script to browsers, and no UTF-8."""
    tmp_path = tmp_path / "caf\udce9"
    tmp_path.mkdir()
    for i, name in enumerate(("good0", "good1", "$x_{y$", "<script>", "\udce9")):
        pixels = np.random.default_rng(i).integers(0, 256, (9, 14, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    (tmp_path / "bad.jpg").write_bytes(b"junk")
    output = tmp_path / "out"
    arguments = (f"--workdir={workdir}", f"--output={output}", "--only=predictions,filters")
    code, out, err = call(capsys, *arguments, f"--images={tmp_path}/good0.png", tmp_path)
    assert code == 2 and err.count("bad.jpg") == 1
    assert out.strip() == f"{output}/index.html".replace("\udce9", "\ufffd")
    text = (output / "index.html").read_text(encoding="utf-8")
    assert "<td>$x_{y$.png</td>" in text and "<td>\ufffd.png</td>" in text
    assert "<script" not in text and "<td>&lt;script&gt;.png</td>" in text
    assert text.count("good0.png") >= 1 and "good1.png" in text and "bad.jpg" not in text
    lines = [line for line in err.splitlines() if " of 2: " in line]
    assert [line.split(",")[0] for line in lines] == ["1 of 2: predictions", "2 of 2: filters"]


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "--workdir is None and --weights None; allowed: one of them"),
        (["--workdir={}", "--weights=x"], "allowed: one of them"),
        (["--weights=x"], "--output is missing"),
        (["--weights=x", "--output=y", "--checkpoint=best"], "allowed: with --workdir"),
        (["--workdir={}", "--image_size=32"], "--image_size is given; allowed: with --weights"),
        (["--workdir={}", "--architecture=a"], "--architecture is given; allowed: with --weights"),
        (["--weights=x", "--output=y", "--images=z", "--split=test"], "allowed: with --source"),
        (["--workdir={}", "--compare={}", "--only=norms"], "with the section comparison"),
        (["--workdir={}", "--minibatch=8", "--only=norms"], "the section similarity or comparison"),
        (["--workdir={}", "--only=rolout"], "did you mean 'rollout'"),
        (["--workdir={}", "--layers=0,x"], "--layers is '0,x'; allowed: whole numbers"),
        (["--workdir={}", "--layers=1,-1"], "layers names layer 1 more than once; allowed: each"),
        (["--workdir={}", "--images="], "a path of images is empty; allowed: files"),
        (["--workdir={}", "--seed=-1"], "--seed=-1: -1 is not an integer in the range [0,"),
        (["--workdir={}", "--layers=7"], "layers has 7; allowed: -2 to 1"),
        (["--workdir={}", "--target=cat"], "--target is 'cat'; allowed: 0, 1,"),
        (["--workdir={}", "--images=nowhere.png"], "there is no file or folder nowhere.png"),
        (["--workdir={}", "--output={}/other", "--only=comparison"], "made: No second model"),
    ],
)
def test_mistakes_are_one_sentence(workdir, capsys, arguments, message):
    code, _, err = call(capsys, *(argument.format(workdir) for argument in arguments))
    assert code == 2 and message in err.splitlines()[-1] and "Traceback" not in err
