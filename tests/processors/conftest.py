"""Real processors of transformers, in folders with tiny random models, for `laconic run`.

Most need torchvision (`helpers/torchvision_operators.py`), which is kept in a folder that only this run sees:
`make processors`.
"""

import json

import pytest
from typer.testing import CliRunner


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """`folders(name)`: where a tiny model of that class and its processor are saved."""
    from helpers.real_processors import processor
    from helpers.vision_zoo import CASES

    made = {}

    def get(name):
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            CASES[name].build().save_pretrained(made[name])
            processor(name).save_pretrained(made[name])
        return str(made[name])

    return get


@pytest.fixture
def run():
    """`run(*options)`: the JSON of `laconic run`."""
    from laconic.cli import app

    def call(*options):
        done = CliRunner().invoke(app, ["run", *map(str, options), "--max-new-tokens", "3", "--json"])
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    return call
