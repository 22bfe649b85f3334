"""Draw docs/scene.png, the image of the README's command: a scene of the testbed that no training has seen."""

from pathlib import Path

from laconic.tasks.scenes.questions import EVALUATION_SEED, make

FILE = Path(__file__).with_name("scene.png")


def main() -> None:
    """Write the image and say what can be asked about it."""
    sample = make("reading", EVALUATION_SEED + 900_007)
    sample.shown()[0].save(FILE)
    print(f"{FILE.name}: {sample.question} {sample.answers[0]}")


if __name__ == "__main__":
    main()
