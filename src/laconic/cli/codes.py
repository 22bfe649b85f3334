"""`laconic encode` and `laconic decode`: an image as a file of a few tokens, and back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from laconic.cli import common
from laconic.cli.options import Json

if TYPE_CHECKING:
    from laconic.codec.contract import CodecMethod


def encode(
    image: Annotated[str, typer.Argument(metavar="FILE", help="An image file, or points in an .xyz file.")],
    out: Annotated[str, typer.Option("--out", "-o", help="File for the codes.")],
    tokens: Annotated[int | None, typer.Option("--tokens", min=1, help="Tokens; default: all that the codec has.")] = None,
    psnr: Annotated[
        float | None, typer.Option("--psnr", min=0, help="Instead: as few tokens as this quality takes, in dB.")
    ] = None,
    method: Annotated[
        str | None, typer.Option("--method", help="NAME or NAME:artifact=FILE; `laconic methods --site codecs` lists them.")
    ] = None,
    resize: Annotated[bool, typer.Option("--resize", help="Scale the image to the size that the codec reads.")] = False,
    as_json: Json = False,
) -> None:
    """Turn an image into a few tokens, of which any first part decodes where the codec says so.

    Example: laconic encode photo.png --method NAME:artifact=FILE --tokens 64 --resize -o photo.codes
    """
    if tokens is not None and psnr is not None:
        raise common.InputError("--tokens and --psnr exclude each other; give one.")
    target = _target(out)
    codec = _codec(method)
    shown = codec.open(image)
    if resize:
        size = codec.size  # a codec for other media refuses here
        shown = shown.resize(size)
    made = codec.encode(shown, tokens)
    if psnr is not None:
        from laconic.codec.lengths import shortest

        kept = shortest(lambda k: codec.quality(codec.decode(made.first(k)), shown), psnr, len(made))
        made = made.first(kept)
    made.save(target)
    quality = codec.quality(codec.decode(made), shown)
    if as_json:
        facts = {"file": str(target), "codec": made.codec, "tokens": len(made), "bits": made.bits, "bytes": made.bytes}
        common.emit({**facts, "file_bytes": target.stat().st_size, "shape": list(made.shape), "psnr": quality})
        return
    told = f"wrote {target}: {made}, {quality:.1f} dB"
    common.out().print(told, markup=False, soft_wrap=True)
    if psnr is not None and quality < psnr:
        common.err().print(f"warning: {psnr:g} dB are not reached with all tokens", style="yellow", soft_wrap=True)


def decode(
    codes: Annotated[Path, typer.Argument(metavar="CODES", help="A file that `laconic encode` wrote.")],
    out: Annotated[str, typer.Option("--out", "-o", help="Image file, or an .xyz file.")],
    tokens: Annotated[int | None, typer.Option("--tokens", min=1, help="Decode the first tokens alone.")] = None,
    artifact: Annotated[
        str | None, typer.Option("--artifact", help="The weights that encoded them, where not shipped.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make the image that codes stand for.

    Example: laconic decode photo.codes --artifact FILE --tokens 16 -o photo.png
    """
    target = _target(out)
    from laconic.codec.codes import Codes
    from laconic.method import create_method

    held = Codes.load(codes)
    held = held if tokens is None else held.first(tokens)
    codec: Any = create_method(held.codec)
    if artifact is not None:
        codec.artifact = artifact
    drawn = codec.decode(held)
    try:
        drawn.save(target)
    except (ValueError, OSError) as error:
        raise common.InputError(f"--out {out}: {error}; give a file such as image.png.") from None
    if as_json:
        common.emit({"file": str(target), "codec": held.codec, "tokens": len(held), "bytes": held.bytes, "size": drawn.size})
        return
    common.out().print(f"wrote {target} from {held}", markup=False, soft_wrap=True)


def _codec(spec: str | None) -> CodecMethod:
    """The codec that is named, or the one that its class says is to be taken."""
    from laconic.codec.contract import CodecMethod
    from laconic.method import create_method, list_methods

    if spec is None:
        known = [entry for entry in list_methods() if issubclass(entry.cls, CodecMethod)]
        spec = next(entry.name for entry in known if entry.cls.preferred)  # type: ignore[attr-defined]
    found = create_method(spec)
    if not isinstance(found, CodecMethod):
        raise common.InputError(f"--method {spec} is no codec; `laconic methods --site codecs` lists them.")
    return found


def _target(out: str) -> Path:
    path = Path(out).expanduser()
    if path.is_dir() or not path.parent.is_dir():
        raise common.InputError(f"--out {out}: give a file in a folder that exists.")
    return path
