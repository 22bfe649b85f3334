"""Draw docs/scene.png, the image of the README's command: a scene of the testbed that no training has seen."""

from laconic.tasks.scenes.questions import EVALUATION_SEED, make
from tools.pages.parts import DOCS

FILE = DOCS / "scene.png"


def main() -> None:
    """Write the image; print its question and the answer."""
    sample = make("reading", EVALUATION_SEED + 900_007)
    sample.shown()[0].save(FILE)
    print(f"{FILE.name}: {sample.question} {sample.answers[0]}")


if __name__ == "__main__":
    main()
