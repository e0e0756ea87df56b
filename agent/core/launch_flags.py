"""The flags of one launch by what they are about, each with its reason. Pure.

Rules are those of llama_server_facts.md.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from agent.core.contradictions import QUANTISED
from agent.core.engine_choices import Choice, Choices, is_tiny, uses_devices
from agent.core.gguf_info import GgufInfo
from agent.core.launch_ladder import Ladder
from agent.core.launch_shape import LOAD_MODES_BEFORE, Basis, batch_of, knows_load_mode
from agent.core.memory_estimate import padded
from agent.core.planned_flags import FlagSheet


def lowered(choice: Choice, *, changed: bool) -> Choice:
    """The choice, or that it had to give way to memory."""
    return Choice(value=None, origin="memory") if changed else choice


def add_model(sheet: FlagSheet, basis: Basis, ladder: Ladder, port: int) -> None:
    """Which model is served where, to how many."""
    asked, shape, of = ladder.asked, ladder.rung.shape, basis.choices.of
    other = shape.model != asked.model
    named = lowered(of("llamacpp_model_path"), changed=other)
    why = "a smaller quantisation of the same model" if other else "the model"
    sheet.need("--model", shape.model, why, named)
    sheet.need("--host", "127.0.0.1", "nobody else on the network is served")
    fixed = of("llamacpp_port")
    sheet.need(
        "--port", port, "as set" if fixed.value else "a free one, chosen at the start", fixed
    )
    context = padded(shape.context)
    fewer = shape.slots != asked.slots
    shorter = shape.context != asked.context
    size = lowered(of("llamacpp_context_size"), changed=shorter or fewer)
    sheet.need("--ctx-size", shape.slots * context, f"{shape.slots} x {context} tokens", size)
    slots = lowered(of("llamacpp_parallel"), changed=fewer)
    sheet.need("--parallel", shape.slots, "requests that are decoded at the same time", slots)


def add_threads(sheet: FlagSheet, basis: Basis, notes: list[str]) -> int:
    """CPU threads and batches; the threads that were given."""
    cores, of = basis.hardware.physical_cores, basis.choices.of

    def bounded(choice: Choice) -> int:
        wanted = int(choice.value)
        if wanted > cores:
            notes.append(
                f"{choice.source or choice.origin}={wanted}, but there are {cores} "
                "physical cores; more threads than cores are slower."
            )
        return min(wanted, cores)

    choice = of("llamacpp_threads")
    if choice.value is not None:
        threads = bounded(choice)
        why = "as set" if threads == choice.value else "not more than physical cores"
    elif is_tiny(basis.info):
        threads, why = 1, "so small a model waits more for its threads than it gains"
    else:
        threads, why = cores, "the physical cores"
    sheet.need("--threads", threads, why, choice)
    choice = of("llamacpp_threads_batch")
    if choice.value is not None:
        sheet.add(["--threads-batch", str(bounded(choice))], why="to read prompts", choice=choice)
    _add_batches(sheet, basis.choices)
    return threads


def _add_batches(sheet: FlagSheet, choices: Choices) -> None:
    """A prompt that nobody wants any more, and everybody who writes meanwhile, waits for the end
    of a batch; smaller ones than what is computed at once would cost speed."""
    at_once, batch = choices.of("llamacpp_ubatch_size"), choices.of("llamacpp_batch_size")
    why = "prompt tokens between two tokens of the others"
    if batch.value is not None:
        sheet.add(["--batch-size", str(batch.value)], why=why, choice=batch)
    else:
        sheet.add(["--batch-size", str(batch_of(choices))], why=why)
    if at_once.value is not None:
        sheet.add(
            ["--ubatch-size", str(at_once.value)], why="tokens computed at once", choice=at_once
        )


def add_slots(sheet: FlagSheet, info: GgufInfo, slot_dir: Path | None) -> None:
    """What keeps our slots ours (rule 2)."""
    sheet.add(["--no-kv-unified"], why="each slot keeps what it holds")
    sheet.add(["--cache-ram", "0"], why="the prefix bank does that, and better")
    sheet.add(["--no-cache-idle-slots"], why="idle slots are not wiped")
    if slot_dir is not None:
        sheet.add(["--slot-save-path", str(slot_dir)], why="shared prefixes are kept there")
        if info.sliding_window:
            sheet.add(["--swa-full"], why="else a restored prefix is not reused")


def add_devices(sheet: FlagSheet, basis: Basis, ladder: Ladder, notes: list[str]) -> None:
    """Rule 16: layers stay unset, so that the server fits them, unless somebody sets them."""
    shape, of = ladder.rung.shape, basis.choices.of
    vulkan, layers = of("llamacpp_use_vulkan"), of("llamacpp_n_gpu_layers")
    if not shape.devices:
        if vulkan.value == "0":
            chosen, why, reason = vulkan, "the CPU alone is wanted", "LLAMACPP_USE_VULKAN=0"
        elif uses_devices(basis.choices, basis.info):
            why = reason = "too little memory on the devices"
            chosen = lowered(layers, changed=True)
        else:
            chosen, why = vulkan, "so small a model is slower on a GPU"
            reason = "So small a model runs on the CPU alone, if there is a GPU or not"
        sheet.add(["--device", "none"], ["--n-gpu-layers", "0"], why=why, choice=chosen)
        notes += [f"{reason}, so {field.upper()} is not used." for field in _unused(basis)]
    elif shape.gpu_layers != "auto":
        chosen = lowered(layers, changed=shape.gpu_layers != ladder.asked.gpu_layers)
        count = str(shape.gpu_layers)
        why = "layers kept on the GPU"
        if not basis.hardware.devices and basis.binary.knows("--list-devices"):
            why = "without effect: there is no GPU"
        sheet.add(["--n-gpu-layers", count], ["-ngl", count], why=why, choice=chosen)
    if not (shape.devices and basis.hardware.devices):
        if shape.devices and not basis.binary.knows("--list-devices"):
            return  # there may be devices that we were not told of
        sheet.add(["--fit", "off"], why="there is no device to fit layers to; it starts sooner")
        if shape.devices:
            wishes = [x for x in _unused(basis) if of(x).value]  # 0 and false ask for nothing
            notes += [f"No GPU is found, so {x.upper()} has no effect." for x in wishes]
        return
    offload = of("llamacpp_kv_offload")
    if offload.value is not None:
        # Builds that only know how to leave it out put it there anyway.
        spellings = [["--kv-offload"], []] if offload.value else [["--no-kv-offload"]]
        sheet.add(*spellings, why="whether the KV cache is on the GPU, too", choice=offload)
    for field, flag, why in (
        ("llamacpp_main_gpu", "--main-gpu", "does what is not split"),
        ("llamacpp_split_mode", "--split-mode", "how GPUs share the model"),
        ("llamacpp_tensor_split", "--tensor-split", "in which proportions"),
    ):
        choice = of(field)
        if choice.value is not None:
            sheet.add([flag, str(choice.value)], why=why, choice=choice)


def _unused(basis: Basis) -> list[str]:
    """Settings of devices that are set, where none is used."""
    fields = ("n_gpu_layers", "main_gpu", "split_mode", "tensor_split", "kv_offload")
    named = (f"llamacpp_{field}" for field in fields)
    return [field for field in named if basis.choices.is_set(field)]


def add_attention(sheet: FlagSheet, basis: Basis, ladder: Ladder) -> None:
    """Flash attention and the types of the KV cache."""
    shape, asked, of = ladder.rung.shape, ladder.asked, basis.choices.of
    attention = of("llamacpp_flash_attention")
    if shape.cache_type_v in QUANTISED:
        why = "a quantised V cache needs it"
        sheet.add(["--flash-attn", "on"], why=why, choice=replace(attention, why=""))
    elif attention.value is not None:
        why = "on wherever the device can" if attention.value == "auto" else "as set"
        sheet.add(["--flash-attn", str(attention.value)], why=why, choice=attention)
    for field, flag, now, before in (
        ("llamacpp_cache_type_k", "--cache-type-k", shape.cache_type_k, asked.cache_type_k),
        ("llamacpp_cache_type_v", "--cache-type-v", shape.cache_type_v, asked.cache_type_v),
    ):
        choice = of(field)
        if choice.value is not None or now != before:
            chosen = lowered(choice, changed=now != before)
            sheet.add([flag, now], why="type of the KV cache", choice=chosen)


def add_loading(sheet: FlagSheet, basis: Basis, ladder: Ladder) -> None:
    """How weights get into memory (rule 16), in the words that this binary knows."""
    mode, asked = ladder.rung.shape.load_mode, ladder.asked.load_mode
    choice = basis.choices.of("llamacpp_load_mode")
    if choice.value is None:
        return
    why = "how weights get into memory"
    if not knows_load_mode(basis.binary, choice.value):
        sheet.add(["--load-mode", choice.value], why=why, choice=choice)
        return
    chosen = lowered(choice, changed=mode != asked)
    if basis.binary.knows("--load-mode"):
        sheet.add(["--load-mode", mode], why=why, choice=chosen)
    else:
        for flag in LOAD_MODES_BEFORE[mode]:
            sheet.add([flag], why=why, choice=chosen)


def add_speculation(sheet: FlagSheet, choices: Choices) -> None:
    """Rule 10: drafts from n-grams of the context need no draft model."""
    choice = choices.of("llamacpp_speculation")
    why = "drafts from what the prompt holds"
    if choice.value != "off" and sheet.add(["--spec-type", "ngram-mod"], why=why, choice=choice):
        sheet.add(["--spec-ngram-mod-n-min", "4"], why="shorter drafts cost more than they give")
        sheet.add(["--spec-ngram-mod-n-match", "16"], why="tokens that must match before a draft")
