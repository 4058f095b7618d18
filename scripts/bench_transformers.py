#!/usr/bin/env python3
"""Times a teacher-forced pass and beam search against transformers: same folder, same inputs, same threads, in turns.

Usage: python3 scripts/bench_transformers.py [--threads N] [--repeats N] [--beams N] [--new-tokens N] [--rows N] [--keep FOLDER]
       (needs torch 2.11 and transformers 4.57; builds and runs the example `folder_speed` of crates/models)

Makes folders with random weights: two InstructBLIP of middle size (FlanT5 and Vicuna), a LLaVA, a LLaVA-NeXT, a Qwen2-VL and an InternVL of middle size, and a
SmolVLM of the shape of SmolVLM-256M. The pass is over one image per row; the search answers all rows about one shared image, in transformers by one
batched `generate` call, as its users write it. Both sides
run in f32 without gradients, one process each, alternating; loading is printed apart and process start is not counted. The best of
the repeats counts, by wall and by CPU time: on a machine with other work the latter is the fairer. A ratio above 1 means that ressa is faster.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
QUERIES, IMAGE = 32, 224
VISION = dict(hidden_size=384, intermediate_size=1536, num_hidden_layers=6, num_attention_heads=6, image_size=IMAGE, patch_size=14)
QFORMER = dict(
    vocab_size=2000, hidden_size=256, num_hidden_layers=4, num_attention_heads=4, intermediate_size=1024,
    max_position_embeddings=64, cross_attention_frequency=2, encoder_hidden_size=384,
)
TEXT = {
    "flant5": dict(
        model_type="t5", vocab_size=32128, d_model=512, d_kv=64, d_ff=1024, num_layers=6, num_decoder_layers=6, num_heads=8,
        feed_forward_proj="gated-gelu", dense_act_fn="gelu", decoder_start_token_id=0, eos_token_id=1, pad_token_id=0,
        tie_word_embeddings=False,
    ),
    "vicuna": dict(
        model_type="llama", vocab_size=32000, hidden_size=512, intermediate_size=1376, num_hidden_layers=8, num_attention_heads=8,
        max_position_embeddings=512, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    ),
}
# An id that no drawn prompt has.
IMAGE_TOKEN = 31999
CLIP = dict(model_type="clip_vision_model", hidden_size=384, intermediate_size=1536, num_hidden_layers=8, num_attention_heads=6, image_size=336,
            patch_size=14, projection_dim=64)
QWEN = dict(
    model_type="qwen2_vl", vocab_size=32000, hidden_size=512, intermediate_size=1376, num_hidden_layers=8, num_attention_heads=8,
    num_key_value_heads=2, max_position_embeddings=4096, rope_scaling=dict(type="mrope", mrope_section=[8, 12, 12]), bos_token_id=1,
    eos_token_id=2, pad_token_id=0, image_token_id=IMAGE_TOKEN, video_token_id=31998, vision_start_token_id=31997, vision_end_token_id=31996,
    vision_config=dict(depth=8, embed_dim=384, hidden_size=512, num_heads=6, mlp_ratio=4, patch_size=14, spatial_merge_size=2,
                       temporal_patch_size=2),
)
SMOLVLM = dict(
    model_type="idefics3", image_token_id=IMAGE_TOKEN, scale_factor=4, pad_token_id=0,
    vision_config=dict(model_type="idefics3_vision", hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, image_size=512, patch_size=16),
    text_config=dict(model_type="llama", vocab_size=49280, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
                     num_key_value_heads=3, max_position_embeddings=8192, rope_theta=1e5, bos_token_id=1, eos_token_id=2, pad_token_id=0),
)
INTERNVL = dict(
    model_type="internvl", image_token_id=IMAGE_TOKEN,
    vision_config=dict(hidden_size=384, intermediate_size=1536, num_hidden_layers=8, num_attention_heads=6, image_size=[224, 224], patch_size=[14, 14],
                       attention_bias=True),
    text_config=dict(model_type="qwen2", vocab_size=32000, hidden_size=512, intermediate_size=1376, num_hidden_layers=8, num_attention_heads=8,
                     num_key_value_heads=2, max_position_embeddings=4096, bos_token_id=1, eos_token_id=2, pad_token_id=0),
)
# Models of conversations: the configuration, height and width of the canvas that an image is on, and the features that it becomes.
CONVERSATIONS = {
    "llava": (dict(model_type="llava", vision_config=CLIP, text_config=TEXT["vicuna"] | dict(max_position_embeddings=4096), image_token_index=IMAGE_TOKEN), (336, 336), 576),
    # Two tiles side by side, whose image is half as high as they are: of 24 lines six are cut from above and six from below.
    "llava-next": (dict(model_type="llava_next", vision_config=CLIP, text_config=TEXT["vicuna"] | dict(max_position_embeddings=4096), image_token_index=IMAGE_TOKEN),
                   (2 * 336 + 6, 2 * 336), 576 + 12 * 49),
    "qwen2-vl": (QWEN, (448, 448), 256),
    # Two rows and columns of tiles, and the whole image below.
    "smolvlm": (SMOLVLM, (3 * 512, 2 * 512), 5 * 64),
    "internvl": (INTERNVL, (3 * 224, 2 * 224), 5 * 64),
}
# The size of an image that the canvas of `llava-next` holds.
NEXT_SIZE = (168, 672)
BEFORE = [1, 11, 12, 13]


def config_of(name):
    from transformers import CONFIG_MAPPING, InstructBlipConfig

    if name in CONVERSATIONS:
        fields = dict(CONVERSATIONS[name][0])
        return CONFIG_MAPPING[fields.pop("model_type")](**fields)
    return InstructBlipConfig(
        vision_config=VISION, qformer_config=QFORMER, text_config=TEXT[name], num_query_tokens=QUERIES, image_token_index=IMAGE_TOKEN
    )


def make(name, folder):
    import torch
    from transformers import AutoModelForImageTextToText

    config = config_of(name)
    torch.manual_seed(1)
    model = AutoModelForImageTextToText.from_config(config).eval()
    with torch.no_grad():
        for key, tensor in model.state_dict().items():
            # Weights that keep activations near 1: with the library's tiny ones all answers look alike.
            if tensor.dim() > 1:
                embedding = "embed" in key or "shared" in key or key == "query_tokens"
                tensor.normal_(0.0, 0.5 if embedding else tensor[0].numel() ** -0.5)
    model.save_pretrained(folder)


def draw(name, rows, file):
    """Prompts and answers of different lengths, padded right, without image positions; where images stand among words, what is before the text."""
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(2)
    lengths = [8 + 3 * row % 17 for row in range(rows)]
    real = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    ids = lambda vocabulary: torch.randint(5, vocabulary, real.shape) * real
    answers = torch.randint(5, 30000, (rows, 10))
    _, canvas, features = CONVERSATIONS.get(name, (None, (IMAGE, IMAGE), 0))
    tensors = dict(
        pixel_values=torch.randn(rows, 3, *canvas), answers=answers,
        qformer_ids=ids(2000), qformer_mask=real.long(), language_ids=ids(30000), language_mask=real.long(),
    )
    if features:
        tensors["before"] = torch.tensor(BEFORE + [IMAGE_TOKEN] * features)
        tensors["image_token"] = torch.tensor([IMAGE_TOKEN])
    if name == "qwen2-vl":
        tensors["before"] = torch.tensor(BEFORE + [31997] + [IMAGE_TOKEN] * features)
        tensors["grid"] = torch.tensor([1, 16, 16])
    if name == "llava-next":
        # Rows and columns of tiles, features along a side, what is cut.
        tensors["mosaic"] = torch.tensor([1, 2, 24, 6, 0])
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, file)
    return tensors


def images(name, pixels):
    """What a model of transformers reads of canvases `[rows, 3, height, width]`."""
    import torch

    def tiles(side, rows, columns):
        cut = pixels[:, :, : rows * side, : columns * side].unfold(2, side, side).unfold(3, side, side)
        return cut.permute(0, 2, 3, 1, 4, 5).flatten(1, 2), pixels[:, None, :, rows * side : (rows + 1) * side, :side]

    if name == "smolvlm":
        return dict(pixel_values=torch.cat(tiles(512, 2, 2), 1))
    if name == "internvl":
        return dict(pixel_values=torch.cat(tiles(224, 2, 2), 1).flatten(0, 1))
    if name == "llava-next":
        cut, whole = tiles(336, 1, 2)
        return dict(pixel_values=torch.cat([whole, cut], 1), image_sizes=torch.tensor([NEXT_SIZE] * len(pixels)))
    if name == "qwen2-vl":
        rows, side = len(pixels), 448 // 28
        still = pixels[:, None].expand(-1, 2, -1, -1, -1).reshape(rows, 2, 3, side, 2, 14, side, 2, 14)
        patches = still.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(rows * 4 * side * side, -1)
        return dict(pixel_values=patches, image_grid_thw=torch.tensor([[1, 2 * side, 2 * side]] * rows))
    return dict(pixel_values=pixels)


def rows_of(tensors):
    """Real ids of each prompt, behind its image positions."""
    image = tensors["before"].tolist() if "before" in tensors else [IMAGE_TOKEN] * QUERIES
    return [image + row[: mask.sum()].tolist() for row, mask in zip(tensors["language_ids"], tensors["language_mask"])]


def padded(rows, fill, left=None):
    """Rows of one length and their mask, padded behind so many positions: behind those of an image as the processor of InstructBLIP has it."""
    import torch

    width = max(len(row) for row in rows)
    at = width if left is None else left
    lines, masks = [], []
    for row in rows:
        padding = [fill] * (width - len(row))
        lines.append(row[:at] + padding + row[at:])
        masks.append([1] * len(row[:at]) + [0] * len(padding) + [1] * len(row[at:]))
    return torch.tensor(lines), torch.tensor(masks)


class Theirs:
    def __init__(self, name, folder, tensors, options):
        from transformers import AutoModelForImageTextToText

        if name == "internvl":
            # Beams with all tiles of their image, in place of one tile several times.
            import export_tile_goldens  # noqa: F401
        start = time.perf_counter()
        self.model = AutoModelForImageTextToText.from_pretrained(folder).eval()
        self.load = time.perf_counter() - start
        self.name, self.tensors, self.options = name, tensors, options
        self.encoder_decoder = getattr(self.model.config.get_text_config(), "is_encoder_decoder", False)
        self.end = self.model.generation_config.eos_token_id

    def shared(self):
        if self.name in CONVERSATIONS:
            return {}
        return dict(qformer_input_ids=self.tensors["qformer_ids"], qformer_attention_mask=self.tensors["qformer_mask"])

    def forward(self):
        import torch

        prompts, answers = rows_of(self.tensors), [row + [self.end] for row in self.tensors["answers"].tolist()]
        if self.encoder_decoder:
            ids, mask = padded(prompts, 0)
            labels = torch.tensor(answers)
        else:
            ids, mask = padded([prompt + answer for prompt, answer in zip(prompts, answers)], 0)
            labels, _ = padded([[-100] * len(prompt) + answer for prompt, answer in zip(prompts, answers)], -100)
        shown = images(self.name, self.tensors["pixel_values"])
        out = self.model(**shown, input_ids=ids, attention_mask=mask, labels=labels, **self.shared())
        return out.loss.item()

    def generate(self):
        at = 0 if self.name in CONVERSATIONS else QUERIES
        ids, mask = padded(rows_of(self.tensors), 0, left=None if self.encoder_decoder else at)
        shown = images(self.name, self.tensors["pixel_values"][:1].expand(len(ids), -1, -1, -1))
        found = self.model.generate(
            **shown, input_ids=ids, attention_mask=mask, do_sample=False, **self.shared(), **self.options
        )
        end = self.end
        rows = [row[1 if self.encoder_decoder else ids.shape[1] :].tolist() for row in found]
        return [row[: row.index(end) + 1] if end in row else row for row in rows]


def timed(work):
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return (time.perf_counter() - wall, time.process_time() - cpu), result


def ours(folder, inputs, options, arguments, repeats):
    binary = ROOT / "target/release/examples/folder_speed"
    command = [binary, folder, inputs, json.dumps(options), str(arguments.threads), str(repeats)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def compare(name, folder, arguments):
    import torch

    torch.set_num_threads(arguments.threads)
    if not (folder / "config.json").exists():
        make(name, folder)
    inputs = folder / "inputs.safetensors"
    tensors = draw(name, arguments.rows, inputs)
    options = dict(num_beams=arguments.beams, max_new_tokens=arguments.new_tokens)
    theirs = Theirs(name, folder, tensors, options)
    times = {side: {"forward": [], "generate": []} for side in ("theirs", "ours")}
    with torch.no_grad():
        for turn in range(arguments.repeats):
            # The first pass of each process warms it up.
            for _ in range(2 if turn == 0 else 1):
                forward, loss = timed(theirs.forward)
                generate, tokens = timed(theirs.generate)
            times["theirs"]["forward"].append(forward)
            times["theirs"]["generate"].append(generate)
            mine = ours(folder, inputs, options, arguments, 2)
            for what in ("forward", "generate"):
                times["ours"][what] += mine[what]
    rows = len(tokens)
    equal = sum(a == b for a, b in zip(tokens, mine["tokens"]))
    print(f"{name}: {rows} rows, {arguments.beams} beams, {arguments.new_tokens} new tokens, {arguments.threads} threads")
    print(f"  load                  transformers {theirs.load:7.2f} s   ressa {mine['load']:7.2f} s")
    ratios = {}
    for what in ("forward", "generate"):
        for clock, kind in enumerate(("wall", "cpu")):
            their_best, our_best = (min(pair[clock] for pair in times[side][what]) for side in ("theirs", "ours"))
            ratios[what, kind] = their_best / our_best
            print(f"  {what:8} {kind:4}         transformers {their_best:7.2f} s   ressa {our_best:7.2f} s   ratio {their_best / our_best:5.2f}")
    print(f"  same tokens           {equal} of {rows} rows;  loss {loss:.6f} and {mine['loss']:.6f}")
    return equal == rows and abs(loss - mine["loss"]) < 1e-4 * abs(loss)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--beams", type=int, default=5)
    parser.add_argument("--new-tokens", type=int, default=24)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--keep", type=Path, help="folder for the models, used again if they are there")
    parser.add_argument("--only", choices=[*TEXT, *CONVERSATIONS], help="one family")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    build = ["cargo", "build", "--release", "-q", "--workspace", "--example", "folder_speed"]
    subprocess.run(build, cwd=ROOT, check=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.keep or Path(scratch)
        names = [arguments.only] if arguments.only else [*TEXT, *CONVERSATIONS]
        same = [compare(name, folder / name, arguments) for name in names]
    sys.exit(0 if all(same) else 1)


if __name__ == "__main__":
    main()
