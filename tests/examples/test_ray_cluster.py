"""The cluster file of the examples is one that Ray takes."""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

FILE = Path(__file__).parents[2] / "examples/ray/cluster.yaml"


def installed():
    try:
        return bool(version("ray"))
    except PackageNotFoundError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(not installed(), reason="Ray is not installed here, see `make ray`")
def test_ray_parses_it():
    import yaml
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(yaml.safe_load(FILE.read_text(encoding="utf-8")))
    validate_config(config)
    assert config["cluster_name"] == "laconic" and config["provider"]["worker_ips"]
    assert any("--head" in command for command in config["head_start_ray_commands"])
    wrong = {name: value for name, value in config.items() if name != "provider"}
    with pytest.raises(Exception, match="provider"):
        validate_config(wrong)
