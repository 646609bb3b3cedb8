#!/usr/bin/env python3
"""Trains tiny tokenizers in the manner of well-known model families with the `tokenizers` package and writes what it
makes of many texts: tests/golden/tokenizers/<name>.json and expected.json. Needs `pip install tokenizers`.

    python3 tests/golden/make_tokenizers.py [name ...]

A tokenizer that is there is kept, for training is not deterministic in all of them; those named are trained again.
expected.json is written anew from all; it names the package's version."""
import copy
import json
import os
import random
import sys

import tokenizers
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers import AddedToken

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "tokenizers")

CORPUS = [
    "The weir holds the water back and lets a measured part of it through, all day and all night.",
    "A request comes in, waits its turn, and goes out again; nobody's request waits for ever.",
    "It's what we've said, they'll say, I'm sure you'd agree: don't, can't, won't, shouldn't've.",
    "def measure(flow, width=3):\n    if flow > 100:\n        return flow / width\n    return None\n",
    "for (int i = 0; i < n; i++) {\n\tsum += table[i] * 2;\n}\n\n\nint main(void) { return 0; }\n",
    "In 1987 there were 12,345 of them; by 2024 it was 1234567 and 3.14159 per cent.",
    "Über die Brücke fließt das Wasser, während wir schöne Grüße schicken.",
    "L'eau coule sous le pont, où l'été s'achève déjà. Ça va?",
    "Вода течёт через плотину, и никто не ждёт вечно.",
    "水はゆっくりと堰を越えて流れていく。カタカナもひらがなも混ざる。",
    "水流过堰坝，每个请求都会等到自己的时候。我们的水，他们的水。",
    "물은 천천히 보를 넘어 흐른다. 아무도 영원히 기다리지 않는다.",
    "الماء يجري ببطء فوق السد ولا أحد ينتظر إلى الأبد",
    "पानी धीरे धीरे बाँध के ऊपर से बहता है।",
    "น้ำไหลช้าๆ ข้ามฝาย",
    "emoji \U0001f30a\U0001f30a and \U0001f468\u200d\U0001f469\u200d\U0001f467 and \U0001f44d\U0001f3fd and \u2764\ufe0f too",
    "    four spaces   three  two\ttab\t\ttabs\n\n  mixed \n lines\r\n",
    "aaaaaaaa bbbb aaaa aa a b ab abab ababab hello hello hello world",
    "https://example.org/path?query=1&other=two#part <html>&amp;</html> {\"key\": [1, 2.5, null]}",
] * 4

TEXTS = [
    "", " ", "  ", "   ", "\n", "\n\n", "\n\n\n", "\t", " \n", "\n ", "\r\n", "\r", "a", " a", "a ", " a ", "  a", "a  ",
    "Hello world", "Hello  world", " Hello world ", "hello\nworld", "hello \n world", "hello\n\n\n  world\t!",
    "The weir holds the water back.", "It's they'll we've I'm you'd don't CAN'T I'LL it'S 'Tis 's 't'll",
    "'\u017f x'\u017f \u017f \u212a kelvin \u0130 \u0131 istanbul \u1e9e stra\u00dfe",
    "1", "12", "123", "1234", "12345", "1234567890", "3.14159", "1,234,567", "a1b22c333d4444", "\u0664\u0665\u0666 \u00b2\u00b3 \u216b \u2460 \u00bd",
    "\u00e9 e\u0301 \u00e9\u0301 a\u0323\u0307 a\u0307\u0323 \u1e69 s\u0323\u0307 \u212b A\u030a", "\u1100\u1161\u11a8 \uac01 \u1100 \u1161",
    "\ufb01 \ufb03 \u2126 \u3392 \uff21\uff22 \uff71\uff9e \u00a0nbsp\u00a0 \u2003em\u2003", "\ufdfa \u1f71 \u0958 \u2adc",
    "a" + "\u0301\u0323" * 20 + "b", "\u0301", "\u0301\u0301a", "\u200b zero \u200d width \u200c \ufeff bom \u2060",
    "\u180e mongolian \u180esep a\u180eb", "\u0085nel\u0085 \u2028ls\u2028 \u2029ps\u2029 \u3000ideo\u3000", "\x0b\x0c vt ff \x1c\x1d\x1e\x1f", "\x00 nul \x00\x01\x7f",
    "水", "水はゆっくりと堰を越えて", "我们的水，他们的水。123水456", "カタカナ混ざるABC", "물은 천천히", "العربية ١٢٣", "पानी बाँध", "น้ำไหล", "Вода течёт",
    "\U0001f30a", "\U0001f468\u200d\U0001f469\u200d\U0001f467\U0001f44d\U0001f3fd\u2764\ufe0f", "\U0001f30a\U0001f30a\U0001f30a\U0001f30a\U0001f30a", "\U0001f1e9\U0001f1ea\U0001f1eb\U0001f1f7",
    "\U0010ffff\U000e0001\ue000\ufffd\u0378", "\ud7ff\uffff", "\U00020000\U0002a6d6",
    "def f(x):\n    return x\n\n\nclass A:\n\tpass\n", "for(i=0;i<n;i++){sum+=t[i];}", "!!!???...,,,;;;", "$$$ ### @@@ %%% ^^^ &&& *** ((( )))",
    "_under_score __dunder__ a_b", "CamelCaseWords HTTPServer iPhone XMLHttpRequest aB Ab AB ab", "don\u2019t \u201cquote\u201d \u2014 dash \u2026",
    "a" * 100, "ab" * 100, " " * 100, "\n" * 50, " \n" * 30, "\t" * 40, "-" * 77, "=" * 64 + "\n", "0" * 50, "hello" * 30, "\u00e9" * 40, "水" * 40, "\u2581" * 10,
    "\u2581hello\u2581world \u2581 x", "\u0120hello \u010a \u0100", "<0x41> <0x0A> <0xE6>", "<unk>", "<s>", "</s>", "<s>hello</s>", "<s> hello </s>",
    "<|endoftext|>", "hello<|endoftext|>world", "hello <|endoftext|> world", "<|endoftext|><|endoftext|>", "<|endoftext", "|endoftext|>", "<|endoftext|><", "<<|endoftext|>>",
    "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHello!<|eot_id|>", "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n", "<tool_call>\n{\"name\": \"f\"}\n</tool_call>",
    "word lone words  lone  clone lone.", "xlonex lone", "lone", "  left right  both  mid", "a  left  b  right  c  both  d", "left\n\nright\t\tboth\u00a0\u00a0x", "\nleft", "right\n", "Normal normal NORMAL", "abcabcab abcab",
    "<start_of_turn>user\nHi<end_of_turn>\n", "[INST] Hi [/INST]", "[INST]Hi[/INST]",
]
random.seed(7)
ALPHABET = list("abc ABC019 \n\t.,'-_<|>") + ["\u00e9", "e\u0301", "\u0301", "水", "を", "ж", "\U0001f30a", "\u200d", "\u00a0", "<s>", "<|endoftext|>", "lone", " left ", "'s", "  "]
TEXTS += ["".join(random.choice(ALPHABET) for _ in range(random.randint(1, 60))) for _ in range(80)]

GPT4 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
O200K = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
DEEPSEEK = r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^" + "\r\n" + r"\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[" + "\r\n" + r"]*|\s*[" + "\r\n" + r"]+|\s+(?!\S)|\s+"
CODER = [r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"]
BYTES = ["<0x%02X>" % i for i in range(256)]
# Families that came later: every third text will do.
SOME = {"tekken", "phi4", "phi3", "deepseek_coder", "qwen3", "llama3_hub"}


def special(content, **flags):
    return AddedToken(content, special=True, normalized=False, **flags)


def byte_level(pre, n=520, specials=("<|endoftext|>",), normalizer=None, corpus=CORPUS):
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre
    tok.decoder = decoders.ByteLevel()
    tok.post_processor = processors.ByteLevel(trim_offsets=False)
    if normalizer:
        tok.normalizer = normalizer
    trainer = trainers.BpeTrainer(vocab_size=n, special_tokens=[special(s) for s in specials], show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tok.train_from_iterator(corpus, trainer)
    return tok


def char_level(normalizer, pre, decoder, n=560, byte_fallback=True, unk="<unk>", limit=90):
    tok = Tokenizer(models.BPE(unk_token=unk, fuse_unk=True, byte_fallback=byte_fallback))
    if normalizer:
        tok.normalizer = normalizer
    if pre:
        tok.pre_tokenizer = pre
    if decoder:
        tok.decoder = decoder
    names = [unk, "<s>", "</s>"] + (BYTES if byte_fallback else [])
    trainer = trainers.BpeTrainer(vocab_size=n, special_tokens=names, show_progress=False, limit_alphabet=limit)
    tok.train_from_iterator([line for text in CORPUS for line in text.split(" ")] + CORPUS, trainer)
    # Byte tokens are plain members of the vocabulary, not added tokens.
    data = json.loads(tok.to_str())
    data["added_tokens"] = [t for t in data["added_tokens"] if t["content"] in (unk, "<s>", "</s>")]
    return Tokenizer.from_str(json.dumps(data))


def edit(tok, **members):
    data = json.loads(tok.to_str())
    data["model"].update(members)
    return Tokenizer.from_str(json.dumps(data))


def bos(name, token_id, first=None):
    template = processors.TemplateProcessing(single=name + " $A", special_tokens=[(name, token_id)])
    return processors.Sequence([first, template]) if first else template


def llama_decoder():
    return decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(),
                              decoders.Strip(" ", 1, 0)])


def split(pattern, behavior="isolated", invert=False):
    return pre_tokenizers.Split(Regex(pattern), behavior, invert)


def plain_bytes():
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


def build_later(out):
    """Mistral's tekken; Phi 4 (GPT-4's split, added tokens that strip); Phi 3 (Llama 2's model, "first" white space
    kept by rstrip); DeepSeek's coder (many splits, then digits one by one); Qwen 3 (thinking and tools as tokens that
    are not special); Llama 3 as its file is on the hub (reserved tokens, merges ignored, begin token)."""
    out["tekken"] = edit(byte_level(pre_tokenizers.Sequence([split(O200K.replace("{1,3}", "")), plain_bytes()]), n=420,
                                    specials=["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[TOOL_CALLS]"]), ignore_merges=True)
    tok = byte_level(pre_tokenizers.Sequence([split(GPT4, "removed", True), plain_bytes()]), n=420)
    tok.add_special_tokens([AddedToken(t, lstrip=True, rstrip=True, normalized=False, special=True)
                            for t in ("<|im_start|>", "<|im_end|>", "<|im_sep|>")])
    out["phi4"] = tok
    normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    tok = char_level(normalizer, None, llama_decoder(), n=480)
    tok.add_special_tokens([AddedToken(t, rstrip=True, normalized=False, special=True) for t in ("<|user|>", "<|end|>", "<|endoftext|>")])
    out["phi3"] = tok
    pre = [split(p) for p in CODER] + [pre_tokenizers.Digits(individual_digits=True), plain_bytes()]
    tok = byte_level(pre_tokenizers.Sequence(pre), n=420, specials=["<\uff5cbegin\u2581of\u2581sentence\uff5c>"])
    tok.add_tokens([AddedToken("<|EOT|>", normalized=True), AddedToken("<\uff5cUser\uff5c>", normalized=False)])
    out["deepseek_coder"] = tok
    tok = byte_level(pre_tokenizers.Sequence([split(QWEN), plain_bytes()]), n=420, normalizer=normalizers.NFC(),
                     specials=["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    tok.add_tokens([AddedToken(t, normalized=False) for t in
                    ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>")])
    out["qwen3"] = tok
    tok = byte_level(pre_tokenizers.Sequence([split(GPT4), plain_bytes()]), n=420, specials=[])
    tok.add_special_tokens(["<|begin_of_text|>", "<|end_of_text|>"] + ["<|reserved_special_token_%d|>" % i for i in range(4)] +
                           ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|python_tag|>"])
    tok.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), processors.TemplateProcessing(
        single="<|begin_of_text|> $A", pair="<|begin_of_text|>:0 $A <|begin_of_text|>:1 $B:1",
        special_tokens=[("<|begin_of_text|>", tok.token_to_id("<|begin_of_text|>"))])])
    out["llama3_hub"] = edit(tok, ignore_merges=True)


def build():
    out = {}
    build_later(out)
    out["gpt2"] = byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False))
    out["gpt2_prefix"] = byte_level(pre_tokenizers.ByteLevel(add_prefix_space=True))

    tok = byte_level(pre_tokenizers.Sequence([split(GPT4), plain_bytes()]),
                     specials=["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"])
    tok.post_processor = bos("<|begin_of_text|>", 0, processors.ByteLevel(trim_offsets=False))
    out["llama3"] = edit(tok, ignore_merges=True)

    tok = byte_level(pre_tokenizers.Sequence([split(QWEN), plain_bytes()]), normalizer=normalizers.NFC(),
                     specials=["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    tok.add_tokens([AddedToken("<tool_call>", normalized=False), AddedToken("</tool_call>", normalized=False)])
    out["qwen2"] = tok

    out["o200k"] = byte_level(pre_tokenizers.Sequence([split(O200K), plain_bytes()]))
    out["deepseek"] = byte_level(pre_tokenizers.Sequence(
        [split(r"\p{N}{1,3}"), split("[一-龥぀-ゟ゠-ヿ]+"), split(DEEPSEEK), plain_bytes()]))
    out["starcoder"] = byte_level(pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]))

    tok = byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False), n=420)
    tok.add_tokens([" " * i for i in range(20, 1, -1)] + ["\t" * i for i in range(5, 1, -1)])
    tok.add_tokens([AddedToken("lone", single_word=True), AddedToken("left", lstrip=True), AddedToken("right", rstrip=True),
                    AddedToken("both", lstrip=True, rstrip=True, normalized=False), "abc", "abcab", "b"])
    out["phi"] = tok

    normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    tok = char_level(normalizer, None, llama_decoder())
    tok.post_processor = bos("<s>", 1)
    out["llama2"] = tok
    tok = char_level(normalizer, None, llama_decoder())
    tok.add_tokens([AddedToken("lone"), AddedToken("left", lstrip=True, normalized=True)])
    out["llama2_added"] = tok
    meta = pre_tokenizers.Metaspace(replacement="\u2581", prepend_scheme="first", split=False)
    tok = char_level(None, meta, llama_decoder())
    tok.add_special_tokens(["[INST]", "[/INST]"])
    tok.post_processor = bos("<s>", 1)
    out["mistral"] = tok
    meta = pre_tokenizers.Metaspace(replacement="\u2581", prepend_scheme="always", split=True)
    out["metaspace"] = char_level(None, meta, decoders.Metaspace(replacement="\u2581", prepend_scheme="always", split=True))

    decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    tok = char_level(normalizers.Replace(" ", "\u2581"), pre_tokenizers.Split(" ", "merged_with_previous"), decoder)
    tok.add_tokens([AddedToken("\n" * i, normalized=False) for i in range(2, 32)])
    tok.add_tokens([AddedToken("\u2581" * i, normalized=False) for i in range(2, 32)])
    tok.add_special_tokens(["<start_of_turn>", "<end_of_turn>"])
    tok.post_processor = bos("<s>", 1)
    out["gemma"] = tok

    chain = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase(), normalizers.Strip(),
                                  normalizers.Replace(Regex(r"\s+"), " ")])
    pre = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])
    out["normal_fused"] = char_level(chain, pre, None, byte_fallback=False)
    pre = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Digits(individual_digits=False)])
    out["normal_unfused"] = edit(char_level(normalizers.NFD(), pre, None, byte_fallback=False), fuse_unk=False)
    pre = pre_tokenizers.Sequence([split(r"[,.]", "merged_with_previous"), split(r"\s", "merged_with_next"),
                                   split(r"[a-c]", "contiguous"), split(r"[x-z]|\d+", "removed")])
    out["splits"] = edit(char_level(normalizers.NFKD(), pre, None, byte_fallback=False), unk_token=None)
    pre = pre_tokenizers.Sequence([split(r"(?=[A-Z])"), split(r"\w+", "removed", True),
                                   pre_tokenizers.CharDelimiterSplit("_"), pre_tokenizers.BertPreTokenizer()])
    out["splits2"] = char_level(None, pre, None, byte_fallback=False)
    return out


def old_merges(data):
    """Older files spell a merge as one string."""
    data = copy.deepcopy(data)
    data["model"]["merges"] = [m if isinstance(m, str) else " ".join(m) for m in data["model"]["merges"]]
    return data


def decoded(name, tok):
    """Ids and what the package makes of them, special tokens left out: ids of texts, and ids at random, which end
    characters in their middle. Bytes of byte_fallback are left out of the latter: the package looks at a whole run of
    them at once, a stream can't. Nor are added tokens that are normalized and change by it: this version of the
    package decodes them as normalized, others as written."""
    rng = random.Random(name)
    n = max(tok.get_vocab().values()) + 1
    plain = [i for i in range(n) if tok.id_to_token(i) is not None and not tok.id_to_token(i).startswith("<0x")]
    lists = [tok.encode(t, add_special_tokens=False).ids for t in TEXTS[::9]]
    odd = {i for i, t in tok.get_added_tokens_decoder().items() if tok.id_to_token(i) != t.content}
    lists += [[rng.choice(plain) for _ in range(rng.randint(1, 12))] for _ in range(20)]
    return [[ids, tok.decode(ids, skip_special_tokens=True)] for ids in lists if ids and not odd & set(ids)]


def main():
    os.makedirs(HERE, exist_ok=True)
    expected = {"version": tokenizers.__version__, "texts": TEXTS, "tokenizers": {}}
    for name, tok in build().items():
        data = json.loads(tok.to_str())
        path = os.path.join(HERE, name + ".json")
        if name in ("gpt2", "llama2"):
            data = old_merges(data)
        if os.path.exists(path) and name not in sys.argv:
            with open(path, encoding="utf-8") as file:
                data = json.load(file)
        with open(path, "w", encoding="utf-8") as file:
            json.dump(data, file, ensure_ascii=name == "qwen2", separators=(",", ":"))
            file.write("\n")
        tok = Tokenizer.from_str(json.dumps(data))
        entry = {"vocab": max(tok.get_vocab().values()) + 1, "begin": tok.encode("").ids}
        entry["special"] = [tok.encode(t, add_special_tokens=False).ids for t in TEXTS]
        tok.encode_special_tokens = True
        plain = [tok.encode(t, add_special_tokens=False).ids for t in TEXTS]
        # Only where they differ, by the text's number.
        entry["plain"] = {str(i): ids for i, ids in enumerate(plain) if ids != entry["special"][i]}
        if name in SOME:
            entry["special"] = [ids if i % 3 == 0 or "<" in TEXTS[i] else None for i, ids in enumerate(entry["special"])]
        tok.encode_special_tokens = False
        entry["decoded"] = decoded(name, tok) if tok.decoder else []  # without one the package puts spaces between
        expected["tokenizers"][name] = entry
    with open(os.path.join(HERE, "expected.json"), "w", encoding="utf-8") as file:
        json.dump(expected, file, ensure_ascii=True, separators=(",", ":"))
        file.write("\n")


if __name__ == "__main__":
    main()
