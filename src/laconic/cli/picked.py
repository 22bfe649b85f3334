"""`--method picked`: what `laconic pick` found for the model that was loaded."""

from __future__ import annotations

from laconic.cli.common import InputError
from laconic.cli.options import PICKED, Options
from laconic.engine.engine import Engine
from laconic.engine.request import Mode
from laconic.method import Method
from laconic.specs import create_methods

FAR = 1.5
"""Ratio of a budget to the nearest one that was tried from which the user is told."""


def is_picked(options: Options) -> bool:
    """Whether the methods are those of `laconic pick`.

    Raises:
        InputError: other methods beside it, or a budget that is not a share.
    """
    names = options.method or []
    if PICKED not in names:
        return False
    if len(names) > 1:
        raise InputError("--method picked stands alone: it names the method itself.")
    if options.tokens is not None or options.nbytes is not None:
        raise InputError("--method picked goes with --keep, or without a budget: it was found out for shares.")
    return True


def picked(options: Options, engine: Engine, mode: Mode) -> list[Method]:
    """The methods found for this model, with the budget of the options or else the one found.

    Raises:
        InputError: nothing has been found out for this model.
    """
    from laconic.bench.fingerprint import fingerprint  # the bench is imported for those who ask for it
    from laconic.bench.pick.verdict import ENOUGH, Pick, PickError, place

    file = place(fingerprint(engine.model))
    if not file.exists():
        raise InputError(
            f"nothing has been picked for {options.model_name} yet; find out with: laconic pick --model {options.model_name}"
        )
    try:
        verdict = Pick.load(file).choose(mode, options.keep)
    except PickError as error:
        raise InputError(str(error)) from error
    keep = verdict.keep if options.keep is None else options.keep
    if options.keep is None and verdict.share < ENOUGH:
        options.warnings.append(
            f"picked: no budget that was tried keeps {ENOUGH:.0%} of the answers; {verdict.method} at {keep:g} kept "
            f"{verdict.share:.0%}."
        )
    if max(keep / verdict.keep, verdict.keep / keep) > FAR:
        options.warnings.append(f"picked: keep {keep:g} was not tried; {verdict.method} was found best at {verdict.keep:g}.")
    return create_methods([verdict.method], keep=keep)
