"""Prove that the exported file is the trained model: same tokens, same prompt, same answers."""

from __future__ import annotations

import argparse
from pathlib import Path
from random import Random

import torch
from tokenizers import Tokenizer

from tools.tiny_coder.export import load_model
from tools.tiny_coder.mix import MIXES
from tools.tiny_coder.model import TinyCoder
from tools.tiny_coder.samples import Sample, draw_sample
from tools.tiny_coder.server import Server, running_server
from tools.tiny_coder.tokenizer import TURN_END, load_tokenizer, render_chat
from tools.tiny_coder.words import Split

_HARD_TEXTS = [
    "Grüße, naïve café — 日本語 \U0001f600 don't we'll I'M 12345 3.14\t\ttab\n\n\n  x\r\n end  ",
    "'start' 'test' 're' ''' '\\n'",
    "a_b__c  = {k: v}\n        return -1\n",
    "ALLCAPS Mixed123case",
]
_LONGEST_ANSWER = 160


def count_token_differences(server: Server, tokenizer: Tokenizer, texts: list[str]) -> int:
    """Texts that llama.cpp cuts differently."""
    different = 0
    for text in texts:
        body = {"content": text, "add_special": False, "parse_special": True}
        different += server.post("/tokenize", body)["tokens"] != tokenizer.encode(text).ids
    return different


def count_template_differences(server: Server, samples: list[Sample]) -> int:
    """Prompts that the embedded chat template prints differently."""
    return sum(
        server.post("/apply-template", {"messages": sample.prompt.messages})["prompt"]
        != render_chat(sample.prompt.messages)
        for sample in samples
    )


def greedy_answer(model: TinyCoder, tokenizer: Tokenizer, prompt: str) -> str:
    """What the model itself answers, always taking the most likely token."""
    ids: list[int] = tokenizer.encode(prompt).ids
    end, start = tokenizer.token_to_id(TURN_END), len(ids)
    with torch.inference_mode():
        while len(ids) < start + _LONGEST_ANSWER:
            following = int(model(torch.tensor([ids]))[0, -1].argmax())
            if following == end:
                break
            ids.append(following)
    return str(tokenizer.decode(ids[start:], skip_special_tokens=False))


def count_answer_differences(
    server: Server, model: TinyCoder, tokenizer: Tokenizer, samples: list[Sample]
) -> int:
    """Prompts to which the server answers differently; quantization may tip a close choice."""
    different = 0
    for sample in samples:
        own = greedy_answer(model, tokenizer, render_chat(sample.prompt.messages))
        served = server.answer(sample.prompt.messages, tokens=_LONGEST_ANSWER)
        different += own.strip() != served.strip()
    return different


def main() -> None:
    """``python -m tools.tiny_coder.check_export TOKENIZER MODEL CHECKPOINT... --binary SERVER``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("checkpoints", type=Path, nargs="+")
    parser.add_argument("--binary", type=Path, required=True, help="llama-server")
    parser.add_argument("--log", type=Path, default=Path("/tmp/tiny_coder_server.log"))
    chosen = parser.parse_args()
    random = Random("check")
    samples = [draw_sample(random, split, MIXES["finish"]) for split in Split for _ in range(40)]
    texts = [render_chat(s.prompt.messages) + s.answer for s in samples] + _HARD_TEXTS
    tokenizer, model = load_tokenizer(chosen.tokenizer), load_model(*chosen.checkpoints)
    torch.set_num_threads(1)
    with running_server(chosen.binary, chosen.model, chosen.log) as server:
        tokens = count_token_differences(server, tokenizer, texts)
        print(f"tokenizer: {tokens} of {len(texts)} texts differ")
        templates = count_template_differences(server, samples)
        print(f"chat template: {templates} of {len(samples)} prompts differ")
        few = samples[::13]
        answers = count_answer_differences(server, model, tokenizer, few)
        print(f"greedy answers: {answers} of {len(few)} differ")
    if tokens or templates or answers > len(few) // 6:
        raise SystemExit("The exported file is not the trained model.")


if __name__ == "__main__":
    main()
