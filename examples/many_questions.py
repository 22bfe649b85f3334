"""One context and many questions: read and compress a text once, save it, then ask it again and again.

The text is compressed before any question is known, so the method must not depend on one: `laconic methods` says which
methods look at the question.

Run: python examples/many_questions.py
"""

import tempfile
from pathlib import Path

import torch

import laconic
from laconic.prompts import text

NOTE = Path(__file__).with_name("note.txt")
QUESTIONS = [f"What is the code for {room}?" for room in ("falcon", "beaver", "heron", "otter")]


def main() -> None:
    model, tokenizer = laconic.load("testbed/lm")
    prompts = [text.build(tokenizer, NOTE.read_text(encoding="utf-8"), question) for question in QUESTIONS]
    ids = torch.tensor([prompts[0].context])  # the same for every question

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "note.safetensors"
        with laconic.compress(model, laconic.ExpectedAttention(keep=0.25)) as session:
            model(ids)  # the only time that the whole text is read
            session.save_cache(file, input_ids=ids, tokenizer=tokenizer)
        print(f"{file.stat().st_size:,} bytes on disk; the whole cache has {session.stats.kv_bytes_full:,}")

        context = laconic.load_cache(file, model, tokenizer=tokenizer)  # could be another process, another day
        with laconic.compress(model, *context.methods) as session, session.hold():  # hold: questions are stored whole
            for prompt in prompts:
                asked = torch.cat([context.input_ids, torch.tensor([prompt.question])], dim=1)
                output = model.generate(asked, past_key_values=context.cache(), max_new_tokens=24)
                print(tokenizer.decode(output[0, asked.shape[1] :], skip_special_tokens=True))


if __name__ == "__main__":
    main()
