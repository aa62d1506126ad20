"""CLIP's tokens against transformers' tokenizer, and the word list of a small world."""

import gzip
import json
from pathlib import Path

import pytest
import torch
from open_clip.tokenizer import bytes_to_unicode, default_bpe
from transformers import CLIPTokenizer

from ldm.models.tokenizer import ClipTokenizer, WordTokenizer
from tests.refusals import assert_line, refused

PROMPTS = [
    "",
    "   \t\n ",
    "a photograph of an astronaut riding a horse",
    "A PHOTO of a Red CUBE",
    "two  spaces,\ttabs\nand\r\nnew lines ",
    "it's the dog's bone; they're fine, we've seen, I'd say he'll do what I'm told, can't he?",
    "4k, 8K, 1920x1080 @ 60 fps, f/1.8, ISO-100, (masterpiece:1.2)",
    "!!! ??? ... --- ### $$$ %%% ^&*()_+[]{}|;':\",./<>?`~",
    "don't-stop_me.now@example.com/path?x=1&y=2#top",
    "fish &amp; chips &lt;b&gt; &quot;quoted&quot; &#39;",
    "café, naïve, Zürich, Ångström, SMØRREBRØD",
    "cafe\u0301 with a combining accent",
    "日本の山、富士山の浮世絵",
    "москва зимой, картина маслом",
    "पहाड़ और नदी, ภาพวาดสีน้ำมัน",
    "صورة قط على الأريكة",
    "🚀🌕 emoji 👨‍👩‍👧‍👦 with joiners ❤️",
    "non\u00a0breaking\u3000spaces “curly quotes” – dashes — and … ½ ² Ⅷ ﬁ",
    "supercalifragilisticexpialidocious pneumonoultramicroscopicsilicovolcanoconiosis",
    "a very long prompt, " * 40,
    "word " * 75,
    "word " * 76,
]


@pytest.fixture(scope="module")
def tokenizer() -> ClipTokenizer:
    return ClipTokenizer()


@pytest.fixture(scope="module")
def peer(tmp_path_factory) -> CLIPTokenizer:
    """transformers' tokenizer on the vocabulary that open_clip brings, in the layout of the official repository."""
    folder: Path = tmp_path_factory.mktemp("clip")
    with gzip.open(default_bpe(), "rt", encoding="utf-8") as lines:
        merges = lines.read().split("\n")[1 : 49152 - 256 - 2 + 1]
    letters = list(bytes_to_unicode().values())
    vocabulary = [*letters, *(letter + "</w>" for letter in letters), *(merge.replace(" ", "") for merge in merges)]
    vocabulary += ["<|startoftext|>", "<|endoftext|>"]
    ids = {token: i for i, token in enumerate(vocabulary)}
    (folder / "vocab.json").write_text(json.dumps(ids), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]), encoding="utf-8")
    return CLIPTokenizer.from_pretrained(folder, local_files_only=True)


@pytest.mark.parametrize("prompt", PROMPTS, ids=range(len(PROMPTS)))
def test_ids_are_those_of_transformers(tokenizer, peer, prompt):
    expected = peer(prompt, padding="max_length", truncation=True, max_length=77).input_ids
    assert tokenizer([prompt]).tolist() == [expected]


def test_known_ids_padded_with_the_end_token(tokenizer):
    ids = tokenizer(["a photo of a cat", ""])
    assert ids.dtype == torch.int64
    assert ids.shape == (2, 77)
    assert ids[0].tolist() == [49406, 320, 1125, 539, 320, 2368] + [49407] * 71
    assert ids[1].tolist() == [49406] + [49407] * 76
    bpe = tokenizer._bpe
    sizes = bpe.sot_token_id, bpe.eot_token_id, bpe.vocab_size
    assert (tokenizer.start, tokenizer.end, tokenizer.vocab_size) == sizes == (49406, 49407, 49408)


def test_an_over_long_prompt_still_ends(tokenizer):
    ids = tokenizer(["cat " * 200])
    assert ids[0].tolist() == [49406] + [2368] * 75 + [49407]


def test_what_is_cut_is_told_once(tokenizer, caplog):
    prompt = "a red house, " * 18 + "a Cat on a sunny hill, photographed"  # 18 x 4 + 8 tokens
    for _ in range(2):
        ids = tokenizer(["a short one", prompt])
    (message,) = caplog.messages
    assert_line(message, 80, 75, "a sunny hill , photographed")
    assert tokenizer._bpe.decode(ids[1].tolist()[1:-1]).strip().endswith("a red house , a cat on")


def test_what_fits_is_not_told_of(tokenizer, caplog):
    tokenizer(["word " * 75, ""])
    assert not caplog.records


def test_of_a_long_rest_the_beginning_is_shown(tokenizer, caplog):
    tokenizer(["tree " * 5000])
    (message,) = caplog.messages
    assert_line(message, 5000, 75, "tree tree")
    assert "..." in message and len(message) < 300


def test_no_prompts(tokenizer):
    assert tokenizer([]).shape == (0, 77)


def test_words_in_order_case_and_punctuation_ignored():
    tokenizer = WordTokenizer(["a", "red", "cube", "left"], context_length=7)
    ids = tokenizer(["A red cube, left.", "", "a red cube left a"])
    assert ids.tolist() == [[1, 2, 3, 4, 5, 0, 0], [1, 0, 0, 0, 0, 0, 0], [1, 2, 3, 4, 5, 2, 0]]
    assert ids.dtype == torch.int64
    assert (tokenizer.start, tokenizer.end, tokenizer.vocab_size) == (1, 0, 6)


def test_an_unknown_word_is_named_with_the_known_ones():
    tokenizer = WordTokenizer(["a", "red", "cube"], context_length=8)
    with refused("a purple cube", "purple", "a, red, cube"):
        tokenizer(["a red cube", "a purple cube"])


def test_a_long_word_list_is_shortened_in_the_message():
    tokenizer = WordTokenizer([f"word{i}" for i in range(500)], context_length=8)
    with refused("word0", "word1", 480) as error:
        tokenizer(["purple"])
    assert len(str(error.value)) < 300


def test_too_many_words_for_the_context_are_refused():
    tokenizer = WordTokenizer(["a"], context_length=4)
    assert tokenizer(["a a"]).tolist() == [[1, 2, 2, 0]]
    with refused(3, 2):
        tokenizer(["a a a"])


@pytest.mark.parametrize("words", [["Red"], ["t-shirt"], ["two words"], [""], ["red", "cube", "red"]])
def test_a_word_list_that_no_prompt_could_match_is_refused(words):
    with refused("tokenizer"):
        WordTokenizer(words, context_length=8)
