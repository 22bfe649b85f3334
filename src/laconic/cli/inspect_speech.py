"""`laconic inspect --audio` with a speech model: one sound at several budgets, and what its decoder looked at of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from laconic.cli import common
from laconic.cli.inspect_image import Trial, level_dict, levels_of, parameters_of, told, trials_of
from laconic.cli.inspect_time import sound_lines
from laconic.cli.options import Options
from laconic.cli.question import loaded, sounds_of
from laconic.cli.record import method_dict
from laconic.cli.transcript import without_text
from laconic.families.audio.whisper import columns_of_a_token, sound_tokens, token_seconds, window_seconds
from laconic.media.audio import Sound
from laconic.report.image_page import About, Gallery, ImageCut, Level, Numbers, image_page
from laconic.speech.transcribe import inputs_of, is_long, transcribe


def inspect_speech(options: Options, keeps: list[float] | None, page: Path | None, as_json: bool) -> None:
    """The command.

    Raises:
        InputError: text, several sounds, or one of several windows. MediaError: a sound that cannot be read.
    """
    without_text(options)
    sounds = sounds_of(options)
    if len(sounds) > 1:
        raise common.InputError(
            f"--audio is given {len(sounds)} times, and the page of a model that writes down what it hears shows one sound."
        )
    trials = trials_of(options, keeps)
    model, processor = loaded(options)
    (sound,) = sounds
    if is_long(model, sound):
        raise common.InputError(
            f"--audio lasts {sound.seconds:.1f} s, and a window of this model {window_seconds(model):.0f} s. Where a window "
            "begins depends on what was written before it, so budgets of several windows cannot be laid over one another; "
            "give the sound of one window."
        )
    heard = inputs_of(model, processor, sound)
    n = int(sound_tokens(model, heard["input_features"], heard["attention_mask"]))

    def answer(trial: Trial) -> Level:
        done = transcribe(model, processor, sound, *trial.methods)
        to = done.windows[0].to.cpu().numpy() if trial.methods else np.arange(n)
        name = trial.methods[0].name if trial.methods else ""
        asked = 1.0 if done.stats.asked is None else done.stats.asked
        return level(to, trial.label, name, asked, done.text)

    with common.spinner("listening and writing"):
        levels = levels_of(trials, answer, options.warnings)
        drawn = heard["input_features"][0].float().cpu()
        views = sound_lines(drawn, np.arange(n), columns_of_a_token(model), token_seconds(model))
        gallery = Gallery(views, np.arange(n), levels, kind="audio")
    if page is not None:
        page.write_text(_page(options, trials, sound, gallery), encoding="utf-8")
    if as_json:
        methods = {trial.label: [method_dict(m) for m in trial.methods] for trial in trials}
        levels_said = [{"methods": methods[one.label], **level_dict(gallery, one)} for one in levels]
        common.emit(
            {
                "model": options.model_name,
                "sounds": [{"file": options.audio[0] if options.audio else "", "seconds": sound.seconds}],
                "audio_tokens": list(range(n)),
                "levels": levels_said,
                "out": None if page is None else str(page),
                "warnings": options.warnings,
            }
        )
        return
    told(options, gallery, (page,))


def level(to: Numbers, label: str, method: str, asked: float, text: str) -> Level:
    """One budget: what became of each token of sound, [n], as `laconic.speech.figures.Window` says it.

    All decoder layers look at the same tokens, so there is one layer here. Where several tokens became one, the first of
    them stands for it.
    """
    own, held = np.arange(len(to)), to >= 0
    first = np.full(int(to.max()) + 1, len(to))
    np.minimum.at(first, to[held], own[held])
    into = np.where(held, first[to.clip(min=0)], -1)
    kept, merged = into == own, int((held & (into != own)).sum())
    cuts = [ImageCut(0, method, len(to), int(kept.sum()), merged)] if method else []
    return Level(label, asked, float(kept.mean()), [0], kept[None].astype(np.float32), into[None], cuts, text)


def _page(options: Options, trials: list[Trial], sound: Sound, gallery: Gallery) -> str:
    methods = trials[0].methods
    name = " + ".join(m.name for m in methods) or "no method"
    facts = [
        ("model", options.model_name),
        ("method", "; ".join(map(parameters_of, methods)) or "none: everything is looked at"),
        ("sound", f"{Path((options.audio or [''])[0]).name} ({sound.seconds:.2f} s)"),
        ("read as", f"{len(gallery.numbers):,} audio tokens, and padding after them"),
        ("answer", "what the model writes down"),
    ]
    about = About(facts, options.warnings, start=(len(gallery.levels) - 1) // 2)
    return image_page(f"What {name} kept of the sound", about, gallery)
