"""Small folders in the file formats of the public benchmarks."""

import base64
import io
import json
from pathlib import Path

from PIL import Image


def save_image(path: Path, colour: str = "red") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 12), colour).save(path)


def mme(folder: Path) -> Path:
    """Two images of `count` beside their texts, one of `artwork` in split folders, one of `code_reasoning`."""
    lines = "Is there one dog? Please answer yes or no.\tYes\nAre there two dogs? Please answer yes or no.\tNo\n"
    for name in ("0001", "0002"):
        save_image(folder / "count" / f"{name}.png")
        (folder / "count" / f"{name}.txt").write_text(lines)
    save_image(folder / "artwork" / "images" / "7.jpg")
    save_image(folder / "code_reasoning" / "3.png")
    (folder / "artwork" / "questions_answers_YN").mkdir()
    (folder / "artwork" / "questions_answers_YN" / "7.txt").write_text(lines)
    (folder / "code_reasoning" / "3.txt").write_text(lines.rstrip("\n"))
    return folder


def pope(folder: Path) -> Path:
    """Two categories of three questions."""
    folder.mkdir(parents=True, exist_ok=True)
    for category in ("random", "popular"):
        rows = [
            {"question_id": i, "image": f"COCO_val2014_{i}.jpg", "text": f"Is there a thing {i}?", "label": label}
            for i, label in enumerate(("yes", "no", "yes"))
        ]
        (folder / f"coco_pope_{category}.json").write_text("\n".join(map(json.dumps, rows)) + "\n")
    for i in range(3):
        save_image(folder / "val2014" / f"COCO_val2014_{i}.jpg")
    return folder


def gqa(folder: Path) -> Path:
    entries = {
        "201": {"imageId": "n1", "question": "Is it red?", "answer": "yes", "types": {"structural": "verify"}},
        "202": {"imageId": "n1", "question": "What is it?", "answer": "car", "types": {"structural": "query"}},
        "203": {"imageId": "n2", "question": "Which?", "answer": "left", "types": {"structural": "choose"}},
    }
    for name in ("n1", "n2"):
        save_image(folder / "images" / f"{name}.jpg")
    (folder / "testdev_balanced_questions.json").write_text(json.dumps(entries))
    return folder


def scienceqa(folder: Path) -> Path:
    shared = {"choices": ["Maine", "Ohio", "Utah"], "subject": "social science", "split": "test"}
    problems = {
        "11": shared | {"question": "Which state?", "answer": 1, "hint": "Look north.", "image": "image.png"},
        "12": shared | {"question": "No image?", "answer": 0, "hint": "", "image": None},
        "13": shared | {"question": "And this?", "answer": 2, "hint": "", "image": "image.png"},
        "14": shared | {"question": "Of training?", "answer": 2, "hint": "", "image": "image.png"},
    }
    for key in ("11", "13"):
        save_image(folder / "images" / "test" / key / "image.png")
    (folder / "problems.json").write_text(json.dumps(problems))
    (folder / "pid_splits.json").write_text(json.dumps({"train": ["14"], "test": ["11", "12", "13"]}))
    return folder


def textvqa(folder: Path) -> Path:
    answers = [["nokia"] * 8 + ["Nokia phone", "the nokia"], ["two", "2", "two", "3", "3", "3", "3", "4", "4", "5"]]
    data = [
        {"question": f"what does it say {i}?", "image_id": f"i{i}", "question_id": i, "answers": found}
        for i, found in enumerate(answers)
    ]
    for i in range(2):
        save_image(folder / "train_images" / f"i{i}.jpg")
    (folder / "TextVQA_0.5.1_val.json").write_text(json.dumps({"dataset_type": "val", "data": data}))
    return folder


def mmbench(folder: Path, circular: bool = False) -> Path:
    """Two questions, one of them with two options; with their rotated passes when `circular`."""
    folder.mkdir(parents=True, exist_ok=True)
    file = io.BytesIO()
    Image.new("RGB", (20, 12), "blue").save(file, "PNG")
    image = base64.b64encode(file.getvalue()).decode()
    columns = ["index", "question", "hint", "A", "B", "C", "D", "answer", "category", "l2-category", "image", "split"]
    rows = [
        [241, "What is it?", "A hint.", "cat", "dog", "cow", "", "B", "kinds", "finegrained", image, "dev"],
        [252, "Is it blue?", "", "yes", "no", "nan", "nan", "A", "colour", "coarse", image, "dev"],
    ]
    if circular:
        rows += [
            [1_000_252, "Is it blue?", "", "no", "yes", "", "", "B", "colour", "coarse", "252", "dev"],
            [1_000_241, "What is it?", "A hint.", "dog", "cow", "cat", "", "A", "kinds", "finegrained", "241", "dev"],
            [2_000_241, "What is it?", "A hint.", "cow", "cat", "dog", "", "C", "kinds", "finegrained", "241", "dev"],
        ]
    text = "\n".join("\t".join(map(str, row)) for row in [columns, *rows])
    (folder / "mmbench_dev_en.tsv").write_text(text + "\n")
    return folder
